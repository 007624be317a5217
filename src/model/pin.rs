//! `marks/pin.json`: whether a backup is pinned, since when and why. Knows the shape; must not know
//! where it lies.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pin, or the word that it was taken off: kept, so that of two destinations which disagree the
/// newer one is right, and so that nothing has to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pin {
    pub pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Default for Pin {
    /// What can't be read pins: it costs room, and the other mistake costs the backup.
    fn default() -> Self {
        Self { pinned: true, at: None, note: None }
    }
}

impl Pin {
    pub fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_takes_a_pin_off() {
        for text in ["", "{}", "x", "{\"pinned\": 1}", "{\"at\": \"no time\", \"pinned\": false}"] {
            assert!(Pin::parse(text.as_bytes()).pinned, "{text}");
        }
        assert!(!Pin::parse(b"{\"pinned\": false}").pinned);
    }
}
