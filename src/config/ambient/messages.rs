//! Who is told besides mail: Slack, webhooks, and the notification URLs of docker-volume-backup. As
//! with mail, what can't be sent is a warning and never an error.

use super::notification::{self, Message};
use super::{Ambient, Found};
use crate::fault::Result;

const URLS: &str = "NOTIFICATION_URLS";
/// Which alerts these are, before their number.
const ROUTE: &str = "notification";

impl Ambient<'_> {
    /// Sets the `alerts` that the environment names.
    pub(super) fn messages(&mut self) -> Result<()> {
        if let Some(found) = self.first(&["SLACK_WEBHOOK_URL"])? {
            self.set_secret("alerts.slack.slack.webhook", &found);
        }
        self.webhooks()?;
        let Some(found) = self.first(&[URLS])? else { return Ok(()) };
        for (index, url) in notification::split(&found.value).iter().enumerate() {
            let route = format!("{ROUTE}{}", index + 1);
            match notification::parse(url) {
                Ok(message) => {
                    self.message(&route, message);
                    self.level(&route)?;
                }
                Err(why) => self.warnings.push(format!(
                    "{URLS}: nothing will be sent to address {}: {why}; docs/alerts.md says what a \
                     config can do",
                    index + 1
                )),
            }
        }
        Ok(())
    }

    /// What postgres-backup-local posts to: at each end of a backup, or at one of its moments.
    fn webhooks(&mut self) -> Result<()> {
        if let Some(found) = self.first(&["WEBHOOK_URL"])? {
            self.set_secret("alerts.webhook.webhook.url", &found);
            self.layer.set("alerts.webhook.success", "true", &found.variable);
        }
        if let Some(found) = self.first(&["WEBHOOK_ERROR_URL"])? {
            self.set_secret("alerts.webhook_error.webhook.url", &found);
        }
        let start = self.first(&["WEBHOOK_PRE_BACKUP_URL"])?;
        let Some(success) = self.first(&["WEBHOOK_POST_BACKUP_URL"])? else {
            if let Some(start) = start {
                let what = "a start alone is told to nobody; set WEBHOOK_POST_BACKUP_URL too";
                self.warnings.push(format!("{} has no effect: {what}", start.variable));
            }
            return Ok(());
        };
        self.set_secret("alerts.heartbeat.heartbeat.success", &success);
        if let Some(start) = start {
            self.set_secret("alerts.heartbeat.heartbeat.start", &start);
        }
        Ok(())
    }

    /// A part of the variable, which as a whole would be of no use as a secret of the config.
    fn part(&mut self, key: String, value: String) {
        self.set_secret(&key, &Found { value, variable: String::new() });
    }

    fn message(&mut self, route: &str, message: Message) {
        let key = |last: &str| format!("alerts.{route}.{last}");
        match message {
            Message::Slack { webhook } => self.part(key("slack.webhook"), webhook),
            Message::Webhook { url, body } => {
                self.part(key("webhook.url"), url);
                if let Some(body) = body {
                    self.part(key("webhook.body"), body);
                }
            }
            Message::Mail { smtp, password, from, to } => {
                self.layer.set(key("email.smtp"), smtp.show(), URLS);
                self.layer.set(key("email.from"), from, URLS);
                self.layer.set(key("email.to"), to, URLS);
                if let Some(password) = password {
                    self.part(key("email.password"), password);
                }
            }
        }
    }

    /// `info` tells of what went well too, which is not the default there either.
    pub(super) fn level(&mut self, route: &str) -> Result<()> {
        let Some(level) = self.first(&["NOTIFICATION_LEVEL"])? else { return Ok(()) };
        let success = level.value.eq_ignore_ascii_case("info").to_string();
        self.layer.set(format!("alerts.{route}.success"), success, &level.variable);
        Ok(())
    }
}
