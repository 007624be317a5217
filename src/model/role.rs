//! What somebody may do over HTTP. Knows three words and their order; must not know routes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything but the audit.
    Viewer,
    /// Starts and stops runs, and pins.
    Operator,
    /// Takes backups out, makes tokens, reads the audit.
    Admin,
}

impl Role {
    pub const WORDS: [&str; 3] = ["viewer", "operator", "admin"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| {
                Fault::usage(format!("there is no role '{text}'"))
                    .hint(format!("it is one of {}", Self::WORDS.join(", ")))
            })
    }
}
