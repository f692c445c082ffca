//! What the host saw of a call, and the outcome that it proves.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::domain::redacted::Redacted;

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Import,
    Handler,
}

/// An error as the handler threw it. User data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    pub name: String,
    pub message: String,
    #[serde(default)]
    pub stack: String,
}

/// One captured console call. User data.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    pub level: String,
    pub message: String,
    /// Milliseconds since 1970 by the sandbox's clock; a hint, not evidence.
    pub timestamp: f64,
}

/// What the runner said last, on the result channel and with the right nonce.
#[derive(Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The handler's result as JSON text, already checked to be JSON.
    Result(String),
    Failure {
        kind: FailureFrameKind,
        error: ErrorReport,
    },
    /// Something that no runner sends: the handler wrote to the channel.
    Forged,
}

/// The failures a runner can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureFrameKind {
    HandlerError,
    NoHandler,
    InvalidResult,
    OutputLimit,
}

/// Why the host stopped watching a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A settling frame came (or a forged one).
    Settled,
    /// The result channel closed without one.
    Closed,
    /// The time limit passed on the host's clock.
    TimedOut,
    /// stdout, stderr or the logs went past what is even discarded.
    Flooded,
    /// The cgroup reported an out-of-memory event.
    OutOfMemory,
}

/// How the sandbox's process ended, as the kernel told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    Exited(i32),
    Signalled(i32),
    /// It was still running when the host stopped watching.
    Running,
}

/// A handler's raw output on one descriptor, cut at the cap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    pub text: String,
    /// Bytes that came beyond the cap and were thrown away.
    pub dropped_bytes: u64,
}

/// A plain file that a handler left behind. User data: a path of plain segments, and bytes of any kind.
#[derive(Clone, PartialEq, Eq)]
pub struct OutFile {
    pub path: String,
    pub content: Vec<u8>,
}

/// Everything the host saw of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    pub end: End,
    pub settlement: Option<Settlement>,
    pub phase: Phase,
    pub process: ProcessEnd,
    /// OOM kills the cgroup counted during the call.
    pub oom_kills: u64,
    /// Forks the cgroup refused during the call.
    pub pids_refused: u64,
    /// Highest memory charge above the idle runtime's, in bytes.
    pub peak_memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub cpu: Duration,
    pub handler_time: Duration,
    pub stdout: Captured,
    pub stderr: Captured,
    pub logs: Vec<LogEntry>,
    /// What came out of the call, where that was asked for.
    pub files: Vec<OutFile>,
}

/// The outcome that the evidence proves.
pub fn judge(evidence: &Evidence) -> Outcome {
    match (evidence.end, &evidence.settlement) {
        (End::Settled, Some(Settlement::Result(_))) => Outcome::Ok,
        (End::Settled, Some(Settlement::Failure { kind, .. })) => match kind {
            FailureFrameKind::HandlerError => Outcome::HandlerError,
            FailureFrameKind::NoHandler => Outcome::NoHandler,
            FailureFrameKind::InvalidResult => Outcome::InvalidResult,
            FailureFrameKind::OutputLimit => Outcome::OutputLimit,
        },
        (End::OutOfMemory, _) => Outcome::OutOfMemory,
        (End::Flooded, _) => Outcome::OutputLimit,
        (End::TimedOut, _) if evidence.oom_kills > 0 => Outcome::OutOfMemory,
        (End::TimedOut, _) => Outcome::Timeout,
        (End::Settled | End::Closed, _) => judge_closed(evidence),
    }
}

/// The channel is closed and nothing valid was said: the kernel's counters and the way the process ended decide.
fn judge_closed(evidence: &Evidence) -> Outcome {
    if evidence.oom_kills > 0 {
        return Outcome::OutOfMemory;
    }
    // A sandbox that was refused a thread dies of it; a handler that was refused one lives and settles.
    if evidence.pids_refused > 0 {
        return Outcome::PidsLimit;
    }
    // The engine ends itself with a trap or an abort when its heap is full, before the cgroup is.
    let died_by_abort =
        matches!(evidence.process, ProcessEnd::Exited(132 | 133 | 134 | 139) | ProcessEnd::Signalled(4 | 5 | 6 | 11));
    let near_its_limit = evidence.peak_memory_bytes.saturating_mul(10) >= evidence.memory_limit_bytes.saturating_mul(7);
    if died_by_abort && near_its_limit {
        return Outcome::OutOfMemory;
    }
    match evidence.process {
        ProcessEnd::Signalled(_) | ProcessEnd::Exited(128) => Outcome::SandboxCrashed,
        ProcessEnd::Exited(_) | ProcessEnd::Running => Outcome::NoResult,
    }
}

impl fmt::Debug for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorReport").field("message", &Redacted::of(&self.message)).finish_non_exhaustive()
    }
}

impl fmt::Debug for OutFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutFile").field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogEntry").field("message", &Redacted::of(&self.message)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Settlement::Result(json) => f.debug_tuple("Result").field(&Redacted::of(json)).finish(),
            Settlement::Failure { kind, error } => f.debug_tuple("Failure").field(kind).field(error).finish(),
            Settlement::Forged => f.write_str("Forged"),
        }
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, dropped_bytes } = self;
        f.debug_struct("Captured").field("text", &Redacted::of(text)).field("dropped_bytes", dropped_bytes).finish()
    }
}
