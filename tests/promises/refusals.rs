//! Bad input gets one clear error that names the key, the value and the next step: exit code 2, and
//! nothing is touched. A running daemon keeps its old config.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use crate::support::program::Respaldo;
use crate::support::scene::{HEAD, LOCAL, files_job};

/// A config that is right but for what a test adds.
fn config(job: &str) -> String {
    format!("{HEAD}{LOCAL}{}", files_job("media", job))
}

/// What is said; the test's own folder and port are as in the config, and nothing was made.
#[track_caller]
fn refused(config: &str, arguments: &[&str]) -> String {
    let respaldo = Respaldo::new(config);
    respaldo.write("media/photo", "a photo");
    let output = respaldo.run(arguments).expect(2);
    assert_eq!(output.stdout, "", "stdout carries data only");
    let made: Vec<String> = std::fs::read_dir(respaldo.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["respaldo.toml", "media"].contains(&name.as_str()))
        .collect();
    assert!(made.is_empty(), "made {made:?}");
    for word in ["error: ", "hint: "] {
        let lines = output.stderr.lines().filter(|line| line.starts_with(word));
        assert_eq!(lines.count(), 1, "one clear {word:?}: {}", output.stderr);
    }
    neutral(&respaldo, &output.stderr)
}

fn neutral(respaldo: &Respaldo, text: &str) -> String {
    let folder = respaldo.folder().to_str().unwrap();
    let text = text.replace(folder, "@DIR@").replace(&respaldo.port.to_string(), "@PORT@");
    let errors =
        text.lines().filter(|line| line.starts_with("error: ") || line.starts_with("hint: "));
    errors.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bad_cron_line() {
    insta::assert_snapshot!(refused(&config("schedule = \"61 * * * *\""), &["run"]), @r##"
    error: jobs.media.schedule (in @DIR@/respaldo.toml): '61 * * * *' is not a cron expression: Component error: Number out of bounds.
    hint: five fields: minute hour day month weekday, as in "0 1 * * *", or @daily
    "##);
}

#[test]
fn a_cron_line_that_never_fires() {
    insta::assert_snapshot!(refused(&config("schedule = \"0 2 31 2 *\""), &["run"]), @r##"
    error: jobs.media.schedule (in @DIR@/respaldo.toml): '0 2 31 2 *' never fires
    hint: no such day comes; look at the day and month fields
    "##);
}

#[test]
fn a_misspelt_key() {
    insta::assert_snapshot!(refused(&config("shcedule = \"@daily\""), &["run"]), @r##"
    error: unknown key jobs.media.shcedule (in @DIR@/respaldo.toml); did you mean schedule?
    hint: the keys known here: anomaly, catch_up, compression, deadline, drill, encrypt, hooks, incremental, jitter, keep, keep_old, level, max_age, max_chain, on_change, poll, retries, schedule, source, sources, sync, verify, volume_size, wal
    "##);
}

#[test]
fn an_unknown_time_zone() {
    let config = format!("timezone = \"America/Limaa\"\n{}", config(""));
    insta::assert_snapshot!(refused(&config, &["run"]), @r##"
    error: timezone can't be "America/Limaa" (in @DIR@/respaldo.toml): there is no such time zone; did you mean America/Lima?
    hint: use a name of the IANA database, such as America/Lima or UTC
    "##);
}

#[test]
fn a_secret_file_that_is_missing() {
    let config =
        format!("{}[alerts.chat]\nslack = {{ webhook_file = \"@DIR@/no/such\" }}\n", config(""));
    insta::assert_snapshot!(refused(&config, &["backup", "media"]), @r##"
    error: alerts.chat.slack.webhook_file (in @DIR@/respaldo.toml): the file @DIR@/no/such can't be read: No such file or directory (os error 2)
    hint: put the secret there (docker compose: `secrets:`), readable for the user that runs respaldo
    "##);
}

#[test]
fn a_secret_of_the_environment_that_is_missing() {
    let config =
        format!("{}[alerts.chat]\nslack = {{ webhook = \"${{SLACK_WEBHOOK}}\" }}\n", config(""));
    insta::assert_snapshot!(refused(&config, &["run"]), @r##"
    error: alerts.chat.slack.webhook (in @DIR@/respaldo.toml) uses ${SLACK_WEBHOOK}, but neither SLACK_WEBHOOK nor SLACK_WEBHOOK_FILE is set
    hint: set SLACK_WEBHOOK, or let SLACK_WEBHOOK_FILE name a file that holds the value
    "##);
}

#[test]
fn a_destination_that_no_one_defined() {
    let config = config("keep = { locl = { days = 7 } }");
    insta::assert_snapshot!(refused(&config, &["backup", "media"]), @r##"
    error: jobs.media.keep.locl (in @DIR@/respaldo.toml): there is no destination locl; did you mean local?
    hint: add a section [destinations.locl]; there is local
    "##);
}

#[test]
fn a_file_that_is_no_toml() {
    insta::assert_snapshot!(refused(&format!("{}[jobs.media", config("")), &["config", "check"]), @r##"
    error: @DIR@/respaldo.toml, line 11: unclosed table, expected `]`
    hint: strings need quotes in TOML, and each key is given once
    "##);
}

#[test]
fn a_file_that_is_not_there() {
    let respaldo = Respaldo::without_config();
    let output = respaldo.run(&["--config", "/no/such.toml", "run"]).expect(2);
    insta::assert_snapshot!(neutral(&respaldo, &output.stderr), @r##"
    error: the config /no/such.toml can't be read: No such file or directory (os error 2)
    hint: write one with `respaldo config init`, or name another: --config FILE
    "##);
}

#[test]
fn no_config_and_no_environment_at_all() {
    let respaldo = Respaldo::without_config();
    let output = respaldo.run(&["run"]).expect(2);
    insta::assert_snapshot!(neutral(&respaldo, &output.stderr), @r##"
    error: there is no config file, and the environment names no database
    hint: write a file with `respaldo config init`, or set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD (or DATABASE_URL), BACKUP_DIR, RETENTION_DAYS
    "##);
}

/// What names something that is not there; the catalog may be opened, no destination is touched.
#[track_caller]
fn unknown(arguments: &[&str]) -> String {
    let respaldo = Respaldo::new(&config(""));
    let output = respaldo.run(arguments).expect(2);
    assert_eq!(output.stdout, "");
    assert!(!respaldo.path("backups").exists(), "the destination was touched");
    neutral(&respaldo, &output.stderr)
}

#[test]
fn an_unknown_job() {
    insta::assert_snapshot!(unknown(&["backup", "meda"]), @r##"
    error: there is no job 'meda'
    hint: the config has: media
    "##);
    let backup = unknown(&["backup", "meda"]);
    for command in [&["list", "meda"][..], &["verify", "meda"], &["prune", "meda"]] {
        assert_eq!(unknown(command), backup, "{command:?}");
    }
}

#[test]
fn an_unknown_destination() {
    let said = unknown(&["verify", "media", "latest", "--destination", "offsite"]);
    insta::assert_snapshot!(said, @r##"
    error: job 'media' has no destination 'offsite'
    hint: it has: local
    "##);
}

#[test]
fn an_unknown_backup_or_run() {
    insta::assert_snapshot!(unknown(&["show", "media", "20251124T020000Z"]), @r##"
    error: job 'media' has no backup 20251124T020000Z
    hint: `respaldo list media` shows what there is
    "##);
    insta::assert_snapshot!(unknown(&["cancel", "7"]), @r##"
    error: there is no run 7
    hint: `respaldo status` shows the runs that are under way
    "##);
}

#[test]
fn words_that_are_no_id_no_run_and_no_command() {
    let respaldo = Respaldo::new(&config(""));
    for (arguments, words) in [
        (&["show", "media", "yesterday"][..], "yesterday"),
        (&["verify", "media", "newest"], "newest"),
        (&["cancel", "seven"], "seven"),
        (&["bakcup", "media"], "a similar subcommand exists: 'backup'"),
        (&["backup"], "<JOB"),
        (&["backup", "--labl", "x", "media"], "--label"),
    ] {
        let output = respaldo.run(arguments).expect(2);
        assert!(output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
        assert!(!respaldo.path("data").exists());
    }
}

#[test]
fn a_port_that_is_taken() {
    let respaldo = Respaldo::new(&config(""));
    let _taken = std::net::TcpListener::bind(("127.0.0.1", respaldo.port)).unwrap();
    let output = respaldo.run(&["run"]).expect(2);
    assert!(!respaldo.path("backups").exists(), "the destination was touched");
    insta::assert_snapshot!(neutral(&respaldo, &output.stderr), @r##"
    error: listen on 127.0.0.1:@PORT@: Address already in use (os error 98)
    hint: another program has that port: set server.listen (RESPALDO__SERVER__LISTEN)
    "##);
}

#[test]
fn a_bad_config_at_a_reload_keeps_the_old_one() {
    let respaldo = Respaldo::new(&config("schedule = \"@yearly\""));
    respaldo.write("media/photo", "a photo");
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    let next =
        |daemon: &crate::support::program::Daemon| daemon.health().1["jobs"][0]["next_run"].clone();
    let before = next(&daemon);
    for (number, wrong) in ["schedule = \"61 * * * *\"", "shcedule = \"@daily\""].iter().enumerate()
    {
        respaldo.write_config(&config(wrong));
        daemon.reload();
        let lines = daemon.wait_for_logs("the old config stays", number + 1);
        assert!(lines[number].contains("hint: "), "{lines:?}");
        assert!(lines[number].contains("jobs.media"), "{lines:?}");
    }
    assert_eq!(next(&daemon), before);
    // It may be mended without a restart, and a new job shows at once.
    respaldo.write("docs/letter", "a letter");
    let second = files_job("docs", "schedule = \"@daily\"");
    respaldo.write_config(&format!("{}{second}", config("schedule = \"@daily\"")));
    daemon.reload();
    daemon.wait_for_log("the config was read again");
    assert_ne!(next(&daemon), before);
    let report = daemon.health().1;
    let jobs: Vec<&str> =
        report["jobs"].as_array().unwrap().iter().filter_map(|job| job["job"].as_str()).collect();
    assert_eq!(jobs, ["docs", "media"]);
    // It need not wait for tomorrow; the other one has its backup.
    daemon.wait_for_log("job 'docs' has no backup yet: it runs now");
    let committed = daemon.wait_for_logs("is committed", 2);
    assert!(committed[0].contains("[media]") && committed[1].contains("[docs]"), "{committed:?}");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(
        respaldo.run(&["list", "media", "--json"]).expect(0).json().as_array().unwrap().len(),
        1
    );
}

#[test]
fn a_data_folder_does_not_move_under_a_running_daemon() {
    let respaldo = Respaldo::new(&config(""));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    respaldo.write_config(&config("").replace("@DIR@/data", "@DIR@/elsewhere"));
    daemon.reload();
    let line = daemon.wait_for_log("the old config stays");
    assert!(line.contains("data_dir can't change") && line.contains("restart"), "{line}");
    assert!(!respaldo.path("elsewhere").exists());
}
