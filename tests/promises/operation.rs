//! The daemon from day to day: it fires on schedule and makes up for what it missed, as many at once
//! as it may; tells people through restarts and outages; answers for its health; and keeps secrets.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::support::hook::Hook;
use crate::support::http;
use crate::support::postgres::Postgres;
use crate::support::program::{Daemon, Respaldo};
use crate::support::s3::{Act, Rule, S3};
use crate::support::scene::{
    DumpLock, HEAD, LOCAL, chat, database_job, files_job, last_run, offsite, status,
    wait_for_waiter,
};
use crate::support::slack::Slack;
use crate::support::smtp::{Protection, Smtp};
use crate::support::{DEADLINE, free_port};

fn runs(respaldo: &Respaldo) -> Vec<Value> {
    status(respaldo)["runs"].as_array().unwrap().clone()
}

fn config(job: &str) -> String {
    format!("{HEAD}{LOCAL}{}", files_job("media", job))
}

fn with_media(config: &str) -> Respaldo {
    let respaldo = Respaldo::new(config);
    respaldo.write("media/photo", "a photo");
    respaldo
}

#[test]
fn a_daemon_fires_on_schedule_and_once() {
    // Two lines that name the same minute are one time.
    let schedule = "schedule = [\"* * * * *\", \"*/1 * * * *\"]\ncatch_up = false";
    let respaldo = with_media(&config(schedule));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let due =
        daemon.health().1["jobs"][0]["next_run"].as_str().unwrap().parse::<Timestamp>().unwrap();
    // A whole minute may pass, and the wait for a line ends just then: so two waits.
    let started = Instant::now();
    while !daemon.log().iter().any(|line| line.contains("is committed")) {
        assert!(started.elapsed() < Duration::from_secs(65), "{:#?}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    let health = daemon.health();
    assert_eq!(health.0, 200);
    let next = health.1["jobs"][0]["next_run"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(next.duration_since(due).as_secs(), 60);
    assert_eq!(daemon.terminate(), 0);
    let runs = runs(&respaldo);
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(runs[0]["trigger"], "schedule");
    let requested = runs[0]["requested_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let late = requested.duration_since(due);
    assert!(!late.is_negative() && late.as_secs() < 5, "it fired {late:#} after its time");
}

/// Makes every backup that the catalog knows so much older.
fn age(respaldo: &Respaldo, hours: i64) {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let changed =
        catalog.execute("UPDATE backups SET started = started - ?", [hours * 3_600_000]).unwrap();
    assert!(changed > 0);
}

#[test]
fn a_missed_run_is_made_up_for_once_unless_it_should_not() {
    let respaldo = with_media(&config("schedule = \"@daily\""));
    respaldo.run(&["backup", "media"]).expect(0);
    age(&respaldo, 49);
    respaldo.write_config(&config("schedule = \"@daily\"\ncatch_up = false"));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(runs(&respaldo).len(), 1);
    respaldo.write_config(&config("schedule = \"@daily\""));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("missed its time since");
    daemon.wait_for_log("is committed");
    assert_eq!(daemon.terminate(), 0);
    // Two days were missed, and one run makes up for both; the next start has nothing to do.
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    assert_eq!(daemon.terminate(), 0);
    let triggers: Vec<Value> = runs(&respaldo).iter().map(|run| run["trigger"].clone()).collect();
    assert_eq!(triggers, ["catch_up", "manual"]);
}

/// A daemon whose two jobs wait for a store that is silent: the states of their runs.
fn states_at_once(workers: u32, busy: usize) -> BTreeSet<(String, String)> {
    let s3 = S3::start();
    let head = HEAD.replace("stall = \"2s\"", &format!("stall = \"60s\"\nworkers = {workers}"));
    let jobs: String =
        ["docs", "media"].map(|name| files_job(name, "schedule = \"@yearly\"")).concat();
    let respaldo = with_media(&format!("{head}{}{jobs}", offsite(&s3)));
    respaldo.write("docs/letter", "a letter");
    s3.faults.set(Rule::on("PUT", ".tar"), Act::Hang);
    let daemon = respaldo.daemon();
    s3.faults.wait_for("PUT", ".tar", busy);
    let states = runs(&respaldo);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let states = states.iter().map(|run| (text(&run["job"]), text(&run["state"]))).collect();
    s3.faults.clear();
    daemon.wait_for_logs("is committed", 2);
    assert_eq!(daemon.terminate(), 0);
    states
}

fn pairs(pairs: [(&str, &str); 2]) -> BTreeSet<(String, String)> {
    pairs.map(|(job, state)| (job.to_owned(), state.to_owned())).into()
}

#[test]
fn one_worker_does_one_run_and_two_do_two() {
    assert_eq!(states_at_once(1, 1), pairs([("docs", "running"), ("media", "queued")]));
    assert_eq!(states_at_once(2, 2), pairs([("docs", "running"), ("media", "running")]));
}

#[test]
fn one_server_is_read_by_one_run_at_a_time() {
    let database = Postgres::start().database("server");
    database.psql("CREATE TABLE t AS SELECT 1 AS n");
    let jobs: String = ["first", "second"]
        .map(|name| database_job(name, &database, "schedule = \"@yearly\""))
        .concat();
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{jobs}"));
    let lock = DumpLock::take(&database);
    let daemon = respaldo.daemon();
    wait_for_waiter(&database);
    let states: Vec<Value> = runs(&respaldo).iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["queued", "running"], "newest first");
    drop(lock);
    daemon.wait_for_logs("is committed", 2);
}

fn ops(smtp: &Smtp, port: u16) -> String {
    format!(
        "[alerts.ops]\nemail = {{ from = \"respaldo@example.com\", to = [\"ops@example.com\"], \
         smtp = \"smtp://{}@{}:{port}\", password = \"{}\", ca_file = \"{}\" }}\n",
        smtp.user,
        smtp.host,
        smtp.password,
        smtp.ca_file().display()
    )
}

#[test]
fn a_message_outlives_a_mail_servers_outage_and_a_killed_daemon() {
    let smtp = Smtp::start(Protection::StartTls, true);
    let database = Postgres::start().database("mail");
    let job = database_job("db", &database, "schedule = \"@yearly\"")
        .replace(&database.name, "no_such_database");
    let config = |port: u16, more: &str| format!("{HEAD}{LOCAL}{}{job}{more}", ops(&smtp, port));
    let respaldo = Respaldo::new(&config(free_port(), ""));
    let daemon = respaldo.daemon();
    let line = daemon.wait_for_log("could not tell 'ops'");
    assert!(line.contains("will try again in 5 s"), "{line}");
    daemon.kill9();
    assert_eq!(status(&respaldo)["unsent_messages"], 1);
    respaldo.write_config(&config(smtp.port, "catch_up = false\n"));
    let daemon = respaldo.daemon();
    let mail = smtp.wait_for(1).remove(0);
    daemon.wait_for_log("told 'ops'");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(smtp.messages().len(), 1, "exactly once");
    assert_eq!(status(&respaldo)["unsent_messages"], 0);
    assert!(mail.subject.starts_with("[respaldo] db failed on "), "{}", mail.subject);
    assert!(mail.text.contains("no_such_database"), "{}", mail.text);
    assert!(mail.text.contains("Next step: no such database on this server"), "{}", mail.text);
    assert!(mail.html.contains("no_such_database"), "{}", mail.html);
    assert_eq!(mail.to, ["ops@example.com"]);
}

#[test]
fn one_way_to_tell_that_is_down_keeps_no_other_from_being_told() {
    let (slack, database) = (Slack::start(), Postgres::start().database("ways"));
    let smtp = Smtp::start(Protection::StartTls, true);
    let job = database_job("db", &database, "").replace(&database.name, "no_such_database");
    let routes = format!("{}{}", ops(&smtp, free_port()), chat(&slack));
    let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{routes}{job}"));
    respaldo.run(&["backup", "db"]).expect(1);
    assert_eq!(slack.messages().len(), 1);
    assert_eq!(status(&respaldo)["unsent_messages"], 1);
}

#[test]
fn the_log_as_json_is_an_object_a_line() {
    let respaldo = with_media(&config("schedule = \"@yearly\""));
    let daemon = respaldo.watch(&["--log-format", "json", "run"]);
    daemon.wait_for_log("is committed");
    let lines = daemon.log();
    assert_eq!(daemon.terminate(), 0);
    assert!(lines.len() >= 4, "{lines:#?}");
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
        line["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    let committed = lines.iter().find(|line| line.contains("is committed")).unwrap();
    let committed: Value = serde_json::from_str(committed).unwrap();
    assert_eq!(committed["span"]["job"], "media", "{committed}");
}

#[test]
fn each_run_has_a_log_of_its_own() {
    let respaldo = with_media(&config("schedule = \"@yearly\""));
    let daemon = respaldo.daemon();
    daemon.wait_for_log("is committed");
    assert_eq!(daemon.terminate(), 0);
    respaldo.write_config(&config("").replace("@DIR@/media", "@DIR@/gone"));
    respaldo.run(&["backup", "media"]).expect(1);
    let mut runs = runs(&respaldo);
    runs.sort_by_key(|run| run["id"].as_i64());
    for (run, words) in runs.iter().zip(["is committed", "the run failed: "]) {
        let path = run["log"].as_str().unwrap();
        let id = run["backup"].as_str().unwrap();
        let expected = respaldo.path(&format!("data/logs/media/backup_{id}.log"));
        assert_eq!(Path::new(path), expected);
        let log = std::fs::read_to_string(path).unwrap();
        assert_eq!(log.matches(words).count(), 1, "{log}");
        assert!(!log.contains("on http://"), "the daemon's own lines: {log}");
    }
}

#[test]
fn health_is_answered_over_http_and_by_a_command() {
    let respaldo = with_media(&config("schedule = \"@daily\"\ncatch_up = false"));
    let silent = respaldo.run(&["health"]).expect(1);
    assert!(silent.stderr.contains("the daemon does not answer"), "{}", silent.stderr);
    assert!(silent.stderr.contains("hint: is `respaldo run` running here"), "{}", silent.stderr);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    let code = |daemon: &Daemon, path: &str| daemon.get(path).status;
    assert_eq!(
        ["/health", "/health/media", "/health/none"].map(|p| code(&daemon, p)),
        [503, 503, 404]
    );
    let (_, report) = daemon.health();
    assert_eq!([&report["status"], &report["jobs"][0]["status"]], ["never", "never"]);
    assert_eq!(report["jobs"][0]["last_success"], Value::Null);
    assert_eq!(respaldo.run(&["health"]).expect(1).stdout, "never\nmedia never\n");
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(["/health", "/health/media", "/livez"].map(|p| code(&daemon, p)), [200, 200, 200]);
    let (_, report) = daemon.health();
    let job = &report["jobs"][0];
    assert_eq!([&report["status"], &job["status"], &job["job"]], ["healthy", "healthy", "media"]);
    assert!(job["age_seconds"].as_i64().unwrap() < 60, "{job:#}");
    assert_eq!(job["max_age_seconds"], (24 * 60 + 144) * 60, "a day and a tenth");
    for key in ["last_success", "next_run"] {
        job[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    assert_eq!(respaldo.run(&["health"]).expect(0).stdout, "healthy\nmedia healthy\n");
    assert_eq!(respaldo.run(&["health", "--json"]).expect(0).json()["status"], "healthy");
    // It goes by the newest backup's age, not by what the last run said.
    age(&respaldo, 27);
    assert_eq!(code(&daemon, "/health"), 503);
    assert_eq!(daemon.health().1["jobs"][0]["status"], "late");
    assert_eq!(code(&daemon, "/livez"), 200, "late is no reason to be killed");
    respaldo.run(&["health"]).expect(1);
}

#[test]
fn a_daemon_that_is_starting_lives_but_is_not_ready() {
    let s3 = S3::start();
    let respaldo = with_media(&format!("{HEAD}{}{}", offsite(&s3), files_job("media", "")));
    // It looks for backups that an empty catalog does not know.
    s3.faults.set(Rule::on("GET", "list-type"), Act::Hang);
    let daemon = respaldo.daemon();
    s3.faults.wait_for("GET", "list-type", 1);
    daemon.wait_for_log("on http://");
    assert_eq!(["/livez", "/readyz"].map(|path| daemon.get(path).status), [200, 503]);
    s3.faults.clear();
    let started = Instant::now();
    while http::get(respaldo.port, "/readyz").unwrap().status != 200 {
        assert!(started.elapsed() < DEADLINE, "never ready: {:#?}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All that lies below a folder, with its name.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| (entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn no_secret_is_in_any_output_log_file_or_argument() {
    let database = Postgres::start().database("secrets");
    database.psql("CREATE TABLE t AS SELECT 1 AS n");
    let (s3, slack, hook) = (S3::start(), Slack::start(), Hook::start());
    let smtp = Smtp::start(Protection::StartTls, true);
    let encoded = database.url_with_password();
    let encoded = encoded.split('@').next().unwrap().rsplit(':').next().unwrap().to_owned();
    let secrets =
        [database.password(), &encoded, s3.secret_key, slack.token, hook.token, smtp.password]
            .map(str::to_owned);
    // One in the URL, as many write it, and one beside it.
    let in_url = format!(
        "[jobs.url]\nsource = {{ postgres = \"{}\" }}\nretries = 0\n",
        database.url_with_password()
    );
    let hooks = format!(
        "[alerts.hook]\nwebhook = {{ url = \"{0}\", headers = {{ X-Key = \"{1}\" }} }}\n\
         [alerts.beat]\nheartbeat = {{ url = \"{0}\" }}\n",
        hook.url(),
        hook.token
    );
    let config = format!(
        "{HEAD}{LOCAL}{hooks}{}{}{}{in_url}{}",
        offsite(&s3),
        chat(&slack),
        ops(&smtp, smtp.port),
        database_job("db", &database, "schedule = \"@yearly\"")
    );
    let respaldo = Respaldo::new(&config).env("RUST_LOG", "respaldo=trace,info");
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    let mut note = |what: String, text: String| seen.push((what, text.into_bytes()));

    let lock = DumpLock::take(&database);
    let daemon = respaldo.daemon();
    wait_for_waiter(&database);
    let family = daemon.descendants();
    assert!(family.iter().any(|process| process.name == "pg_dump"), "{family:?}");
    for process in family {
        note(format!("arguments of {}", process.name), process.command);
    }
    drop(lock);
    daemon.wait_for_log("is committed");
    for path in ["/health", "/health/db", "/livez", "/readyz"] {
        note(path.into(), daemon.get(path).body);
    }
    // Each way of failing has its own words: of the store, the server, the webhook, the mail server.
    s3.faults.set(Rule::any(), Act::Status(403));
    slack.answer(404);
    hook.answer(403);
    note("a partial run".into(), respaldo.run(&["backup", "url"]).expect(3).all());
    s3.faults.clear();
    s3.faults.set(Rule::any(), Act::RejectCredentials);
    note("another".into(), respaldo.run(&["backup", "--all", "--json"]).expect(3).all());
    s3.faults.clear();
    smtp.wait_for(1);
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["config", "schema"],
        &["list"],
        &["list", "--json"],
        &["status"],
        &["status", "--json"],
        &["health", "--json"],
        &["verify", "db"],
        &["prune", "--dry-run", "--json"],
        &["restore", "db", "--dry-run"],
    ] {
        let output = respaldo.run(arguments);
        assert!(!output.all().is_empty(), "{arguments:?} says nothing");
        note(format!("{arguments:?}"), output.all());
    }
    note("the daemon's log".into(), daemon.log().join("\n"));
    assert_eq!(daemon.terminate(), 0);
    for mail in smtp.messages() {
        note("a mail".into(), format!("{mail:?}"));
    }
    assert!(last_run(&respaldo, "db")["log"].is_string());

    seen.extend(everything(&respaldo.path("data")));
    seen.extend(everything(&respaldo.path("backups")));
    seen.extend(everything(&s3.folder()));
    assert!(seen.iter().any(|(name, _)| name.ends_with("catalog.sqlite3")), "too little was seen");
    assert!(seen.iter().any(|(name, _)| name.ends_with("/config.toml")), "too little was seen");
    assert!(seen.iter().any(|(name, _)| name.ends_with(".log")), "too little was seen");
    for (name, bytes) in &seen {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {name}: {}", String::from_utf8_lossy(bytes));
        }
    }
}
