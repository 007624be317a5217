//! Programs of the user's own: one whose output is backed up, one that takes it back, and those
//! that run before and after. Their exit status and their time limits count, and what they are
//! told in secret is shown nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::process;
use crate::support::program::Respaldo;
use crate::support::scene::{
    HEAD, LOCAL, assert_no_leftovers, backups_in, chat, last_run, local_root,
};
use crate::support::slack::Slack;
use crate::support::stored::Stored;
use crate::support::tool;

const SECRET: &str = "hunter2-and-more";

/// A job `out` of a shell's output; `more` are further keys of the source, `rest` of the job.
fn shell(script: &str, more: &str, rest: &str) -> Respaldo {
    let script = serde_json::to_string(script).unwrap();
    Respaldo::new(&format!(
        "{HEAD}{LOCAL}[jobs.out]\nretries = 0\n{rest}\n\
         source = {{ command = [\"sh\", \"-c\", {script}], name = \"mongo\", \
         env = {{ KEY = \"${{THE_KEY}}\" }}{more} }}\n"
    ))
    .env("THE_KEY", SECRET)
}

fn stored(respaldo: &Respaldo) -> Stored {
    Stored::newest(&local_root(respaldo), "out")
}

/// Every file below the test's folder, but for what the test itself keeps there.
fn everything_written(respaldo: &Respaldo) -> String {
    let files = walkdir::WalkDir::new(respaldo.folder()).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned())
        .collect()
}

