//! One call of a handler: its limits, what was seen of it from the host, and the outcome that follows.

mod call;
mod evidence;
mod files;
mod live;
mod report;

use serde::{Deserialize, Serialize};

pub use call::{Call, LimitPolicy, Limits, validate_env, validate_env_name};
pub use call::{EnvInvalid, MIN_MEMORY_MB};
pub use evidence::{
    Captured, End, ErrorReport, Evidence, FailureFrameKind, LogEntry, OutFile, Phase, ProcessEnd, Settlement, judge,
};
pub use files::FilesForm;
pub use live::{Follower, Following, Said};
pub use report::{ExecutionRecord, ExecutionReport, Start, Timings};

/// How a call ended. Decided by the host from its own clock, the cgroup's events and the result channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    HandlerError,
    NoHandler,
    NoResult,
    InvalidResult,
    Timeout,
    OutOfMemory,
    PidsLimit,
    OutputLimit,
    SandboxCrashed,
    Cancelled,
}

impl Outcome {
    /// The first system's number for it, after the shell's habit.
    pub fn exit_code(self) -> i32 {
        match self {
            Outcome::Ok => 0,
            Outcome::HandlerError | Outcome::NoHandler | Outcome::InvalidResult => 1,
            Outcome::Timeout => 124,
            Outcome::OutOfMemory => 137,
            Outcome::NoResult
            | Outcome::PidsLimit
            | Outcome::OutputLimit
            | Outcome::SandboxCrashed
            | Outcome::Cancelled => 125,
        }
    }

    /// The stable name in the API, the store and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::HandlerError => "handler_error",
            Outcome::NoHandler => "no_handler",
            Outcome::NoResult => "no_result",
            Outcome::InvalidResult => "invalid_result",
            Outcome::Timeout => "timeout",
            Outcome::OutOfMemory => "out_of_memory",
            Outcome::PidsLimit => "pids_limit",
            Outcome::OutputLimit => "output_limit",
            Outcome::SandboxCrashed => "sandbox_crashed",
            Outcome::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests;
