//! The alert door: turns an event into a message and hands it to one channel, once. Knows how a
//! person should hear of it; must not know the outbox, when to try again, or what makes an event.

mod email;
mod slack;

use crate::fault::Result;
use crate::model::{Event, EventKind};

pub use email::{Email, Tls};
pub use slack::Slack;

/// A named way to reach somebody: `[alerts.<name>]`.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    pub channel: Channel,
}

#[derive(Debug, Clone)]
pub enum Channel {
    Email(Email),
    Slack(Slack),
}

impl Route {
    /// Sends one message about `event` from `host`. A transient fault may be tried again.
    pub async fn send(&self, event: &Event, host: &str) -> Result<()> {
        let notice = Notice::about(event, host);
        match &self.channel {
            Channel::Email(email) => email.send(&notice).await,
            Channel::Slack(slack) => slack.send(&notice).await,
        }
    }
}

/// What is said, before a channel gives it a shape.
struct Notice {
    /// One line, such as `db failed on web1`.
    title: String,
    tone: Tone,
    summary: String,
    /// Label and value, in the order they are read.
    facts: Vec<(String, String)>,
    hint: Option<String>,
}

#[derive(Clone, Copy)]
enum Tone {
    Bad,
    Warning,
    Good,
}

impl Tone {
    fn colour(self) -> &'static str {
        match self {
            Self::Bad => "#c0392b",
            Self::Warning => "#b9770e",
            Self::Good => "#1e8449",
        }
    }
}

impl Notice {
    fn about(event: &Event, host: &str) -> Self {
        let (tone, what) = match event.kind {
            EventKind::Failed => (Tone::Bad, "failed"),
            EventKind::Partial => (Tone::Warning, "is only partly done"),
            EventKind::Interrupted => (Tone::Bad, "was interrupted"),
            EventKind::Recovered => (Tone::Good, "recovered"),
            EventKind::Anomaly => (Tone::Warning, "is much smaller than before"),
            EventKind::SyncFailed => (Tone::Warning, "is not the same on every destination"),
            EventKind::PruneHeld => (Tone::Warning, "waits for a word before it prunes"),
            EventKind::DrillFailed => (Tone::Bad, "has a backup that is not proven to restore"),
            EventKind::VerifyFailed => (Tone::Bad, "has a backup that is damaged"),
            EventKind::DiskLow => (Tone::Warning, "has a place that is nearly full"),
            EventKind::HookFailed => (Tone::Warning, "has a hook that failed"),
        };
        let fact = |label: &str, value: String| (label.to_owned(), value);
        let mut facts = vec![
            fact("Job", event.job.to_string()),
            fact("Host", host.to_owned()),
            fact("Time", event.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
        ];
        facts.extend(event.run.map(|run| fact("Run", run.to_string())));
        facts.extend(event.details.iter().cloned());
        Self {
            title: one_line(&format!("{} {what} on {host}", event.job)),
            tone,
            summary: event.summary.clone(),
            facts,
            hint: event.hint.clone(),
        }
    }

    /// The message as plain text, facts in aligned columns.
    fn text(&self) -> String {
        let mut text = format!("{}\n\n{}\n\n", self.title, self.summary);
        let width = self.facts.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in &self.facts {
            text.push_str(&format!("{label:<width$}  {value}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nNext step: {hint}\n"));
        }
        text
    }
}

/// A line break in a name must not become one in a header.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Makes any text safe between tags, for HTML as for Slack's markup.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    pub(in crate::alert) fn notice(kind: EventKind) -> Notice {
        let event = Event {
            kind,
            job: "db".parse().unwrap(),
            run: Some(RunId(42)),
            at: "2025-11-24T02:00:00Z".parse().unwrap(),
            summary: "pg_dump ended with code 1: table <b>&</b> is gone".into(),
            details: vec![("Destination".into(), "offsite".into())],
            hint: Some("respaldo show db".into()),
        };
        Notice::about(&event, "web1")
    }

    #[test]
    fn the_text_reads_well() {
        assert_eq!(
            notice(EventKind::Failed).text(),
            "db failed on web1\n\n\
             pg_dump ended with code 1: table <b>&</b> is gone\n\n\
             Job          db\n\
             Host         web1\n\
             Time         2025-11-24 02:00:00 UTC\n\
             Run          42\n\
             Destination  offsite\n\n\
             Next step: respaldo show db\n"
        );
        assert_eq!(notice(EventKind::Recovered).title, "db recovered on web1");
    }

    #[test]
    fn a_hostile_host_name_stays_on_one_line() {
        assert_eq!(one_line("db on x\r\nBcc: a@b"), "db on x Bcc: a@b");
    }
}
