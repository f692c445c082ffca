//! The one classification of failures; the API maps it to HTTP codes in one place.

use serde::Serialize;

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is wrong and will stay wrong.
    Invalid,
    /// The named thing does not exist.
    Absent,
    /// Worth trying again, at once or a little later.
    Retryable,
    /// Nothing the caller can do will help.
    Permanent,
    /// Somebody asked for it to end.
    Cancelled,
    /// A limit of the daemon is reached; try again after a while.
    Exhausted,
}
