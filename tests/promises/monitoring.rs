//! What is watched from outside: metrics that a real Prometheus takes, rules and a dashboard that name
//! nothing that is not served, and a health that is quick to ask for and survives a restart.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::program::{Daemon, Respaldo};
use crate::support::prometheus::{Prometheus, shipped};
use crate::support::scene::{HEAD, LOCAL, files_job};
use crate::support::{eventually, tool};
use respaldo::model::VERSION;

/// Two destinations, a job that is proven, one that fails, one that never ran.
fn scene() -> Respaldo {
    let second = "[destinations.second]\nurl = \"file://@DIR@/second\"\n";
    let shop = "[jobs.shop]\nschedule = \"@yearly\"\nretries = 0\ncatch_up = false\n\
        source = { sqlite = \"@DIR@/shop.db\", fingerprint = \"content\" }\n\
        drill = { schedule = \"@monthly\" }\n";
    let idle = "schedule = \"@yearly\"\ncatch_up = false";
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{second}{shop}{}{}",
        files_job("gone", idle),
        files_job("idle", idle)
    ));
    let sql = "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1), (2), (3)";
    tool(Command::new("sqlite3").arg(respaldo.path("shop.db")).arg(sql));
    respaldo.run(&["backup", "shop"]).expect(0);
    respaldo.run(&["backup", "shop"]).expect(0);
    respaldo.run(&["backup", "gone"]).expect(1);
    respaldo.run(&["drill", "shop"]).expect(0);
    respaldo
}

/// A gibibyte less every day for two weeks.
fn fill_slowly(respaldo: &Respaldo) {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    for days in 0..14_i64 {
        let (at, free) = (now - days * 86_400_000 - 1000, (days + 5) << 30);
        let row = rusqlite::params!["second", at, free, 100_i64 << 30];
        catalog.execute("INSERT INTO space VALUES (?, ?, ?, ?)", row).unwrap();
    }
}

fn page(daemon: &Daemon) -> String {
    let reply = daemon.get("/metrics");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{}", reply.body);
    assert!(reply.body.ends_with("# EOF\n"), "{}", reply.body);
    reply.body
}

/// Values by name with labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = lines.map(|line| line.rsplit_once(' ').unwrap());
    sample.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn started(respaldo: &Respaldo) -> Daemon {
    let daemon = respaldo.daemon();
    eventually("the daemon is ready", || {
        crate::support::http::get(respaldo.port, "/readyz").is_ok_and(|reply| reply.status == 200)
    });
    eventually("it has looked at its disks", || page(&daemon).contains("(data_dir)"));
    daemon
}

/// Without what changes from one moment to the next.
fn lasting(mut samples: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let moves = ["process_", "respaldo_rpo_", "respaldo_destination_"];
    samples.retain(|name, _| !moves.iter().any(|start| name.starts_with(start)));
    samples
}

