//! A way to tell people as it is written. Knows spelling and types; must not check meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lines, names, secret, secrets};
use crate::model::Severity;

/// One of email, slack, webhook and heartbeat, and what is told through it.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileAlert {
    pub email: Option<FileEmail>,
    pub slack: Option<FileSlack>,
    pub webhook: Option<FileWebhook>,
    pub heartbeat: Option<FileHeartbeat>,
    /// Names and patterns such as "tenant_*" of jobs. Default: all.
    #[schemars(schema_with = "names")]
    pub jobs: Option<Vec<String>>,
    /// What matters less is not told. Default: info, which is everything.
    #[schemars(with = "Option<String>", extend("enum" = ["info", "warning", "error"]))]
    pub severity: Option<Severity>,
    /// Tell of each backup that went well too. Default: false.
    pub success: Option<bool>,
    /// How long the same trouble again is held back; then it is told with its count. Default: 6h.
    #[schemars(extend("examples" = ["6h"]))]
    pub repeat: Option<String>,
    /// The most messages within an hour; what is more goes out later as one. Default: 20.
    #[schemars(range(min = 1, max = 1000))]
    pub per_hour: Option<usize>,
    /// Cron lines or names such as @weekly: when the state of all jobs is told. Default: never.
    #[schemars(schema_with = "lines")]
    pub digest: Option<Vec<String>>,
}

/// Mail through an SMTP server.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FileEmail {
    /// The sender.
    #[schemars(extend("examples" = ["respaldo@example.com"]))]
    pub from: String,
    /// Who gets it.
    #[schemars(schema_with = "names")]
    pub to: Vec<String>,
    /// smtps://user@host:465, smtp://user@host:587 (STARTTLS), smtp://host:25?tls=none
    #[schemars(extend("examples" = ["smtps://user@smtp.example.com"], "x-address" = true))]
    pub smtp: String,
    /// The mail server's password.
    #[serde(default)]
    #[schemars(schema_with = "secret")]
    pub password: Option<String>,
    /// The file that holds the mail server's password.
    pub password_file: Option<PathBuf>,
    /// A further certificate authority in PEM, for a mail server of one's own.
    pub ca_file: Option<PathBuf>,
}

/// Messages through a Slack webhook.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileSlack {
    /// The incoming webhook's URL, which is a secret.
    #[schemars(schema_with = "secret")]
    pub webhook: Option<String>,
    /// The file that holds the webhook's URL.
    pub webhook_file: Option<PathBuf>,
}

/// A request to whatever takes one.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileWebhook {
    /// Where to; taken for a secret.
    #[schemars(schema_with = "secret")]
    pub url: Option<String>,
    /// The file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// How it is asked. Default: POST.
    #[schemars(extend("enum" = ["POST", "PUT", "PATCH", "GET"]))]
    pub method: Option<String>,
    /// What goes along with it. Each value is taken for a secret; NAME_file names the file of one. Content-Type decides how
    /// values in the body are escaped. Default: Content-Type: application/json.
    #[schemars(schema_with = "secrets")]
    pub headers: Option<BTreeMap<String, String>>,
    /// What is sent, with {{title}}, {{summary}}, {{text}}, {{job}}, {{kind}}, {{severity}}, {{host}},
    /// {{at}}, {{run}} and {{hint}} filled in; taken for a secret, for keys may be in it. Default: a
    /// JSON object of all of them.
    #[schemars(schema_with = "secret")]
    pub body: Option<String>,
    /// The file that holds the body.
    pub body_file: Option<PathBuf>,
}

/// A service that raises the alarm when no ping comes: url, or an address for each ping.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct FileHeartbeat {
    /// As of healthchecks.io: url/start, url and url/fail are pinged; taken for a secret.
    #[schemars(schema_with = "secret")]
    pub url: Option<String>,
    /// The file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// Asked for when a backup begins; taken for a secret.
    #[schemars(schema_with = "secret")]
    pub start: Option<String>,
    /// The file that holds it.
    pub start_file: Option<PathBuf>,
    /// Asked for when a backup is on every destination; taken for a secret.
    #[schemars(schema_with = "secret")]
    pub success: Option<String>,
    /// The file that holds it.
    pub success_file: Option<PathBuf>,
    /// Asked for when one failed or did not reach every destination; taken for a secret.
    #[schemars(schema_with = "secret")]
    pub fail: Option<String>,
    /// The file that holds it.
    pub fail_file: Option<PathBuf>,
}