#[test]
fn a_programs_output_comes_back_as_a_file_and_by_its_own_program() {
    let respaldo = shell(
        "test $(printf %s $KEY | wc -c) = 16 && echo progress with $KEY >&2 && seq 1 100000 && env | sort",
        ", extension = \"rdb\", restore_command = [\"sh\", \"-c\", \"test $KEY && cat > @DIR@/taken\"]",
        "",
    )
    .env("LEAKED", "no");
    let said = respaldo.run(&["backup", "out"]).expect(0);
    let backup = stored(&respaldo);
    assert_eq!(backup.manifest()["artifacts"][0]["name"], "mongo.rdb.zst");
    assert_eq!(backup.manifest()["warnings"], serde_json::Value::Null, "progress is no warning");
    respaldo.run(&["verify", "out"]).expect(0);

    let file = respaldo.path("new/dump.rdb");
    let to = file.to_str().unwrap();
    respaldo.run(&["restore", "out", "--to", to, "--yes"]).expect(0);
    let plain = fs::read_to_string(&file).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (numbers, environment) = plain.split_once("100000\n").unwrap();
    assert!(numbers.starts_with("1\n2\n") && numbers.ends_with("99999\n"));
    let names: Vec<&str> = environment.lines().map(|l| l.split_once('=').unwrap().0).collect();
    let ours = ["KEY", "LC_ALL", "PATH"];
    let shells = ["OLDPWD", "PWD", "SHLVL", "_"];
    assert!(names.iter().all(|name| ours.contains(name) || shells.contains(name)), "{names:?}");
    assert!(ours.iter().all(|name| names.contains(name)), "{names:?}");
    let again = respaldo.run(&["restore", "out", "--to", to, "--yes"]).expect(2);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);

    respaldo.run(&["restore", "out", "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(respaldo.path("taken")).unwrap(), plain);

    let text = fs::read_to_string(backup.path("RESTORE.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: String = blocks.collect();
    tool(Command::new("bash").args(["-e", "-c", &commands]).current_dir(&backup.folder));
    let restored = backup.path("restored-mongo.rdb");
    assert_eq!(fs::read_to_string(&restored).unwrap(), plain);

    for path in [restored, file, respaldo.path("taken"), respaldo.path("respaldo.toml")] {
        fs::remove_file(path).unwrap();
    }
    assert!(!said.all().contains(SECRET) && !everything_written(&respaldo).contains(SECRET));
    let config = fs::read_to_string(backup.path("config.toml")).unwrap();
    assert!(config.contains("KEY = \"${THE_KEY}\""), "{config}");
}

#[test]
fn a_program_that_fails_or_writes_nothing_is_no_backup() {
    for (script, words) in [
        (
            "seq 1 100000; echo no auth for $KEY >&2; exit 3",
            ["exited with code 3", "no auth for ***"],
        ),
        ("true", ["wrote nothing", "standard output"]),
        ("seq 1 100000; kill -9 $$", ["was killed", "signal: 9"]),
    ] {
        let respaldo = shell(script, "", "");
        let said = respaldo.run(&["backup", "out"]).expect(1).all();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains(SECRET), "{said}");
        assert!(backups_in(&local_root(&respaldo), "out").is_empty());
        assert_no_leftovers(&respaldo, "out", None);
    }
    let config =
        format!("{HEAD}{LOCAL}[jobs.out]\nretries = 0\nsource = {{ command = \"nosuchdump\" }}\n");
    let said = Respaldo::new(&config).run(&["backup", "out"]).expect(1).stderr;
    assert!(said.contains("there is no program 'nosuchdump'") && said.contains("hint: "), "{said}");
}

#[test]
fn a_program_gets_nothing_of_a_backup_that_is_damaged() {
    let respaldo = shell("seq 1 100000", ", restore_command = [\"touch\", \"@DIR@/begun\"]", "");
    respaldo.run(&["backup", "out"]).expect(0);
    Stored::flip(&stored(&respaldo).artifact(0));
    respaldo.run(&["restore", "out", "--yes"]).expect(1);
    assert!(!respaldo.path("begun").exists(), "it was started before the digest was right");
}

/// Hooks that write down when they ran; `more` are further keys.
fn noting(more: &str) -> String {
    let note = |when: &str| {
        format!(
            "{when} = [\"sh\", \"-c\", \"echo {when} $RESPALDO_JOB $RESPALDO_ID $RESPALDO_STATE >> @DIR@/notes\"]"
        )
    };
    format!("hooks = {{ {}, {}{more} }}", note("before"), note("after"))
}

fn notes(respaldo: &Respaldo) -> String {
    fs::read_to_string(respaldo.path("notes")).unwrap_or_default()
}

#[test]
fn hooks_run_before_and_after_and_are_told_of_what() {
    let respaldo = shell("cat @DIR@/notes", "", &noting(""));
    respaldo.run(&["backup", "out"]).expect(0);
    let id = stored(&respaldo).id();
    assert_eq!(notes(&respaldo), format!("before out {id}\nafter out {id} succeeded\n"));
    let seen = tool(Command::new("zstd").arg("-dc").arg(stored(&respaldo).artifact(0)));
    assert_eq!(seen, format!("before out {id}\n"), "the backup is between the two");

    let respaldo = shell("exit 1", "", &noting(""));
    respaldo.run(&["backup", "out"]).expect(1);
    assert!(notes(&respaldo).ends_with(" failed\n"), "{}", notes(&respaldo));
}

#[test]
fn where_the_hook_before_fails_or_takes_too_long_nothing_is_backed_up() {
    let late = "seconds=600.1234; sleep $seconds; true";
    for (before, words) in [
        ("echo no $RESPALDO_JOB >&2; exit 7", ["exited with code 7", "no out"]),
        (late, ["took longer than its 1s", "raise `timeout`"]),
    ] {
        let hooks = format!(
            "hooks = {{ before = [\"sh\", \"-c\", \"{before}\"], timeout = \"1s\", \
             after = [\"sh\", \"-c\", \"echo $RESPALDO_STATE > @DIR@/notes\"] }}"
        );
        let respaldo = shell("touch @DIR@/dumped; echo x", "", &hooks);
        let said = respaldo.run(&["backup", "out"]).expect(1).stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!respaldo.path("dumped").exists(), "it was dumped all the same");
        assert_eq!(notes(&respaldo), "failed\n", "what comes after undoes what came before");
        assert!(backups_in(&local_root(&respaldo), "out").is_empty());
    }
    for sleeper in process::mentioning("600.1234") {
        sleeper.wait_gone();
    }
}

#[test]
fn a_hook_that_fails_after_a_backup_is_told_and_the_backup_stays() {
    let slack = Slack::start();
    let hooks = "hooks = { after = [\"sh\", \"-c\", \"echo cannot thaw >&2; exit 1\"] }";
    let respaldo = shell("echo x", "", hooks);
    let config = fs::read_to_string(respaldo.path("respaldo.toml")).unwrap();
    respaldo.write_config(&format!("{config}{}", chat(&slack)));
    respaldo.run(&["backup", "out"]).expect(0);
    assert_eq!(last_run(&respaldo, "out")["state"], "succeeded");
    let message = slack.wait_for(1)[0].to_string();
    assert!(
        message.contains("cannot thaw") && message.contains("has a hook that failed"),
        "{message}"
    );
    respaldo.run(&["verify", "out"]).expect(0);
}

#[test]
fn the_hook_after_runs_when_the_backup_is_cancelled() {
    let seconds = format!("600.{}", std::process::id());
    let script = format!("echo begun > @DIR@/begun; sleep {seconds}; true");
    let respaldo = shell(&script, "", &noting(""));
    tool(Command::new("mkfifo").arg(respaldo.path("begun")));
    let daemon = respaldo.watch(&["backup", "out"]);
    // Read once the program has begun, and not before.
    assert_eq!(fs::read_to_string(respaldo.path("begun")).unwrap(), "begun\n");
    let run = last_run(&respaldo, "out")["id"].to_string();
    respaldo.run(&["cancel", &run]).expect(0);
    assert_ne!(daemon.end(), 0);
    assert!(notes(&respaldo).ends_with(" cancelled\n"), "{}", notes(&respaldo));
    for sleeper in process::mentioning(&seconds) {
        if sleeper.name == "sleep" {
            sleeper.wait_gone();
        }
    }
}