#[test]
fn metrics_tell_what_the_catalog_knows_also_after_a_restart() {
    let respaldo = scene();
    let daemon = started(&respaldo);
    let page_text = page(&daemon);
    let found = samples(&page_text);
    for (name, value) in [
        (&*format!("respaldo_build_info{{version=\"{VERSION}\"}}"), 1.0),
        ("respaldo_job_status{job=\"shop\",status=\"healthy\"}", 1.0),
        ("respaldo_job_status{job=\"shop\",status=\"never\"}", 0.0),
        ("respaldo_job_status{job=\"idle\",status=\"never\"}", 1.0),
        ("respaldo_backups{job=\"shop\",destination=\"second\"}", 2.0),
        ("respaldo_copies{job=\"shop\"}", 3.0),
        ("respaldo_copies_met{job=\"shop\"}", 0.0),
        ("respaldo_runs_total{job=\"shop\",kind=\"backup\",state=\"succeeded\"}", 2.0),
        ("respaldo_runs_total{job=\"shop\",kind=\"drill\",state=\"succeeded\"}", 1.0),
        ("respaldo_runs_total{job=\"gone\",kind=\"backup\",state=\"failed\"}", 1.0),
        ("respaldo_proven_rows{job=\"shop\"}", 3.0),
        ("respaldo_queue_length", 0.0),
        ("respaldo_running_runs", 0.0),
        ("respaldo_unsent_messages", 0.0),
        ("respaldo_destination_low{destination=\"local\"}", 0.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {page_text}");
    }
    // The rest by what else says it.
    let list = respaldo.run(&["list", "shop", "--json"]).expect(0).json();
    let bytes = |backup: &Value, key: &str| backup[key].as_f64().unwrap();
    let newest = |name: &str| found[&format!("respaldo_backup_{name}{{job=\"shop\"}}")];
    assert_eq!(newest("stored_bytes"), bytes(&list[0], "stored_bytes"));
    assert_eq!(newest("plain_bytes"), bytes(&list[0], "plain_bytes"));
    let sum: f64 = list.as_array().unwrap().iter().map(|one| bytes(one, "stored_bytes")).sum();
    let kept = "respaldo_backups_stored_bytes{job=\"shop\",destination=\"local\"}";
    assert_eq!(found[kept], sum);
    let (_, health) = daemon.health();
    let job = |name: &str| {
        let jobs = health["jobs"].as_array().unwrap().iter();
        jobs.clone().find(|job| job["job"] == name).unwrap().clone()
    };
    let seconds = |at: &Value| {
        let at: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
        at.as_millisecond() as f64 / 1000.0
    };
    for (metric, key) in [
        (
            "respaldo_last_success_timestamp_seconds{job=\"shop\",destination=\"local\"}",
            "last_success",
        ),
        ("respaldo_next_run_timestamp_seconds{job=\"shop\",kind=\"backup\"}", "next_run"),
        ("respaldo_last_proven_timestamp_seconds{job=\"shop\"}", "last_proven"),
    ] {
        assert_eq!(found[metric], seconds(&job("shop")[key]), "{metric}");
    }
    let most = job("shop")["max_age_seconds"].as_f64();
    assert_eq!(found.get("respaldo_max_age_seconds{job=\"shop\"}").copied(), most);
    assert!(found.contains_key("respaldo_last_failure_timestamp_seconds{job=\"gone\"}"));
    assert!(!found.contains_key("respaldo_last_failure_timestamp_seconds{job=\"shop\"}"));
    assert!(!found.keys().any(|name| name.contains("success") && name.contains("idle")));

    assert_eq!(daemon.terminate(), 0);
    let daemon = started(&respaldo);
    assert_eq!(lasting(samples(&page(&daemon))), lasting(found.clone()));
    assert_eq!(daemon.terminate(), 0);

    // A catalog that was lost knows again what lies on the destinations.
    for file in fs::read_dir(respaldo.path("data")).unwrap() {
        let file = file.unwrap().path();
        if file.file_name().unwrap().to_string_lossy().starts_with("catalog.sqlite3") {
            fs::remove_file(file).unwrap();
        }
    }
    respaldo.run(&["catalog", "rebuild"]).expect(0);
    let daemon = started(&respaldo);
    let rebuilt = samples(&page(&daemon));
    let same = |name: &&String| {
        let kept = ["backup", "copies", "last_success", "max_age", "next_run"];
        kept.iter().any(|word| name.contains(word)) && !name.contains("runs_total")
    };
    for name in found.keys().filter(same) {
        assert_eq!(rebuilt.get(name), found.get(name), "{name}");
    }
}

#[test]
fn neither_metrics_nor_health_read_more_than_the_newest_manifest_of_a_job() {
    let respaldo = scene();
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let spoil = "UPDATE backups SET manifest = 'spoiled' WHERE id < (SELECT max(id) FROM backups)";
    assert_eq!(catalog.execute(spoil, []).unwrap(), 1);
    let daemon = started(&respaldo);
    let found = samples(&page(&daemon));
    assert_eq!(found["respaldo_backups{job=\"shop\",destination=\"local\"}"], 2.0);
    assert_eq!(daemon.get("/health/shop").status, 200);
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let respaldo = scene();
    fill_slowly(&respaldo);
    let daemon = started(&respaldo);
    // promtool reads the older text format, where a counter's name has its ending everywhere.
    let page = page(&daemon);
    let page = page.replace("# HELP respaldo_runs ", "# HELP respaldo_runs_total ");
    let page = page.replace("# TYPE respaldo_runs ", "# TYPE respaldo_runs_total ");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: run scripts/test-servers.sh");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{output:?}");
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{said}"
    );
}

