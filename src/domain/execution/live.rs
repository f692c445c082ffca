//! What a call says while it runs, told to whoever follows it.

use std::fmt;
use std::sync::Arc;

use super::LogEntry;
use crate::domain::redacted::Redacted;

/// A piece of a running call's output, in the order in which the host read it. User data.
#[derive(Clone, PartialEq)]
pub enum Said {
    /// A console call, as the answer's `logs` will have it.
    Log(LogEntry),
    /// Text of the handler's own. All pieces in a row are the answer's captured text, without the mark of what was cut.
    Stdout(String),
    Stderr(String),
}

impl Said {
    /// The bytes of text in it.
    pub fn size(&self) -> usize {
        match self {
            Said::Log(entry) => entry.message.len(),
            Said::Stdout(text) | Said::Stderr(text) => text.len(),
        }
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Log(entry) => f.debug_tuple("Log").field(entry).finish(),
            Said::Stdout(text) => f.debug_tuple("Stdout").field(&Redacted::of(text)).finish(),
            Said::Stderr(text) => f.debug_tuple("Stderr").field(&Redacted::of(text)).finish(),
        }
    }
}

/// Somebody who follows a call while it runs. Whoever watches the call speaks to it between two looks at the clock, so
/// that it must neither wait nor keep more than it has room for: what it cannot take, it drops.
pub trait Follower: Send + Sync {
    /// Hears the next piece. The answer does not depend on it.
    fn hear(&self, said: Said);
}

/// A follower, where there is one. It travels beside a call and not in it: a call can be written down.
pub type Following = Option<Arc<dyn Follower>>;
