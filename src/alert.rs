//! The alert door: turns an event into a message and hands it to one channel, once. Knows how a
//! person should hear of it, and who wants to; must not know the outbox, when to try again, or what
//! makes an event.

mod email;
mod heartbeat;
mod http;
mod notice;
mod slack;
mod template;
mod webhook;

use globset::GlobSet;
use jiff::SignedDuration;

use crate::fault::Result;
use crate::model::{Event, EventKind, Severity};
use crate::schedule::Schedule;
use notice::Notice;

pub use email::{Email, Tls};
pub use heartbeat::{Heartbeat, Pings};
pub use slack::Slack;
pub use template::{PLACEHOLDERS, Template};
pub use webhook::Webhook;

/// A named way to reach somebody: `[alerts.<name>]`.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    pub channel: Channel,
    /// The jobs that it is about; `None`: all of them.
    pub jobs: Option<GlobSet>,
    /// What matters less is not told.
    pub severity: Severity,
    /// Whether each backup that went well is told too.
    pub success: bool,
    /// How long the same trouble again is held back.
    pub repeat: SignedDuration,
    /// The most messages within an hour.
    pub per_hour: usize,
    /// When the state of all jobs is told; empty: never.
    pub digest: Schedule,
}

#[derive(Debug, Clone)]
pub enum Channel {
    Email(Email),
    Slack(Slack),
    Webhook(Webhook),
    Heartbeat(Heartbeat),
}

impl Channel {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Slack(_) => "slack",
            Self::Webhook(_) => "webhook",
            Self::Heartbeat(_) => "heartbeat",
        }
    }
}

impl Route {
    /// One that says nothing of what it wants.
    pub fn new(name: impl Into<String>, channel: Channel) -> Self {
        Self {
            name: name.into(),
            channel,
            jobs: None,
            severity: Severity::Info,
            success: false,
            repeat: SignedDuration::from_hours(6),
            per_hour: 20,
            digest: Schedule::none(),
        }
    }

    /// It is told of each backup that begins and ends, and of nothing else.
    pub fn is_heartbeat(&self) -> bool {
        matches!(self.channel, Channel::Heartbeat(_))
    }

    /// Whether somebody wants to hear of it.
    pub fn wants(&self, event: &Event) -> bool {
        let matters = match (&self.channel, event.kind) {
            (Channel::Heartbeat(heartbeat), kind) => heartbeat.has(kind),
            (_, EventKind::Started) => false,
            (_, EventKind::Succeeded) => self.success,
            _ => event.severity() >= self.severity,
        };
        matters && event.job.as_ref().is_none_or(|job| self.is_about(job.as_str()))
    }

    pub fn is_about(&self, job: &str) -> bool {
        self.jobs.as_ref().is_none_or(|jobs| jobs.is_match(job))
    }

    /// Sends one message about `events` from `host`. A transient fault may be tried again.
    pub async fn send(&self, events: &[Event], host: &str) -> Result<()> {
        let notice = match events {
            [event] => Notice::about(event, host),
            several => Notice::of(several, host),
        };
        match &self.channel {
            Channel::Email(email) => email.send(&notice).await,
            Channel::Slack(slack) => slack.send(&notice).await,
            Channel::Webhook(webhook) => webhook.send(&notice).await,
            Channel::Heartbeat(heartbeat) => heartbeat.send(&notice).await,
        }
    }
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

    #[test]
    fn a_route_wants_what_matters_to_it() {
        let slack = Channel::Slack(Slack { webhook: crate::secret::Secret::new("x") });
        let mut route = Route::new("chat", slack);
        let event = |kind, job: &str| {
            let at = "2025-11-24T02:00:00Z".parse().unwrap();
            Event::new(kind, Some(job.parse().unwrap()), at, "x")
        };
        let recovered = |from| Event { ends: vec![from], ..event(EventKind::Recovered, "db") };
        assert!(route.wants(&event(EventKind::Partial, "db")));
        assert!(!route.wants(&event(EventKind::Succeeded, "db")));
        assert!(!route.wants(&event(EventKind::Started, "db")));
        route.severity = Severity::Error;
        assert!(!route.wants(&event(EventKind::Partial, "db")));
        assert!(route.wants(&event(EventKind::Failed, "db")));
        // Whoever heard of the trouble hears of its end.
        assert!(!route.wants(&recovered(EventKind::Partial)));
        assert!(route.wants(&recovered(EventKind::Failed)));
        route.success = true;
        assert!(route.wants(&event(EventKind::Succeeded, "db")));
        let mut jobs = globset::GlobSetBuilder::new();
        jobs.add(globset::Glob::new("media*").unwrap());
        route.jobs = Some(jobs.build().unwrap());
        assert!(!route.wants(&event(EventKind::Failed, "db")));
        assert!(route.wants(&event(EventKind::Failed, "media-2")));
    }
}