#[test]
fn every_rule_fires_in_time_and_none_while_all_is_well() {
    let folder = shipped("prometheus");
    let promtool = |words: &[&str]| tool(Command::new("promtool").args(words).current_dir(&folder));
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "respaldo.rules.yml"]);
    promtool(&["test", "rules", "respaldo.test.yml"]);
    // An alert that nobody tries is not known to fire.
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (rules, tests) = (read("respaldo.rules.yml"), read("respaldo.test.yml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|l| l.split_once("- alert: ")).map(|p| p.1).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tried");
    }
}

/// What looks like a metric of the daemon.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    let is_metric = |word: &&str| {
        !word.contains('.') && (word.starts_with("respaldo_") || word.starts_with("process_"))
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

fn expressions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rules_and_dashboard_and_their_page_name_what_is_served_and_prometheus_takes_it() {
    let respaldo = scene();
    fill_slowly(&respaldo);
    let daemon = started(&respaldo);
    let page = page(&daemon);
    let served: BTreeSet<String> =
        samples(&page).into_keys().map(|name| name.split('{').next().unwrap().to_owned()).collect();
    let rules = fs::read_to_string(shipped("prometheus/respaldo.rules.yml")).unwrap();
    let dashboard = fs::read_to_string(shipped("grafana/respaldo.json")).unwrap();
    for (what, text) in [("the rules", &rules), ("the dashboard", &dashboard)] {
        let named = names_in(text);
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(named.len() > 5 && unknown.is_empty(), "{what} name {unknown:?}");
    }
    let documented = names_in(&fs::read_to_string(shipped("../docs/monitoring.md")).unwrap());
    assert_eq!(documented, served, "docs/monitoring.md names each metric, and no other");

    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 37, "Grafana 10 and later");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id twice");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let source = json!({ "type": "prometheus", "uid": "${datasource}" });
        assert_eq!(panel["datasource"], source, "{}", panel["title"]);
        assert!(!expressions(panel).is_empty(), "{}", panel["title"]);
    }

    let prometheus = Prometheus::start(respaldo.port);
    let up = || prometheus.query("up{job=\"respaldo\"}");
    eventually("it was scraped", || up().iter().any(|sample| sample["value"][1] == "1"));
    // Labels are respaldo's own: `job` is not renamed.
    let status = prometheus.query("respaldo_job_status{job=\"idle\",status=\"never\"}");
    assert_eq!(status[0]["value"][1], "1", "{status:?}");
    for expression in panels.iter().flat_map(expressions) {
        let expression = expression.replace("$job", ".*").replace("$instance", ".*");
        eventually(&expression, || !prometheus.query(&expression).is_empty());
    }
    let pending = || prometheus.query("ALERTS{alertname=\"RespaldoNever\",job=\"idle\"}");
    eventually("the rule sees it", || !pending().is_empty());
    let pending =
        || prometheus.query("ALERTS{alertname=\"RespaldoDiskFills\",destination=\"second\"}");
    eventually("the rule sees the forecast", || !pending().is_empty());
}

