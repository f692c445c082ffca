//! What the events of a followed call carry beside its logs, its answer and its error.

use serde::{Deserialize, Serialize};

/// `stdout` and `stderr`: text that the handler wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEvent {
    pub text: String,
}

/// `dropped`: so many events stood here, and their reader was too slow for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedEvent {
    pub events: u64,
}
