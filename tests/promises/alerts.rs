//! People hear of trouble once, also after an outage or a kill, and of its end; what comes again is
//! counted and not repeated; and no secret is in any of it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use respaldo::app::{App, person};
use respaldo::catalog::Request;
use respaldo::clock::Clock;
use respaldo::config::{self, Variables};
use respaldo::job::{
    Control, execute, look_at_health, look_at_papers, post_digests, send_messages,
};
use respaldo::model::{RunKind, RunState, Trigger};
use serde_json::Value;

use crate::support::hook::{Hook, Taken};
use crate::support::program::Respaldo;
use crate::support::scene::{HEAD, LOCAL, chat, files_job, status};
use crate::support::slack::Slack;
use crate::support::smtp::{Protection, Smtp};
use crate::support::{eventually, free_port, temp_folder, tool};

/// Everything but the daemon's loops, at a time that the test sets.
struct Bench {
    folder: tempfile::TempDir,
    time: Arc<AtomicI64>,
    app: App,
}

impl Bench {
    /// `@DIR@` stands for its folder; job `media` is the folder `@DIR@/media`, which is there.
    async fn new(config: &str) -> Self {
        let folder = temp_folder("alerts");
        let time = Arc::new(AtomicI64::new(at("2025-11-24T02:00:00Z").as_second()));
        std::fs::create_dir(folder.path().join("media")).unwrap();
        let app = open(folder.path(), config, &time).await;
        Self { folder, time, app }
    }

    /// As a daemon that starts anew, with another config.
    async fn restart(&mut self, config: &str) {
        self.app.site.catalog.close().await;
        self.app = open(self.folder.path(), config, &self.time).await;
    }

    fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        self.app.site.clock.now()
    }

    fn folder(&self, job: &str) -> PathBuf {
        self.folder.path().join(job)
    }

    /// A backup of the job, which fails unless its folder is there.
    async fn back_up(&self, job: &str) -> RunState {
        let job = self.app.job(job).unwrap();
        let site = &self.app.site;
        let request = Request::own(&job.name, RunKind::Backup, Trigger::Manual);
        let run = site.catalog.add_run(&request, self.now()).await.unwrap();
        let control = Control::default();
        execute(site, job, (run, RunKind::Backup, None), |_| true, &control).await.unwrap().state
    }

    async fn fail(&self, job: &str) {
        assert_eq!(self.back_up(job).await, RunState::Failed);
    }

    async fn succeed(&self, job: &str) {
        assert_eq!(self.back_up(job).await, RunState::Succeeded);
    }

    async fn send(&self) -> usize {
        send_messages(&self.app.site).await.unwrap()
    }

    /// What the daemon's watch does at each of its looks.
    async fn look(&self) {
        look_at_health(&self.app.site, &self.app.jobs).await.unwrap();
        post_digests(&self.app.site, &self.app.jobs).await.unwrap();
        look_at_papers(&self.app.site).await.unwrap();
        self.send().await;
    }
}

