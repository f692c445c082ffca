//! One call of a handler: its limits, what was seen of it from the host, and the outcome that follows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::id::{EnvironmentId, ExecutionId, RequestId};
use crate::domain::redacted::Redacted;
use crate::domain::time::WallTime;

/// What one call may use. Times on the host's clock, memory above the idle runtime's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub timeout: Duration,
    pub memory_mb: u64,
}

/// The defaults and the caps that callers' limits are held to.
#[derive(Debug, Clone, Copy)]
pub struct LimitPolicy {
    pub default: Limits,
    pub cap: Limits,
}

/// The least memory a call can ask for, in MiB: below it no engine starts.
pub const MIN_MEMORY_MB: u64 = 16;

impl LimitPolicy {
    /// The limits of a call: what it asked for (0 counts as not asked), never above the caps.
    pub fn resolve(&self, timeout_ms: Option<u64>, memory_mb: Option<u64>) -> Limits {
        let timeout = match timeout_ms {
            None | Some(0) => self.default.timeout,
            Some(millis) => Duration::from_millis(millis),
        };
        let memory = match memory_mb {
            None | Some(0) => self.default.memory_mb,
            Some(megabytes) => megabytes.max(MIN_MEMORY_MB),
        };
        Limits { timeout: timeout.min(self.cap.timeout), memory_mb: memory.min(self.cap.memory_mb) }
    }
}

/// What a caller sends to be run. `data` is JSON text, passed on untouched; user data, never logged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Call {
    pub execution: ExecutionId,
    pub environment: EnvironmentId,
    pub request: RequestId,
    pub data: String,
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
}

/// Why an `env` entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvInvalid {
    #[error(
        "env name {0:?} is not a variable name: use letters, digits and _, not starting with a digit, at most 128 bytes"
    )]
    Name(String),
    #[error("env name {0:?} is reserved: it would steer the runtime or the loader")]
    Reserved(String),
    #[error("env value of {0:?} holds a NUL or is longer than 32768 bytes")]
    Value(String),
    #[error("env has {0} entries: at most 256 are allowed")]
    TooMany(usize),
}

const RESERVED_ENV: [&str; 14] = [
    "PATH",
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "IFS",
    "ENV",
    "BASH_ENV",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const RESERVED_ENV_PREFIXES: [&str; 6] = ["LD_", "DENO_", "BUN_", "NPM_CONFIG_", "GLIBC_", "MALLOC_"];

/// Checks a call's `env`.
///
/// # Errors
/// The first entry that is refused, with the reason.
pub fn validate_env(env: &BTreeMap<String, String>) -> Result<(), EnvInvalid> {
    if env.len() > 256 {
        return Err(EnvInvalid::TooMany(env.len()));
    }
    for (name, value) in env {
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let reads_well = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !starts_well || !reads_well || name.len() > 128 {
            return Err(EnvInvalid::Name(name.chars().take(64).collect()));
        }
        let upper = name.to_ascii_uppercase();
        let reserved = RESERVED_ENV.contains(&upper.as_str())
            || RESERVED_ENV_PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
        if reserved {
            return Err(EnvInvalid::Reserved(name.clone()));
        }
        if value.contains('\0') || value.len() > 32_768 {
            return Err(EnvInvalid::Value(name.clone()));
        }
    }
    Ok(())
}

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

/// How a call's sandbox came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    Cold,
}

/// Where the time of a call went, in milliseconds with a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    pub queue_ms: f64,
    pub claim_ms: f64,
    pub handler_ms: f64,
    pub total_ms: f64,
}

/// The whole answer to a call.
#[derive(Clone)]
pub struct ExecutionReport {
    pub execution: ExecutionId,
    pub outcome: Outcome,
    /// For `timeout`: how far it had come.
    pub phase: Option<Phase>,
    /// The handler's result as JSON text, when there is one.
    pub result: Option<String>,
    pub error: Option<ErrorReport>,
    pub stdout: Captured,
    pub stderr: Captured,
    pub logs: Vec<LogEntry>,
    pub timings: Timings,
    pub peak_memory_bytes: u64,
    pub cpu: Duration,
    pub start: Start,
    pub limits: Limits,
    /// False when the sandbox was a plain container (`DISABLE_GVISOR`).
    pub isolated: bool,
}

