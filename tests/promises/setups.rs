//! Five set-ups that people run, each by the config that is shipped for it, beside the servers that it
//! speaks of: what its document asks for is done, and the disasters that it plans for are lived through.
//! docs/setups.md says which test shows what.

mod django;
mod drtc_puno;
mod erp_generic;
mod finanzas_agv;
mod grupo_gad;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{Timestamp, ToSpan};
use respaldo::config::{Job, Settings, Variables, load_from};
use respaldo::model::{BackupId, BackupKind};
use respaldo::retention::{Candidate, Facts, plan, takes};
use respaldo::schedule::Schedule;

use crate::support::config;
use crate::support::postgres::{Database, Postgres};
use crate::support::program::Respaldo;
use crate::support::smtp::{Mail, Smtp};
use crate::support::{eventually, tool};

/// Of every application's user in its database.
const PASSWORD: &str = "a password: of its/own";

/// How an official image sets a server up: the application's user may do everything in it, and its
/// database is empty.
fn server_of(user: &str, database: &str) -> (Postgres, Database) {
    let server = Postgres::fresh();
    server.psql(
        "postgres",
        &format!(
            "CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{PASSWORD}';
             CREATE DATABASE {database} OWNER {user} TEMPLATE template0"
        ),
    );
    let database = server.existing(database);
    (server, database)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

/// A config as it is shipped, on a machine of its own. `here` is all that is another in it: an address
/// or a path, and what stands for it; the secrets' folder too. Everything it says of schedules,
/// retention, hooks, drills, keys and alerts is what is tried.
fn shipped(name: &str, here: &[(&str, &str)], secrets: &[(&str, &str)]) -> Respaldo {
    let mut config = fs::read_to_string(examples().join(name).with_extension("toml")).unwrap();
    let secrets_here = (config::secrets_of(&config), "@DIR@/secrets/");
    for (there, here) in here.iter().copied().chain([secrets_here]) {
        assert!(config.contains(there), "{name} says nothing of {there}");
        config = config.replace(there, here);
    }
    let machine = Respaldo::new(&config)
        .env("RESPALDO__DATA_DIR", "@DIR@/data")
        .env("RESPALDO__SERVER__LISTEN", "127.0.0.1:@PORT@");
    for (name, secret) in secrets {
        machine.write(&format!("secrets/{name}"), &format!("{secret}\n"));
    }
    machine
}

/// What moto takes: it knows no keys.
const AWS: [(&str, &str); 2] =
    [("aws_access_key_id", "AKIATEST"), ("aws_secret_access_key", "not shown")];

/// A machine with nothing but respaldo on it, which is told where the new database server is.
fn bare(server: &Postgres, user: &str, s3: &str) -> Respaldo {
    Respaldo::without_config()
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", server.port.to_string())
        .env("DB_USER", user)
        .env("DB_PASSWORD", if user == "postgres" { &server.password } else { PASSWORD })
        .env("AWS_ENDPOINT_URL", s3)
        .env("AWS_ACCESS_KEY_ID", AWS[0].1)
        .env("AWS_SECRET_ACCESS_KEY", AWS[1].1)
        .env("AWS_DEFAULT_REGION", "us-east-1")
}

/// A drill of the newest backup proves it, by tables or entries that it compared and by `checks` of the
/// config.
#[track_caller]
fn assert_proven(respaldo: &Respaldo, job: &str, checks: usize) {
    let report = respaldo.run(&["drill", job, "--json"]).expect(0).json();
    assert_eq!(report["proven"], true, "{report:#}");
    assert_eq!(report["checks"].as_array().unwrap().len(), checks, "{report:#}");
    let tables = report["tables"].as_array().unwrap();
    assert!(tables.iter().all(|table| table["ok"] == true), "{report:#}");
}

/// What a job's health is once its backups are so much older.
fn health_after(respaldo: &Respaldo, job: &str, minutes: i64) -> String {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let age = |minutes: i64| {
        let sql = "UPDATE backups SET started = started - ?";
        assert!(catalog.execute(sql, [minutes * 60_000]).unwrap() > 0);
    };
    age(minutes);
    let status = respaldo.run(&["status", "--json"]).json();
    age(-minutes);
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().find(|found| found["job"] == job).unwrap()["status"].as_str().unwrap().to_owned()
}

/// The mail with such a subject, once it is there. Others may be as well: of a disk that is low where the test
/// runs.
fn mail(smtp: &Smtp, subject: &str) -> Mail {
    let found = || smtp.messages().into_iter().find(|mail| mail.subject.starts_with(subject));
    eventually(subject, || found().is_some());
    found().unwrap()
}

fn shell(folder: &Path, commands: &str) -> String {
    tool(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(folder))
}

/// The settings that a shipped config amounts to.
fn settings(name: &str) -> Settings {
    let text = fs::read_to_string(examples().join(name).with_extension("toml")).unwrap();
    let machine = config::machine(&text);
    let path = machine.path("respaldo.toml");
    load_from(Some(&path), &Variables::new(), now()).unwrap().settings
}

fn now() -> Timestamp {
    "2025-11-24T12:00:00Z".parse().unwrap()
}

/// What is on a destination when the job has run by its schedule for longer than anything is kept, each run
/// with the prune that follows it: how many backups, and the age of the oldest in days.
fn kept(job: &Job, destination: &str) -> (usize, i64) {
    let (policy, zone) = (&job.keep[destination], job.schedule.zone());
    let days = i64::from(policy.oldest_days().unwrap()) + 40;
    let begin = now().to_zoned(zone.clone()).checked_sub(days.days()).unwrap().timestamp();
    let mut there: Vec<Candidate> = Vec::new();
    let mut last = begin;
    while let Some(at) = job.schedule.next(last).filter(|at| *at < now()) {
        last = at;
        let id = BackupId::at(at);
        if !takes(policy, zone, id, there.iter().map(|backup| backup.id)) {
            continue;
        }
        let kind = BackupKind::Full;
        let (pinned, leased, proven, retained) = (false, false, false, false);
        let since = None;
        there.push(Candidate { id, kind, since, pinned, leased, proven, retained });
        let plan = plan(&Facts {
            job: &job.name,
            policy,
            backups: &there,
            now: at,
            zone,
            foreign: false,
            policy_changed: false,
            suspect: false,
            confirmed: false,
        });
        let gone: BTreeSet<_> = plan.doomed.iter().map(|doomed| *doomed.id()).collect();
        there.retain(|backup| !gone.contains(&backup.id));
    }
    let oldest = there.iter().map(|backup| backup.id.started()).min().unwrap();
    (there.len(), last.duration_since(oldest).as_hours() / 24)
}

/// The next two times, in the zone where the job lives.
fn next(schedule: &Schedule) -> String {
    let first = schedule.next(now()).unwrap();
    let both = [first, schedule.next(first).unwrap()];
    both.map(|at| at.to_zoned(schedule.zone().clone()).strftime("%m-%d %H:%M").to_string())
        .join(", ")
}

#[test]
fn each_set_up_runs_when_its_document_says() {
    for (name, job, wanted) in [
        ("grupo-gad", "db", "11-24 13:30, 11-25 01:00; drill 12-01 04:00, 01-01 04:00"),
        ("drtc-puno", "db", "11-25 03:00, 11-26 03:00; drill 12-01 05:00, 01-01 05:00"),
        ("drtc-puno", "media", "11-25 03:00, 11-26 03:00; drill 12-01 05:30, 01-01 05:30"),
        ("erp-generic", "full", "11-25 02:00, 11-26 02:00; drill 11-30 03:00, 12-07 03:00"),
        ("erp-generic", "schemas", "11-25 03:00, 11-26 03:00"),
        ("erp-generic", "four_hourly", "11-24 16:00, 11-24 20:00"),
        ("erp-generic", "server", "11-25 02:30, 11-26 02:30; drill 11-30 05:00, 12-07 05:00"),
        ("erp-generic", "config", "11-25 00:00, 11-26 00:00"),
        ("finanzas-agv", "pg", "11-25 00:00, 11-26 00:00; drill 12-01 00:00, 01-01 00:00"),
        ("finanzas-agv", "mysql", "11-25 00:00, 11-26 00:00; drill 12-01 00:00, 01-01 00:00"),
        ("django", "db", "11-25 02:00, 11-26 02:00; drill 12-01 04:00, 01-01 04:00"),
        ("django", "media", "11-30 03:00, 12-07 03:00"),
    ] {
        let settings = settings(name);
        let job = &settings.jobs[&job.parse().unwrap()];
        let drill = job.drill.as_ref().map(|drill| format!("; drill {}", next(&drill.schedule)));
        assert_eq!(next(&job.schedule) + &drill.unwrap_or_default(), wanted, "{name} {}", job.name);
    }
    // What changes seldom is not taken by the clock.
    let config = &settings("django").jobs[&"config".parse().unwrap()];
    assert!(config.schedule.is_empty() && config.on_change.is_some());
    let full = &settings("erp-generic").jobs[&"full".parse().unwrap()];
    assert_eq!(next(&full.verify.as_ref().unwrap().schedule), "11-25 04:00, 11-26 04:00");
}

#[test]
fn each_set_up_keeps_for_years_what_its_document_says() {
    let mut settings = HashMap::new();
    for (name, job, destination, wanted) in [
        ("grupo-gad", "db", "local", (14, 6)),
        ("grupo-gad", "db", "s3", (60, 29)),
        ("grupo-gad", "db", "s3_west", (60, 29)),
        ("drtc-puno", "db", "local", (7, 6)),
        ("drtc-puno", "media", "s3", (7, 6)),
        ("erp-generic", "full", "local", (7, 6)),
        ("erp-generic", "full", "cloud", (30, 29)),
        ("erp-generic", "full", "cloud_weekly", (12, 77)),
        ("erp-generic", "full", "cloud_monthly", (12, 358)),
        ("erp-generic", "full", "cloud_yearly", (7, 2519)),
        ("erp-generic", "full", "tape", (84, 2550)),
        ("erp-generic", "schemas", "cloud", (28, 27)),
        ("erp-generic", "four_hourly", "local", (42, 6)),
        ("erp-generic", "server", "cloud", (7, 6)),
        ("erp-generic", "config", "local", (30, 29)),
        ("finanzas-agv", "pg", "s3", (30, 29)),
        ("finanzas-agv", "mysql", "local", (30, 29)),
        ("django", "db", "local", (7, 6)),
        ("django", "db", "server", (23, 1424)),
        ("django", "media", "s3", (5, 28)),
    ] {
        let settings = settings.entry(name).or_insert_with(|| self::settings(name));
        let found = kept(&settings.jobs[&job.parse().unwrap()], destination);
        assert_eq!(found, wanted, "{name} {job} {destination}");
    }
}

#[test]
fn the_page_names_tests_that_are_there_and_every_set_up() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/setups.md")).unwrap();
    let files = walkdir::WalkDir::new(root.join("tests")).into_iter().map(Result::unwrap);
    let code: String = files
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "rs"))
        .map(|entry| fs::read_to_string(entry.path()).unwrap())
        .collect();
    // Of a row: what was asked for, how it is done, the tests that show it.
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let mut named = BTreeSet::new();
    for row in rows.filter(|row| !row.starts_with("---") && !row.starts_with("asked for")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_, _, tests] = cells[..] else { panic!("not three cells: {row}") };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}()")), "there is no test {test}: {row}");
            named.insert(test);
        }
    }
    for example in fs::read_dir(examples()).unwrap() {
        let name = example.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("config/examples/{name}")), "{name} is not on the page");
        let setup = name.trim_end_matches(".toml").replace('-', "_");
        assert!(
            root.join(format!("tests/promises/setups/{setup}.rs")).exists(),
            "{name} is not run"
        );
        assert!(named.iter().any(|test| test.starts_with(&setup)), "nothing shows {name}");
    }
}
