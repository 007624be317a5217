//! What went wrong, in one shape for the whole house: a sentence, the next step, and whether trying
//! again can help. Knows nothing of where it happened; must not format for a terminal or pick words
//! that hold a secret.

use std::error::Error;
use std::fmt;

/// What a caller may branch on: retry, exit code, or the word in a run's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The person asked for something that cannot be: wrong config, unknown job. Exit code 2.
    Usage,
    /// Trying again without a change will not help: wrong password, missing program.
    Permanent,
    /// Something else has written there what must not be written over.
    Taken,
    /// It is there, but in a tier that must be thawed before it can be read.
    Archived,
    /// A drill can't be held here: a program, an extension or a key is missing. The hint names it.
    Unprovable,
    /// Trying again may help: a network, a busy server, a full disk being emptied.
    Transient,
    /// Somebody or something asked the run to stop.
    Cancelled,
}

/// An error with a sentence, a kind, and optionally a next step and a cause.
///
/// `Display` is the sentence alone; the causes are reached by `source()`, and [`Fault::chain`]
/// joins them for the one place that prints.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    message: String,
    hint: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, cause: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Usage, message)
    }

    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Permanent, message)
    }

    pub fn unprovable(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Unprovable, message)
    }

    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Transient, message)
    }

    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Cancelled, message)
    }

    /// Names the next step for the person who reads this.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn cause(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    pub fn is_transient(&self) -> bool {
        self.kind == FaultKind::Transient
    }

    /// Whether it will go wrong again until somebody does something.
    pub fn lasts(&self) -> bool {
        matches!(self.kind, FaultKind::Permanent | FaultKind::Taken)
    }

    /// The nearest next step: this fault's own, or that of a fault below it.
    pub fn next_step(&self) -> Option<&str> {
        if let Some(hint) = &self.hint {
            return Some(hint);
        }
        let mut below = self.source();
        while let Some(error) = below {
            if let Some(hint) = error.downcast_ref::<Fault>().and_then(|f| f.hint.as_deref()) {
                return Some(hint);
            }
            below = error.source();
        }
        None
    }

    /// The sentence and its causes, `: ` between them, each said once.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut below = self.source();
        while let Some(error) = below {
            let part = error.to_string();
            if !part.is_empty() && !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            below = error.source();
        }
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Gives any error a sentence in front. A [`Fault`] keeps its kind; anything else becomes permanent.
pub trait Context<T> {
    fn context(self, doing: impl Into<String>) -> Result<T>;
    /// As `context`, for what trying again may mend.
    fn transient(self, doing: impl Into<String>) -> Result<T>;
}

impl<T, E: Error + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|error| {
            let kind = (&error as &(dyn Error + 'static))
                .downcast_ref::<Fault>()
                .map_or(FaultKind::Permanent, Fault::kind);
            Fault::new(kind, doing).cause(error)
        })
    }

    fn transient(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|error| Fault::transient(doing).cause(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_says_each_part_once_and_finds_the_hint_below() {
        let inner = Fault::transient("no answer in 30 s").hint("is the server up?");
        let outer = Err::<(), _>(inner).context("connect to db").unwrap_err();
        assert_eq!(outer.to_string(), "connect to db");
        assert_eq!(outer.chain(), "connect to db: no answer in 30 s");
        assert_eq!(outer.next_step(), Some("is the server up?"));
        assert!(outer.is_transient());
    }
}
