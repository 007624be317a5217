//! What is said, before a channel gives it a shape. Knows words and colours; must not know markup.

use jiff::Timestamp;

use crate::model::{Event, EventKind, Severity};

/// A message to a person.
pub(super) struct Notice {
    /// One line, such as `db failed on web1`.
    pub title: String,
    pub kind: EventKind,
    pub severity: Severity,
    pub tone: Tone,
    pub summary: String,
    /// Label and value, in the order they are read.
    pub facts: Vec<(String, String)>,
    pub hint: Option<String>,
    /// Empty where it is about no one job; so is `run`.
    pub job: String,
    pub run: String,
    pub host: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy)]
pub(super) enum Tone {
    Bad,
    Warning,
    Good,
    Neutral,
}

impl Tone {
    pub fn colour(self) -> &'static str {
        match self {
            Self::Bad => "#c0392b",
            Self::Warning => "#b9770e",
            Self::Good => "#1e8449",
            Self::Neutral => "#4a6fa5",
        }
    }

    /// The same, light enough for a dark page.
    pub fn on_dark(self) -> &'static str {
        match self {
            Self::Bad => "#ff8a7a",
            Self::Warning => "#f0b95b",
            Self::Good => "#6fd18f",
            Self::Neutral => "#9bb8e6",
        }
    }
}

impl Notice {
    pub fn about(event: &Event, host: &str) -> Self {
        let fact = |label: &str, value: String| (label.to_owned(), value);
        let mut facts = Vec::new();
        facts.extend(event.job.as_ref().map(|job| fact("Job", job.to_string())));
        facts.push(fact("Host", host.to_owned()));
        facts.push(fact("Time", event.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
        facts.extend(event.run.map(|run| fact("Run", run.to_string())));
        facts.extend(event.details.iter().cloned());
        Self {
            title: one_line(&title(event, host)),
            kind: event.kind,
            severity: event.kind.severity(),
            tone: tone(event.kind),
            summary: event.summary.clone(),
            facts,
            hint: event.hint.clone(),
            job: event.job.as_ref().map(ToString::to_string).unwrap_or_default(),
            run: event.run.map(|run| run.to_string()).unwrap_or_default(),
            host: host.to_owned(),
            at: event.at,
        }
    }

    /// Several events as one message, in the words of the worst of them.
    pub fn of(events: &[Event], host: &str) -> Self {
        let worst = events.iter().max_by_key(|event| event.kind.severity());
        let kind = worst.map_or(EventKind::Test, |event| event.kind);
        let at = events.iter().map(|event| event.at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let fact = |event: &Event| {
            let time = event.at.strftime("%H:%M UTC");
            (format!("{time}"), format!("{}: {}", title(event, host), event.summary))
        };
        Self {
            title: one_line(&format!("{} messages from {host}", events.len())),
            kind,
            severity: kind.severity(),
            tone: tone(kind),
            summary: "so much happened that the rest is told in one message".into(),
            facts: events.iter().map(fact).collect(),
            hint: Some("`respaldo status` shows how every job is now".into()),
            job: String::new(),
            run: String::new(),
            host: host.to_owned(),
            at,
        }
    }

    /// The message as plain text, facts in aligned columns.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n{}\n\n", self.title, self.summary);
        let width = self.facts.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in &self.facts {
            let value = value.replace('\n', &format!("\n{:width$}  ", ""));
            text.push_str(&format!("{label:<width$}  {value}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nNext step: {hint}\n"));
        }
        text
    }
}

fn tone(kind: EventKind) -> Tone {
    match (kind, kind.severity()) {
        (EventKind::Recovered | EventKind::Succeeded, _) => Tone::Good,
        (_, Severity::Error) => Tone::Bad,
        (_, Severity::Warning) => Tone::Warning,
        (_, Severity::Info) => Tone::Neutral,
    }
}

fn title(event: &Event, host: &str) -> String {
    let what = match event.kind {
        EventKind::Failed => "failed",
        EventKind::Partial => "is only partly done",
        EventKind::Interrupted => "was interrupted",
        EventKind::Recovered => "recovered",
        EventKind::Anomaly => "is much smaller than before",
        EventKind::SyncFailed => "is not the same on every destination",
        EventKind::PruneHeld => "waits for a word before it prunes",
        EventKind::DrillFailed => "has a backup that is not proven to restore",
        EventKind::VerifyFailed => "has a backup that is damaged",
        EventKind::DiskLow => "has a place that is nearly full",
        EventKind::WalLate => "stores its log too late",
        EventKind::WalGap => "has a gap in its log",
        EventKind::WalHalted => "stopped storing its log",
        EventKind::WalRetained => "makes its server keep too much",
        EventKind::HookFailed => "has a hook that failed",
        EventKind::Late => "is late",
        EventKind::Never => "has never been backed up",
        EventKind::Expiring => "has a key or certificate that expires",
        EventKind::Started => "is being backed up",
        EventKind::Succeeded => "is backed up",
        EventKind::Digest => return format!("backups of {host}: {}", event.summary),
        EventKind::Test => return format!("test from {host}"),
    };
    let who = event.job.as_ref().map_or("respaldo", |job| job.as_str());
    let again = event.again.map(|again| {
        let since = match again.since.duration_since(event.at).abs().as_hours() < 20 {
            true => again.since.strftime("%H:%M UTC"),
            false => again.since.strftime("%Y-%m-%d %H:%M UTC"),
        };
        format!(", {} time since {since}", ordinal(again.times))
    });
    format!("{who} {what} on {host}{}", again.unwrap_or_default())
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A line break in a name must not become one in a header.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(in crate::alert) mod tests {
    use super::*;
    use crate::model::{Again, RunId};

    fn event(kind: EventKind) -> Event {
        Event {
            run: Some(RunId(42)),
            details: vec![("Destination".into(), "offsite".into())],
            hint: Some("respaldo show db".into()),
            ..Event::new(
                kind,
                Some("db".parse().unwrap()),
                "2025-11-24T02:00:00Z".parse().unwrap(),
                "pg_dump ended with code 1: table <b>&</b> is gone",
            )
        }
    }

    pub(in crate::alert) fn notice(kind: EventKind) -> Notice {
        Notice::about(&event(kind), "web1")
    }

    #[test]
    fn what_comes_again_is_counted_in_the_title() {
        let since = "2025-11-24T02:00:00Z".parse().unwrap();
        let again = |times, at: &str| {
            let again = Some(Again { times, since });
            title(&Event { again, at: at.parse().unwrap(), ..event(EventKind::Failed) }, "web1")
        };
        let title = again(4, "2025-11-24T08:00:00Z");
        assert_eq!(title, "db failed on web1, 4th time since 02:00 UTC");
        let title = again(22, "2025-11-26T08:00:00Z");
        assert_eq!(title, "db failed on web1, 22nd time since 2025-11-24 02:00 UTC");
    }

    #[test]
    fn a_summary_names_each_and_is_as_bad_as_the_worst() {
        let events = [event(EventKind::Recovered), event(EventKind::Failed)];
        let notice = Notice::of(&events, "web1");
        assert_eq!(notice.title, "2 messages from web1");
        assert_eq!(notice.severity, Severity::Error);
        assert!(notice.text().contains("02:00 UTC  db recovered on web1: pg_dump"));
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
