//! An alert reaches a person through a real mail server and a real listener; what goes wrong is
//! told apart into what may pass and what may not; and no secret is in any of it.
#![allow(clippy::unwrap_used)]

use respaldo::alert::{Channel, Email, Route, Slack, Tls};
use respaldo::fault::{Fault, FaultKind};
use respaldo::model::{Event, EventKind, RunId};
use respaldo::secret::Secret;

use crate::support::free_port;
use crate::support::slack::Slack as SlackServer;
use crate::support::smtp::{Protection, Smtp};

fn event() -> Event {
    Event {
        run: Some(RunId(7)),
        details: vec![("Destination".into(), "offsite".into())],
        hint: Some("respaldo show db".into()),
        ..Event::new(
            EventKind::Failed,
            Some("db".parse().unwrap()),
            "2025-11-24T02:00:00Z".parse().unwrap(),
            "pg_dump: error: relation \"<ñandú> & co\" is gone",
        )
    }
}

fn email(server: &Smtp, tls: Tls) -> Email {
    Email {
        from: "respaldo <respaldo@example.com>".into(),
        to: vec!["Ops <ops@example.com>".into(), "dev@example.com".into()],
        host: server.host.into(),
        port: server.port,
        tls,
        user: Some(server.user.into()),
        password: Some(Secret::new(server.password)),
        ca_file: Some(server.ca_file()),
    }
}

async fn send(email: Email) -> Result<(), Fault> {
    Route::new("ops", Channel::Email(email)).send(&[event()], "web1").await
}

async fn post(webhook: &str) -> Result<(), Fault> {
    let channel = Channel::Slack(Slack { webhook: Secret::new(webhook) });
    Route::new("chat", channel).send(&[event()], "web1").await
}

/// Everything that a person, a log or a test could print of it.
fn words(fault: &Fault) -> String {
    format!("{fault} | {fault:?} | {} | {}", fault.chain(), fault.next_step().unwrap_or("no hint"))
}

#[track_caller]
fn refused(result: Result<(), Fault>, kind: FaultKind, hint: &str, secret: &str) {
    let fault = result.expect_err("it was sent");
    let words = words(&fault);
    assert_eq!(fault.kind(), kind, "{words}");
    assert!(fault.next_step().is_some_and(|step| step.contains(hint)), "{words}");
    assert!(!words.contains(secret), "{words}");
}

#[tokio::test]
async fn a_mail_arrives_over_starttls_with_both_parts() {
    let server = Smtp::start(Protection::StartTls, true);
    send(email(&server, Tls::StartTls)).await.unwrap();
    let mail = server.wait_for(1).remove(0);
    assert_eq!(mail.from, "respaldo@example.com");
    assert_eq!(mail.to, ["ops@example.com", "dev@example.com"]);
    assert_eq!(mail.subject, "[respaldo] db failed on web1");
    assert!(mail.text.contains("relation \"<ñandú> & co\" is gone"), "{}", mail.text);
    assert!(mail.text.contains("Next step: respaldo show db"), "{}", mail.text);
    assert!(mail.html.contains("&lt;ñandú&gt; &amp; co"), "{}", mail.html);
    assert!(mail.raw.contains("Auto-Submitted: auto-generated"), "{}", mail.raw);
}

#[tokio::test]
async fn a_mail_arrives_over_implicit_tls_and_without_any() {
    let server = Smtp::start(Protection::Implicit, true);
    send(email(&server, Tls::Implicit)).await.unwrap();
    assert_eq!(server.wait_for(1).len(), 1);
    let server = Smtp::start(Protection::Plain, false);
    let plain = Email { user: None, password: None, ca_file: None, ..email(&server, Tls::None) };
    send(plain).await.unwrap();
    assert_eq!(server.wait_for(1).len(), 1);
}

