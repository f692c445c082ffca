//! The classification of the host's own failures; the API maps it to HTTP in one place.

use serde::Serialize;

/// What a failure of the host means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Worth trying again, at once or a little later.
    Retryable,
    /// It stays as it is until somebody mends the host.
    Permanent,
}