impl ExecutionReport {
    /// What follows from the evidence of a call that ran.
    pub fn conclude(
        execution: ExecutionId,
        limits: Limits,
        isolated: bool,
        evidence: Evidence,
        timings: Timings,
    ) -> Self {
        let outcome = judge(&evidence);
        let (result, error) = match evidence.settlement {
            Some(Settlement::Result(json)) if outcome == Outcome::Ok => (Some(json), None),
            Some(Settlement::Failure { error, .. }) if evidence.end == End::Settled => (None, Some(error)),
            _ => (None, explain(outcome, evidence.phase, limits)),
        };
        Self {
            execution,
            outcome,
            phase: (outcome == Outcome::Timeout).then_some(evidence.phase),
            result,
            error,
            stdout: evidence.stdout,
            stderr: evidence.stderr,
            logs: evidence.logs,
            timings,
            peak_memory_bytes: evidence.peak_memory_bytes,
            cpu: evidence.cpu,
            start: Start::Cold,
            limits,
            isolated,
        }
    }

    /// The answer to a call that was ended before it settled.
    pub fn cancelled(execution: ExecutionId, limits: Limits, isolated: bool, timings: Timings) -> Self {
        Self {
            execution,
            outcome: Outcome::Cancelled,
            phase: None,
            result: None,
            error: explain(Outcome::Cancelled, Phase::Handler, limits),
            stdout: Captured::default(),
            stderr: Captured::default(),
            logs: Vec::new(),
            timings,
            peak_memory_bytes: 0,
            cpu: Duration::ZERO,
            start: Start::Cold,
            limits,
            isolated,
        }
    }

    /// The record that the store keeps of it.
    pub fn record(&self, begun: &ExecutionRecord, completed_at: WallTime, keep_output: bool) -> ExecutionRecord {
        let kept = |text: &str| keep_output.then(|| text.to_owned());
        ExecutionRecord {
            completed_at: Some(completed_at),
            exit_code: Some(self.outcome.exit_code()),
            stdout: kept(self.result.as_deref().unwrap_or(&self.stdout.text)),
            stderr: kept(&self.stderr.text),
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of one call")]
            duration_ms: Some(self.timings.total_ms.round() as i64),
            outcome: Some(self.outcome.as_str().to_owned()),
            ..begun.clone()
        }
    }
}

/// The daemon's own words for an outcome that no handler explained.
fn explain(outcome: Outcome, phase: Phase, limits: Limits) -> Option<ErrorReport> {
    let millis = limits.timeout.as_millis();
    let (name, message) = match outcome {
        Outcome::Timeout => match phase {
            Phase::Import => ("Timeout", format!("the module was still being imported after {millis} ms")),
            Phase::Handler => ("Timeout", format!("the handler did not return within {millis} ms")),
        },
        Outcome::OutOfMemory => ("OutOfMemory", format!("the call used more than {} MiB", limits.memory_mb)),
        Outcome::PidsLimit => ("PidsLimit", "the call started too many processes or threads".to_owned()),
        Outcome::OutputLimit => ("OutputLimit", "the call wrote more output than is even discarded".to_owned()),
        Outcome::NoResult => ("NoResult", "the handler ended without a result".to_owned()),
        Outcome::SandboxCrashed => ("SandboxCrashed", "the sandbox ended under the handler".to_owned()),
        Outcome::Cancelled => ("Cancelled", "the call was cancelled".to_owned()),
        Outcome::Ok | Outcome::HandlerError | Outcome::NoHandler | Outcome::InvalidResult => return None,
    };
    Some(ErrorReport { name: name.to_owned(), message, stack: String::new() })
}

/// A finished call as the store keeps it. `stdout` and `stderr` are empty unless the configuration asks to keep them.
#[derive(Clone, PartialEq)]
pub struct ExecutionRecord {
    pub id: ExecutionId,
    pub environment: EnvironmentId,
    pub started_at: WallTime,
    pub completed_at: Option<WallTime>,
    pub exit_code: Option<i32>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub duration_ms: Option<i64>,
    pub outcome: Option<String>,
}

impl fmt::Debug for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorReport").field("message", &Redacted::of(&self.message)).finish_non_exhaustive()
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

impl fmt::Debug for ExecutionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { execution, outcome, .. } = self;
        f.debug_struct("ExecutionReport")
            .field("execution", execution)
            .field("outcome", outcome)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ExecutionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, outcome, .. } = self;
        f.debug_struct("ExecutionRecord").field("id", id).field("outcome", outcome).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "execution_tests.rs"]
mod tests;