#[tokio::test]
async fn one_stale_address_keeps_nobody_else_from_hearing() {
    let server = Smtp::start(Protection::StartTls, true);
    let to = vec!["refused@example.com".into(), "dev@example.com".into()];
    send(Email { to, ..email(&server, Tls::StartTls) }).await.unwrap();
    assert_eq!(server.wait_for(1)[0].to, ["dev@example.com"]);
    let to = vec!["refused@example.com".into(), "refused2@example.com".into()];
    let result = send(Email { to, ..email(&server, Tls::StartTls) }).await;
    refused(result, FaultKind::Permanent, "`to`", server.password);
}

#[tokio::test]
async fn a_wrong_password_is_permanent_and_not_shown() {
    let server = Smtp::start(Protection::StartTls, true);
    let wrong = "not-the-right-password";
    let email = Email { password: Some(Secret::new(wrong)), ..email(&server, Tls::StartTls) };
    refused(send(email.clone()).await, FaultKind::Permanent, "password", wrong);
    let result = send(Email { user: None, password: None, ..email }).await;
    refused(result, FaultKind::Permanent, "password", server.password);
    assert!(server.messages().is_empty());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_permanent() {
    let server = Smtp::start(Protection::StartTls, true);
    let stranger = Email { ca_file: None, ..email(&server, Tls::StartTls) };
    refused(send(stranger).await, FaultKind::Permanent, "ca_file", server.password);
    let missing = Email { ca_file: Some("/no/such.pem".into()), ..email(&server, Tls::StartTls) };
    refused(send(missing).await, FaultKind::Permanent, "path", server.password);
}

#[tokio::test]
async fn the_wrong_tls_mode_is_permanent() {
    let server = Smtp::start(Protection::Plain, false);
    for tls in [Tls::StartTls, Tls::Implicit] {
        let result = send(email(&server, tls)).await;
        refused(result, FaultKind::Permanent, "TLS mode", server.password);
    }
}

#[tokio::test]
async fn a_mail_server_that_is_down_is_transient() {
    let server = Smtp::start(Protection::StartTls, true);
    let down = Email { port: free_port(), ..email(&server, Tls::StartTls) };
    refused(send(down).await, FaultKind::Transient, "reachable", server.password);
    let nowhere = Email { host: "nowhere.invalid".into(), ..email(&server, Tls::StartTls) };
    refused(send(nowhere).await, FaultKind::Transient, "reachable", server.password);
}

#[tokio::test]
async fn slack_gets_the_message() {
    let slack = SlackServer::start();
    post(&slack.webhook()).await.unwrap();
    let message = slack.wait_for(1).remove(0);
    assert_eq!(message["text"], "*db failed on web1*");
    assert_eq!(message["attachments"][0]["color"], "#c0392b");
    assert!(message.to_string().contains("&lt;ñandú&gt; &amp; co"), "{message}");
}

#[tokio::test]
async fn what_slack_refuses_is_told_apart_without_the_webhook() {
    let slack = SlackServer::start();
    let cases = [
        (404, FaultKind::Permanent, "revoked"),
        (403, FaultKind::Permanent, "revoked"),
        (400, FaultKind::Permanent, "incoming webhook"),
        (429, FaultKind::Transient, "later"),
        (500, FaultKind::Transient, "later"),
        (302, FaultKind::Permanent, "Slack's own"),
    ];
    for (status, kind, hint) in cases {
        slack.answer(status);
        refused(post(&slack.webhook()).await, kind, hint, slack.token);
    }
    assert_eq!(slack.attempts(), cases.len());
    assert!(slack.messages().is_empty());
}

#[tokio::test]
async fn a_webhook_that_leads_nowhere_is_told_without_its_address() {
    let down = format!("http://127.0.0.1:{}/services/T0/B0/hidden", free_port());
    refused(post(&down).await, FaultKind::Transient, "reach", "hidden");
    let unknown = "https://nowhere.invalid/services/T0/B0/hidden";
    refused(post(unknown).await, FaultKind::Transient, "reach", "hidden");
    refused(post("hidden").await, FaultKind::Permanent, "whole address", "hidden");
}