/// A report without its ages.
fn ageless(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(ageless),
        Value::Object(fields) => {
            fields.retain(|key, _| key != "age_seconds");
            fields.values_mut().for_each(ageless);
        }
        _ => {}
    }
}

#[test]
fn health_is_the_same_after_a_restart_and_a_rebuild() {
    let respaldo = scene();
    let bodies = |daemon: Daemon| {
        let bodies =
            ["/health", "/health/shop", "/health?job=shop", "/health?job=gone"].map(|path| {
                let reply = daemon.get(path);
                let mut body = reply.json();
                ageless(&mut body);
                (reply.status, body)
            });
        assert_eq!(bodies[1], bodies[2]);
        assert_eq!(daemon.get("/health?job=none").status, 404);
        assert_eq!(daemon.terminate(), 0);
        bodies
    };
    let before = bodies(started(&respaldo));
    assert_eq!([before[0].0, before[1].0, before[3].0], [503, 200, 503]);
    assert_eq!(before[1].1["job"], "shop");
    assert_eq!(bodies(started(&respaldo)), before);
    respaldo.run(&["catalog", "rebuild"]).expect(0);
    assert_eq!(bodies(started(&respaldo)), before);
}

#[test]
fn health_of_one_job_by_the_command() {
    let respaldo = scene();
    let daemon = started(&respaldo);
    assert_eq!(respaldo.run(&["health", "--job", "shop"]).expect(0).stdout, "healthy\n");
    assert_eq!(respaldo.run(&["health", "--job", "idle"]).expect(1).stdout, "never\n");
    respaldo.run(&["health"]).expect(1);
    let json = respaldo.run(&["health", "--job", "shop", "--json"]).expect(0).json();
    assert_eq!(json["job"], "shop");
    let none = respaldo.run(&["health", "--job", "none"]).expect(2).stderr;
    assert!(none.contains("there is no job 'none'") && none.contains("hint: "), "{none}");
    drop(daemon);
}

#[test]
fn asking_for_health_opens_nothing_but_the_config_and_the_daemons_port() {
    let respaldo = scene();
    let daemon = started(&respaldo);
    // Another config by now: with a secret, which is not looked at.
    let config = fs::read_to_string(respaldo.path("respaldo.toml")).unwrap();
    let secret = respaldo.write("secret", "https://hooks.slack.com/services/T/B/x");
    let alert = format!("[alerts.chat]\nslack = {{ webhook_file = \"{}\" }}\n", secret.display());
    respaldo.write_config(&(config + &alert));
    let trace = respaldo.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=open,openat,connect,execve,unlink,rename", "-o"]);
    strace.arg(&trace).arg(env!("CARGO_BIN_EXE_respaldo"));
    strace.arg("--config").arg(respaldo.path("respaldo.toml")).arg("health");
    let output = strace.env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let trace = fs::read_to_string(trace).unwrap();
    let own = respaldo.folder().to_str().unwrap();
    let opened: Vec<&str> = trace.lines().filter(|line| line.contains(own)).collect();
    let opened: Vec<&str> = opened.into_iter().filter(|line| !line.contains("execve")).collect();
    // The file, and the folder that may lie beside it.
    let allowed = ["respaldo.toml\"", "config.d\""];
    let is_config = |line: &&str| allowed.iter().any(|name| line.contains(name));
    assert!(!opened.is_empty() && opened.iter().all(is_config), "{opened:#?}");
    // Neither the system's certificates nor its names.
    for path in ["/etc/ssl", "/etc/resolv.conf", "/etc/hosts", "ca-certificates"] {
        assert!(!trace.contains(path), "{path} in {trace}");
    }
    let connects: Vec<&str> = trace.lines().filter(|line| line.contains("connect(")).collect();
    let port = format!("htons({})", respaldo.port);
    assert!(connects.len() == 1 && connects[0].contains(&port), "{connects:#?}");
    assert_eq!(trace.matches("execve(").count(), 1, "{trace}");
    drop(daemon);
}
