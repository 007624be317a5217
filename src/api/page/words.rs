//! Times, sizes and states as a person reads them on the page. Knows the zone and the moment of the
//! request; must not know where a fact comes from.

use std::fmt;

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::health::Status;
use crate::model::RunState;
use crate::report::span;

/// The moment and the zone in which a page is written.
#[derive(Clone)]
pub(super) struct Now {
    pub(super) at: Timestamp,
    pub(super) zone: TimeZone,
}

impl Now {
    pub(super) fn when(&self, at: Timestamp) -> When {
        let seconds = self.at.duration_since(at).as_secs();
        let words = match seconds {
            ..0 => format!("in {}", span(-seconds)),
            0..10 => "just now".to_owned(),
            _ => format!("{} ago", span(seconds)),
        };
        When { at, exact: self.exact(at), words }
    }

    pub(super) fn exact(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%a %-d %b %Y, %H:%M:%S %Z").to_string()
    }

    pub(super) fn maybe(&self, at: Option<Timestamp>) -> Maybe {
        Maybe(at.map(|at| self.when(at)))
    }

    /// The day and the hour alone, for what is planned.
    pub(super) fn hour(&self, at: Timestamp) -> String {
        let zoned = at.to_zoned(self.zone.clone());
        let today = self.at.to_zoned(self.zone.clone()).date();
        let day = match zoned.date() {
            day if day == today => "today".to_owned(),
            day if today.tomorrow().is_ok_and(|tomorrow| day == tomorrow) => "tomorrow".to_owned(),
            day => day.strftime("%a %-d %b").to_string(),
        };
        format!("{day} at {}", zoned.strftime("%H:%M"))
    }
}

/// A moment: how long ago, and on a closer look exactly when.
pub(super) struct When {
    at: Timestamp,
    exact: String,
    words: String,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, exact, words } = self;
        write!(f, "<time datetime=\"{at}\" title=\"{exact}\">{words}</time>")
    }
}

impl HtmlSafe for When {}

/// A moment that may not have come: `never`.
pub(super) struct Maybe(Option<When>);

impl fmt::Display for Maybe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(when) => when.fmt(f),
            None => f.write_str("never"),
        }
    }
}

impl HtmlSafe for Maybe {}

/// How a state looks, besides its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
    Quiet,
}

impl Tone {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }

    pub(super) fn of_status(status: Status) -> Self {
        match status {
            Status::Healthy => Self::Good,
            Status::Unproven => Self::Warning,
            Status::Late | Status::Failing | Status::Never => Self::Bad,
        }
    }

    pub(super) fn of_run(state: RunState) -> Self {
        match state {
            RunState::Succeeded => Self::Good,
            RunState::Partial | RunState::Cancelled => Self::Warning,
            RunState::Failed | RunState::Interrupted => Self::Bad,
            RunState::Queued | RunState::Running => Self::Quiet,
        }
    }
}

/// A word with its tone.
pub(super) struct Badge {
    pub(super) tone: &'static str,
    pub(super) word: &'static str,
}

impl Badge {
    pub(super) fn new(tone: Tone, word: &'static str) -> Self {
        Self { tone: tone.as_str(), word }
    }
}

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<span class=\"badge {}\">{}</span>", self.tone, self.word)
    }
}

impl HtmlSafe for Badge {}

/// How long something took.
pub(super) fn took(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = Now {
            at: "2025-11-24T12:00:00Z".parse().unwrap(),
            zone: TimeZone::get("America/Lima").unwrap(),
        };
        let ago = |text: &str| now.when(text.parse().unwrap()).words;
        assert_eq!(ago("2025-11-24T09:00:00Z"), "3 h ago");
        assert_eq!(ago("2025-11-24T12:30:00Z"), "in 30 min");
        assert_eq!(ago("2025-11-24T11:59:55Z"), "just now");
        let hour = |text: &str| now.hour(text.parse().unwrap());
        assert_eq!(hour("2025-11-24T18:30:00Z"), "today at 13:30");
        assert_eq!(hour("2025-11-25T06:00:00Z"), "tomorrow at 01:00");
        assert_eq!(hour("2025-11-30T08:00:00Z"), "Sun 30 Nov at 03:00");
        assert!(now.when(now.at).to_string().contains("title=\"Mon 24 Nov 2025, 07:00:00 -05\""));
    }
}