async fn open(folder: &Path, config: &str, time: &Arc<AtomicI64>) -> App {
    let file = folder.join("respaldo.toml");
    std::fs::write(&file, config.replace("@DIR@", folder.to_str().unwrap())).unwrap();
    let time = Arc::clone(time);
    let clock =
        Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
    let loaded = config::load_from(Some(&file), &Variables::new(), clock.now()).unwrap();
    App::open(&loaded, clock, person()).await.unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const PLAIN: &str =
    "data_dir = \"@DIR@/data\"\n[destinations.local]\nurl = \"file://@DIR@/backups\"\n";

/// `[jobs.NAME]` of the folder `@DIR@/NAME`.
fn job(name: &str, more: &str) -> String {
    format!("[jobs.{name}]\nsource = {{ files = \"@DIR@/{name}\" }}\nretries = 0\n{more}\n")
}

/// `[alerts.hook]`, a webhook; `more` are further lines of the section.
fn hook(hook: &Hook, more: &str) -> String {
    format!("[alerts.hook]\nwebhook = {{ url = \"{}\" }}\n{more}\n", hook.url())
}

fn mail(smtp: &Smtp, port: u16) -> String {
    format!(
        "[alerts.ops]\nemail = {{ from = \"respaldo@example.com\", to = [\"ops@example.com\"], \
         smtp = \"smtp://{}@{}:{port}\", password = \"{}\", ca_file = \"{}\" }}\n",
        smtp.user,
        smtp.host,
        smtp.password,
        smtp.ca_file().display()
    )
}

/// A field of each message that arrived.
fn said(hook: &Hook, field: &str) -> Vec<String> {
    let arrived = hook.taken().into_iter().filter(|taken| taken.status == 200);
    arrived.map(|taken| taken.json()[field].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_hour_without_a_mail_server_ends_in_one_mail_for_each_trouble() {
    let smtp = Smtp::start(Protection::StartTls, true);
    let config =
        |port| format!("{PLAIN}{}{}{}", job("media", ""), job("gone", ""), mail(&smtp, port));
    let mut bench = Bench::new(&config(free_port())).await;
    for minute in 0..60 {
        if minute % 5 == 0 {
            bench.fail("gone").await;
        }
        if minute == 7 {
            std::fs::rename(bench.folder("media"), bench.folder("away")).unwrap();
            bench.fail("media").await;
        }
        assert_eq!(bench.send().await, 0);
        bench.pass(60);
    }
    std::fs::rename(bench.folder("away"), bench.folder("media")).unwrap();
    bench.succeed("media").await;
    bench.restart(&config(smtp.port)).await;
    for _ in 0..30 {
        bench.pass(60);
        bench.send().await;
    }
    smtp.wait_for(3);
    let subjects: Vec<String> = smtp.messages().into_iter().map(|mail| mail.subject).collect();
    assert_eq!(subjects.len(), 3, "{subjects:#?}");
    let host = &bench.app.site.host;
    let all = [
        format!("[respaldo] media failed on {host}"),
        format!("[respaldo] media recovered on {host}"),
        format!("[respaldo] gone failed on {host}, 12th time since 02:00 UTC"),
    ];
    for subject in &all {
        assert!(subjects.contains(subject), "no {subject:?} in {subjects:#?}");
    }
    let place = |subject: &String| subjects.iter().position(|found| found == subject);
    assert!(place(&all[0]) < place(&all[1]), "the end is told last");
}

#[tokio::test]
async fn what_fails_every_hour_is_told_every_six_and_counted_until_it_is_over() {
    let listener = Hook::start();
    let bench = Bench::new(&format!("{PLAIN}{}{}", job("gone", ""), hook(&listener, ""))).await;
    for _ in 0..20 {
        bench.send().await;
        bench.fail("gone").await;
        bench.send().await;
        bench.pass(3600);
    }
    let host = &bench.app.site.host;
    let again = |count| format!("gone failed on {host}, {count}th time since 02:00 UTC");
    let first = format!("gone failed on {host}");
    assert_eq!(said(&listener, "title"), [first.clone(), again(6), again(12), again(18)]);
    assert_eq!(said(&listener, "at")[1], "2025-11-24T07:00:00Z", "the newest of those held back");
    std::fs::create_dir(bench.folder("gone")).unwrap();
    bench.succeed("gone").await;
    bench.send().await;
    std::fs::remove_dir(bench.folder("gone")).unwrap();
    bench.fail("gone").await;
    bench.send().await;
    // What was held back of the trouble that is over is told no more.
    bench.pass(48 * 3600);
    bench.send().await;
    let titles = said(&listener, "title");
    assert_eq!(titles[4..], [format!("gone recovered on {host}"), first]);
    assert_eq!(bench.app.site.catalog.unsent().await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_held_back_for_a_month_is_told_after_a_month() {
    let listener = Hook::start();
    let config = format!("{PLAIN}{}{}", job("gone", ""), hook(&listener, "repeat = \"30d\""));
    let bench = Bench::new(&config).await;
    bench.fail("gone").await;
    bench.send().await;
    bench.pass(3600);
    bench.fail("gone").await;
    bench.pass(30 * 24 * 3600 - 3601);
    bench.send().await;
    assert_eq!(said(&listener, "kind").len(), 1);
    bench.pass(1);
    bench.send().await;
    assert!(said(&listener, "title")[1].contains(", 2nd time since "), "{:?}", listener.taken());
}

#[tokio::test]
async fn what_is_too_much_for_an_hour_goes_out_as_one_message() {
    let listener = Hook::start();
    let jobs: String = (0..10).map(|n| job(&format!("gone{n}"), "")).collect();
    let bench = Bench::new(&format!("{PLAIN}{jobs}{}", hook(&listener, "per_hour = 3"))).await;
    for n in 0..10 {
        bench.fail(&format!("gone{n}")).await;
    }
    for _ in 0..59 {
        bench.send().await;
        bench.pass(60);
    }
    assert_eq!(said(&listener, "job"), ["gone0", "gone1", "gone2"]);
    bench.pass(60);
    bench.send().await;
    let titles = said(&listener, "title");
    assert_eq!(titles[3..], [format!("7 messages from {}", bench.app.site.host)]);
    let text = &said(&listener, "text")[3];
    assert!((3..10).all(|n| text.contains(&format!("gone{n} failed on"))), "{text}");
    assert_eq!(said(&listener, "severity")[3], "error");
    assert_eq!(bench.app.site.catalog.unsent().await.unwrap(), 0);
}

#[tokio::test]
async fn after_seven_days_of_outage_it_gives_up() {
    let listener = Hook::start();
    listener.answer(503);
    let bench = Bench::new(&format!("{PLAIN}{}{}", job("gone", ""), hook(&listener, ""))).await;
    bench.fail("gone").await;
    for _ in 0..7 * 24 {
        bench.send().await;
        bench.pass(3600);
    }
    assert_eq!(listener.taken().len(), 7 * 24, "it is tried all the while");
    assert_eq!(bench.app.site.catalog.unsent().await.unwrap(), 1);
    listener.answer(200);
    bench.pass(1);
    assert_eq!(bench.send().await, 0);
    assert_eq!(bench.app.site.catalog.unsent().await.unwrap(), 0);
}

#[tokio::test]
async fn two_processes_that_send_at_once_send_each_message_once() {
    let listener = Hook::start();
    let jobs: String = (0..8).map(|n| job(&format!("gone{n}"), "")).collect();
    let config = format!("{PLAIN}{jobs}{}", hook(&listener, ""));
    let bench = Bench::new(&config).await;
    for n in 0..8 {
        bench.fail(&format!("gone{n}")).await;
    }
    let other = open(bench.folder.path(), &config, &bench.time).await;
    let site = &bench.app.site;
    let sent = tokio::join!(send_messages(site), send_messages(&other.site), send_messages(site));
    let sent = sent.0.unwrap() + sent.1.unwrap() + sent.2.unwrap();
    assert_eq!((sent, said(&listener, "job").len()), (8, 8));
}

#[tokio::test]
async fn each_route_hears_what_it_asked_for() {
    let listeners = [Hook::start(), Hook::start(), Hook::start()];
    let [errors, media, all] = &listeners;
    let route = |name: &str, hook: &Hook, more: &str| {
        format!("[alerts.{name}]\nwebhook = {{ url = \"{}\" }}\n{more}\n", hook.url())
    };
    let config = format!(
        "{PLAIN}[destinations.second]\nurl = \"file://@DIR@/second\"\n{}{}{}{}{}",
        job("media", ""),
        job("gone", ""),
        route("errors", errors, "severity = \"error\""),
        route("media", media, "jobs = [\"m*\"]\nsuccess = true"),
        route("all", all, "")
    );
    let bench = Bench::new(&config).await;
    bench.succeed("media").await;
    bench.fail("gone").await;
    bench.pass(60);
    std::fs::rename(bench.folder("second"), bench.folder("away")).unwrap();
    std::fs::write(bench.folder("second"), "no folder").unwrap();
    assert_eq!(bench.back_up("media").await, RunState::Partial);
    std::fs::remove_file(bench.folder("second")).unwrap();
    std::fs::rename(bench.folder("away"), bench.folder("second")).unwrap();
    bench.pass(60);
    bench.succeed("media").await;
    bench.send().await;
    let kinds = |hook: &Hook| said(hook, "kind");
    assert_eq!(kinds(errors), ["failed"], "the end of what it was not told is not told either");
    assert_eq!(kinds(media), ["succeeded", "partial", "recovered"]);
    assert_eq!(kinds(all), ["failed", "partial", "recovered"]);
}

#[tokio::test]
async fn a_webhook_says_what_its_template_says() {
    let listener = Hook::start();
    let bench = Bench::new(&format!(
        "{PLAIN}{}{}[alerts.form]\nwebhook = {{ url = \"{}/form\", method = \"PUT\", \
         headers = {{ Authorization = \"Bearer form-secret\", Content-Type = \"application/x-www-form-urlencoded\" }}, \
         body = \"text={{{{title}}}}&hint={{{{hint}}}}\" }}\n",
        job("gone", ""),
        hook(&listener, ""),
        listener.url()
    ))
    .await;
    bench.fail("gone").await;
    bench.send().await;
    let all = listener.wait_for(2);
    let by = |method: &str| all.iter().find(|taken| taken.method == method).unwrap();
    let (put, post) = (by("PUT"), by("POST"));
    assert_eq!(put.headers["authorization"], "Bearer form-secret");
    assert!(
        put.body.starts_with("text=gone+failed+on+") && !put.body.contains(' '),
        "{}",
        put.body
    );
    assert_eq!(post.headers["content-type"], "application/json");
    let json = post.json();
    for (key, value) in [("job", "gone"), ("kind", "failed"), ("severity", "error"), ("run", "1")] {
        assert_eq!(json[key], value, "{json:#}");
    }
    assert_eq!(json["at"], "2025-11-24T02:00:00Z");
    assert!(json["text"].as_str().unwrap().contains("@DIR@".replace("@DIR@", "gone").as_str()));
    assert!(!json["summary"].as_str().unwrap().is_empty() && !json["hint"].is_null());
}

#[tokio::test]
async fn a_heartbeat_is_pinged_at_start_and_end_and_a_late_start_is_not() {
    let listener = Hook::start();
    let each = format!(
        "[alerts.kuma]\njobs = [\"media\"]\nheartbeat = {{ success = \"{0}/up\", fail = \"{0}/down\" }}\n",
        listener.url()
    );
    let base = format!(
        "[alerts.beat]\njobs = [\"gone\"]\nheartbeat = {{ url = \"{}\" }}\n",
        listener.url()
    );
    let config = format!("{PLAIN}{}{}{base}{each}", job("media", ""), job("gone", ""));
    let bench = Bench::new(&config).await;
    bench.succeed("media").await;
    bench.send().await;
    assert_eq!(listener.pings(), ["/up"]);
    assert_eq!(listener.taken()[0].method, "GET");
    bench.fail("gone").await;
    bench.send().await;
    assert_eq!(listener.pings()[1..], ["/start", "/fail"]);
    let fail = listener.taken().remove(2);
    assert_eq!(fail.method, "POST");
    assert!(fail.body.contains("gone failed on") && fail.body.len() < 2000, "{}", fail.body);
    // A service that is down for an hour: only how it stands now is worth a ping.
    listener.answer(503);
    for _ in 0..4 {
        bench.pass(900);
        bench.fail("gone").await;
        bench.send().await;
    }
    std::fs::create_dir(bench.folder("gone")).unwrap();
    bench.pass(900);
    bench.succeed("gone").await;
    bench.pass(61);
    bench.send().await;
    let before = listener.taken().len();
    listener.answer(200);
    for _ in 0..60 {
        bench.pass(60);
        bench.send().await;
    }
    assert_eq!(listener.pings()[before..], [""], "{:#?}", listener.pings());
    // Success is pinged each time, though nobody asked for messages of it.
    bench.succeed("gone").await;
    bench.send().await;
    assert_eq!(listener.pings()[before..], ["", "/start", ""]);
}

#[tokio::test]
async fn a_job_that_gets_no_backup_is_late_and_one_that_never_had_any_is_told_after_its_time() {
    let listener = Hook::start();
    let config = format!(
        "{PLAIN}{}{}{}",
        job("media", "max_age = \"25h\""),
        job("gone", "max_age = \"25h\""),
        hook(&listener, "")
    );
    let mut bench = Bench::new(&config).await;
    bench.succeed("media").await;
    bench.look().await;
    bench.pass(25 * 3600);
    bench.look().await;
    assert_eq!(listener.taken().len(), 0, "{:#?}", listener.taken());
    bench.pass(60);
    for _ in 0..3 {
        bench.look().await;
        bench.restart(&config).await;
        bench.pass(600);
    }
    let both = |hook: &Hook| -> Vec<(String, String)> {
        said(hook, "job").into_iter().zip(said(hook, "kind")).collect()
    };
    let pair = |job: &str, kind: &str| (job.to_owned(), kind.to_owned());
    assert_eq!(both(&listener), [pair("gone", "never"), pair("media", "late")]);
    // One recovery is told once, whether people knew of the failure, of the lateness, or of both.
    bench.fail("gone").await;
    std::fs::create_dir(bench.folder("gone")).unwrap();
    bench.succeed("gone").await;
    bench.look().await;
    bench.succeed("media").await;
    bench.look().await;
    bench.look().await;
    assert_eq!(
        both(&listener)[2..],
        [pair("gone", "failed"), pair("gone", "recovered"), pair("media", "recovered")]
    );
}

#[tokio::test]
async fn a_lateness_that_ends_without_a_run_is_told_too() {
    let listener = Hook::start();
    let late = format!("{PLAIN}{}{}", job("media", "max_age = \"1h\""), hook(&listener, ""));
    let mut bench = Bench::new(&late).await;
    bench.succeed("media").await;
    bench.pass(3601);
    bench.look().await;
    bench.restart(&late.replace("1h", "3h")).await;
    bench.look().await;
    bench.look().await;
    assert_eq!(said(&listener, "kind"), ["late", "recovered"]);
    // Not while the job is in trouble of another kind: the run that ends both tells of both.
    bench.restart(&late).await;
    bench.look().await;
    std::fs::rename(bench.folder("media"), bench.folder("away")).unwrap();
    bench.fail("media").await;
    bench.restart(&late.replace("1h", "3h")).await;
    bench.look().await;
    assert_eq!(said(&listener, "kind")[2..], ["late", "failed"]);
    std::fs::rename(bench.folder("away"), bench.folder("media")).unwrap();
    bench.succeed("media").await;
    bench.look().await;
    bench.look().await;
    assert_eq!(said(&listener, "kind")[2..], ["late", "failed", "recovered"]);
}

#[test]
fn a_job_late_by_a_minute_turns_health_and_its_recovery_turns_it_back() {
    let listener = Hook::start();
    let config =
        format!("{HEAD}{LOCAL}{}{}", files_job("media", "max_age = \"2h\""), hook(&listener, ""));
    let respaldo = Respaldo::new(&config);
    respaldo.write("media/photo", "a photo");
    respaldo.run(&["backup", "media"]).expect(0);
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    assert_eq!(daemon.health().0, 200);
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    catalog.execute("UPDATE backups SET started = started - ?", [121 * 60_000]).unwrap();
    let (status, body) = daemon.health();
    assert_eq!((status, body["status"].as_str()), (503, Some("late")));
    let late = listener.wait_for(1).remove(0).json();
    assert_eq!((late["kind"].as_str(), late["job"].as_str()), (Some("late"), Some("media")));
    assert!(late["text"].as_str().unwrap().contains("just over 2 h old; 2 h allowed"), "{late:#}");
    daemon.kill9();
    let daemon = respaldo.daemon();
    daemon.wait_for_log("on http://");
    respaldo.run(&["backup", "media"]).expect(0);
    assert_eq!(daemon.health().0, 200);
    let recovered = listener.wait_for(2).remove(1).json();
    assert_eq!(recovered["kind"], "recovered");
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(listener.taken().len(), 2, "{:#?}", listener.taken());
}

/// What a dead process was sending is left to it for so long.
fn two_minutes_pass(respaldo: &Respaldo) {
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    catalog.execute("UPDATE outbox SET next_at = 0 WHERE sent_at IS NULL", []).unwrap();
}

#[test]
fn a_process_killed_between_failure_and_sending_has_told_of_it_all_the_same() {
    let mut killed = 0;
    for nth in 1.. {
        let listener = Hook::start();
        let config = format!(
            "{HEAD}{LOCAL}{}{}{}",
            files_job("gone", ""),
            files_job("media", ""),
            hook(&listener, "")
        );
        let respaldo = Respaldo::new(&config);
        respaldo.write("media/photo", "a photo");
        // The catalog is there, so that what is counted is the run alone.
        respaldo.run(&["backup", "media"]).expect(0);
        let output = respaldo.run_killed_at("fdatasync,fsync", nth, &["backup", "gone"]);
        two_minutes_pass(&respaldo);
        let began = status(&respaldo)["runs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|run| run["job"] == "gone" && run["started_at"].is_string());
        respaldo.run(&["backup", "media"]).expect(0);
        let told = said(&listener, "job").iter().filter(|job| *job == "gone").count();
        if output.code == 1 {
            assert_eq!(told, 1);
            break;
        }
        assert_eq!(output.code, -9, "{}", output.stderr);
        killed += usize::from(began);
        // A kill right after the message was written may be told of as well.
        let bodies = || listener.taken().into_iter().map(|taken| taken.body).collect::<Vec<_>>();
        assert!(!began || (1..=2).contains(&told), "killed at {nth}: {:#?}", bodies());
    }
    assert!(killed > 1, "the run was killed {killed} times");
}

#[test]
fn a_daemon_killed_while_it_sends_is_made_up_for_by_the_next() {
    let listener = Hook::start();
    listener.answer(503);
    let config = format!(
        "{HEAD}{LOCAL}{}{}",
        files_job("gone", "schedule = \"@yearly\""),
        hook(&listener, "")
    );
    let respaldo = Respaldo::new(&config);
    let daemon = respaldo.daemon();
    listener.wait_for(1);
    daemon.kill9();
    two_minutes_pass(&respaldo);
    listener.answer(200);
    respaldo.write_config(&config.replace("@yearly\"", "@yearly\"\ncatch_up = false"));
    let daemon = respaldo.daemon();
    let told = listener.wait_until("the failure", |taken| taken.body.contains("gone failed on"));
    assert_eq!(told.json()["kind"], "failed");
    eventually("it is known to have arrived", || status(&respaldo)["unsent_messages"] == 0);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(said(&listener, "kind"), ["failed"], "once");
}

fn certificate(folder: &Path, days: u32) -> PathBuf {
    let path = folder.join("ca.pem");
    let days = days.to_string();
    tool(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=own", "-days"])
            .args([&days, "-keyout", "/dev/null", "-out"])
            .arg(&path),
    );
    path
}

#[tokio::test]
async fn a_certificate_and_a_key_that_expire_are_told_in_time() {
    let listener = Hook::start();
    let folder = temp_folder("papers");
    let gpg = |arguments: &[&str]| {
        let home = folder.path().join("gpg");
        std::fs::create_dir_all(&home).unwrap();
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"]);
        tool(gpg.args(["--passphrase", "", "--homedir"]).arg(home).args(arguments))
    };
    gpg(&["--quick-gen-key", "ops@example.com", "future-default", "default", "20d"]);
    let key = gpg(&["--armor", "--export", "ops@example.com"]);
    std::fs::write(folder.path().join("ops.asc"), key).unwrap();
    let ca = certificate(folder.path(), 40);
    let config = format!(
        "{PLAIN}{}encrypt = {{ openpgp = [\"{}\"] }}\n{}[alerts.ops]\njobs = [\"media\"]\nseverity = \"error\"\n\
         email = {{ from = \"a@example.com\", to = [\"b@example.com\"], smtp = \"smtp://localhost:{}\", ca_file = \"{}\" }}\n",
        job("media", ""),
        folder.path().join("ops.asc").display(),
        hook(&listener, ""),
        free_port(),
        ca.display()
    );
    let mut bench = Bench::new(&config).await;
    bench.time.store(Timestamp::now().as_second(), Ordering::SeqCst);
    for hour in 0..24 * 42 {
        if hour % 6 == 0 {
            bench.look().await;
        }
        if hour == 24 * 10 {
            // A daemon that starts anew has not forgotten.
            bench.restart(&config).await;
        }
        bench.pass(3600);
    }
    let told = said(&listener, "summary");
    let of = |what: &str| told.iter().filter(|summary| summary.contains(what)).count();
    assert_eq!((of("ca.pem expires on"), of("ca.pem expired on")), (3, 1), "{told:#?}");
    assert_eq!((of("ops.asc expires on"), of("ops.asc expired on")), (3, 1), "{told:#?}");
    assert!(told[0].contains("key ") && told[0].contains(", in "), "{told:#?}");
    let mut agent = Command::new("gpgconf");
    tool(agent.arg("--homedir").arg(folder.path().join("gpg")).args(["--kill", "all"]));
}

#[tokio::test]
async fn the_digest_comes_on_its_day_and_once() {
    let listener = Hook::start();
    let smtp = Smtp::start(Protection::StartTls, true);
    let digest = "digest = \"0 8 * * mon\"\n";
    let config = format!(
        "timezone = \"America/Lima\"\n{PLAIN}{}{}{}{}{digest}",
        job("media", "max_age = \"30h\""),
        job("gone", "max_age = \"30h\""),
        hook(&listener, &format!("severity = \"error\"\n{digest}jobs = [\"media\", \"gone\"]")),
        mail(&smtp, smtp.port)
    );
    let mut bench = Bench::new(&config).await;
    bench.look().await;
    bench.fail("gone").await;
    bench.succeed("media").await;
    // 02:00 to 12:59 UTC: in Lima it is not yet 8.
    bench.pass(11 * 3600 - 60);
    bench.look().await;
    assert_eq!(said(&listener, "kind"), ["failed"]);
    for _ in 0..3 {
        bench.pass(60);
        bench.look().await;
        bench.restart(&config).await;
    }
    assert_eq!(said(&listener, "kind"), ["failed", "digest"]);
    let digest = listener.taken().remove(1).json();
    let host = &bench.app.site.host;
    assert_eq!(digest["title"], format!("backups of {host}: gone needs a look"));
    let text = digest["text"].as_str().unwrap();
    for part in [
        "healthy; last backup 11 h ago, ",
        "never; no backup yet",
        "in 7 days 1 backup made, 0 failed",
        "in 7 days 0 backups made, 1 failed",
        "never proven",
        "3-2-1 is not met",
        "needs a look: 'local' has no backup",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let mails = smtp.wait_for(2);
    let mail = mails.iter().find(|mail| mail.subject.contains("backups of")).unwrap();
    assert!(mail.text.contains("needs a look: 'local' has no backup"), "{}", mail.text);
    assert!(mail.html.contains("in 7 days 1 backup made, 0 failed"), "{}", mail.html);
    // A daemon that was down on the day sends it when it starts, once for all that it missed.
    bench.pass(15 * 24 * 3600);
    bench.restart(&config).await;
    bench.look().await;
    bench.look().await;
    let digests = said(&listener, "kind").into_iter().filter(|kind| kind == "digest");
    assert_eq!(digests.count(), 2);
}

#[test]
fn every_way_to_tell_can_be_tried_and_no_secret_is_said() {
    let (listener, slack) = (Hook::start(), Slack::start());
    let smtp = Smtp::start(Protection::StartTls, true);
    let beat = format!("[alerts.beat]\nheartbeat = {{ url = \"{}/beat\" }}\n", listener.url());
    let token = "header-value-that-must-not-be-shown";
    let key = format!(
        "[alerts.key]\nwebhook = {{ url = \"{}/key\", headers = {{ X-Key = \"{token}\" }} }}\n",
        listener.url()
    );
    let respaldo = Respaldo::new(&format!(
        "{HEAD}{LOCAL}{}{}{}{}{beat}{key}",
        files_job("media", ""),
        chat(&slack),
        hook(&listener, ""),
        mail(&smtp, smtp.port)
    ))
    .env("RUST_LOG", "respaldo=trace,info");
    let mut seen = String::new();
    let mut run = |arguments: &[&str], code: i32| {
        let output = respaldo.run(arguments).expect(code);
        seen += &output.all();
        output
    };
    let tried = run(&["alert", "test", "--json"], 0).json();
    let routes: Vec<&str> =
        tried.as_array().unwrap().iter().map(|tried| tried["route"].as_str().unwrap()).collect();
    assert_eq!(routes, ["beat", "chat", "hook", "key", "ops"]);
    assert!(tried.as_array().unwrap().iter().all(|tried| tried["ok"] == true), "{tried:#}");
    assert_eq!((slack.messages().len(), smtp.wait_for(1).len()), (1, 1));
    let paths: Vec<String> = listener.pings();
    assert_eq!(paths.len(), 3);
    assert_eq!(
        listener.wait_until("the key", |taken| taken.path.ends_with("/key")).headers["x-key"],
        token
    );

    listener.answer(403);
    slack.answer(404);
    let tried = run(&["alert", "test", "--json"], 1).json();
    let of = |route: &str| -> Value {
        tried.as_array().unwrap().iter().find(|tried| tried["route"] == route).unwrap().clone()
    };
    assert_eq!((&of("ops")["ok"], &of("hook")["ok"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(of("hook")["error"], "the webhook answered 403");
    assert_eq!(of("hook")["hint"], "check the token in its URL or headers");
    let one = run(&["alert", "test", "hook"], 1);
    assert!(
        one.stderr.contains("hook (webhook): the webhook answered 403\nhint: "),
        "{}",
        one.stderr
    );
    run(&["alert", "test", "ops"], 0);
    let none = run(&["alert", "test", "nobody"], 2);
    assert!(none.stderr.contains("beat, chat, hook, key, ops"), "{}", none.stderr);
    run(&["config", "show"], 0);
    run(&["status"], 0);
    run(&["backup", "media"], 1);
    run(&["status", "--json"], 0);
    for secret in [listener.token, slack.token, smtp.password, token] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
    let catalog = rusqlite::Connection::open(respaldo.path("data/catalog.sqlite3")).unwrap();
    let errors: String = catalog
        .query_row("SELECT coalesce(group_concat(error || event), '') FROM outbox", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(errors.contains("answered"), "{errors}");
    for secret in [listener.token, slack.token, smtp.password, token] {
        assert!(!errors.contains(secret), "{secret} in {errors}");
    }
}

#[test]
fn a_webhook_that_refuses_is_told_apart_by_whether_it_may_pass() {
    let listener = Hook::start();
    let config = format!("{HEAD}{LOCAL}{}{}", files_job("gone", ""), hook(&listener, ""));
    let respaldo = Respaldo::new(&config);
    for (status, hint) in [
        (302, "redirects"),
        (400, "body"),
        (401, "token"),
        (404, "nothing is there"),
        (429, "later"),
        (500, "later"),
    ] {
        listener.answer(status);
        let tried = respaldo.run(&["alert", "test", "--json"]).expect(1).json();
        let said = tried[0]["hint"].as_str().unwrap();
        assert!(said.contains(hint), "{status}: {said}");
    }
    let down = config.replace(&listener.url(), &format!("http://127.0.0.1:{}/hidden", free_port()));
    respaldo.write_config(&down);
    let output = respaldo.run(&["alert", "test"]).expect(1);
    assert!(output.stderr.contains("may reach 127.0.0.1"), "{}", output.stderr);
    assert!(!output.all().contains("hidden"), "{}", output.all());
    let last: Option<Taken> = listener.taken().pop();
    assert_eq!(last.unwrap().status, 500);
}

#[test]
fn every_example_of_the_documents_is_a_config() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let example = example.replace("/run/secrets/", "@DIR@/secrets/");
        let jobs = ["db", "media", "tenant_a"].map(|name| files_job(name, "")).concat();
        let respaldo = Respaldo::new(&format!("{HEAD}{LOCAL}{jobs}{example}"))
            .env("HOOK_TOKEN", "hunter2")
            .env("PAGERDUTY_KEY", "hunter2");
        for rest in example.split("secrets/").skip(1) {
            let name = rest.split('"').next().unwrap();
            respaldo.write(&format!("secrets/{name}"), "https://hooks.example.com/hunter2");
        }
        let shown = respaldo.run(&["config", "show"]).expect(0);
        assert!(!shown.all().contains("hunter2"), "{}", shown.all());
    }
}
