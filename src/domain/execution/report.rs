//! The answer to a call, and what the store keeps of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Call, Captured, End, ErrorReport, Evidence, FilesForm, Limits, LogEntry, OutFile, Outcome, Phase, Settlement, judge,
};
use crate::domain::id::{EnvironmentId, ExecutionId};
use crate::domain::time::WallTime;

/// How a call's sandbox came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Made for the call.
    Cold,
    /// Stood ready for its runtime; the environment was mounted for the call.
    WarmRuntime,
    /// Stood ready for its environment, the module imported.
    WarmEnvironment,
    /// Served calls of its environment before, as the environment asked for (`isolation: "environment"`).
    Reused,
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
    /// Only with a result.
    pub files: Vec<OutFile>,
    /// How they are told.
    pub files_form: FilesForm,
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
    pub fn conclude(call: &Call, isolated: bool, evidence: Evidence, timings: Timings, start: Start) -> Self {
        let limits = call.limits;
        let outcome = judge(&evidence);
        let (result, error) = match evidence.settlement {
            Some(Settlement::Result(json)) if outcome == Outcome::Ok => (Some(json), None),
            Some(Settlement::Failure { error, .. }) if evidence.end == End::Settled => (None, Some(error)),
            _ => (None, explain(outcome, evidence.phase, limits)),
        };
        Self {
            execution: call.execution,
            outcome,
            phase: (outcome == Outcome::Timeout).then_some(evidence.phase),
            result,
            error,
            stdout: evidence.stdout,
            stderr: evidence.stderr,
            logs: evidence.logs,
            files: if outcome == Outcome::Ok { evidence.files } else { Vec::new() },
            files_form: call.files,
            timings,
            peak_memory_bytes: evidence.peak_memory_bytes,
            cpu: evidence.cpu,
            start,
            limits,
            isolated,
        }
    }

    /// The answer to a call that was ended before it settled.
    pub fn cancelled(execution: ExecutionId, limits: Limits, isolated: bool, timings: Timings, start: Start) -> Self {
        Self {
            execution,
            outcome: Outcome::Cancelled,
            phase: None,
            result: None,
            error: explain(Outcome::Cancelled, Phase::Handler, limits),
            stdout: Captured::default(),
            stderr: Captured::default(),
            logs: Vec::new(),
            files: Vec::new(),
            files_form: FilesForm::None,
            timings,
            peak_memory_bytes: 0,
            cpu: Duration::ZERO,
            start,
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

impl ExecutionRecord {
    /// A call that has begun.
    pub fn begun(id: ExecutionId, environment: EnvironmentId, started_at: WallTime) -> Self {
        Self {
            id,
            environment,
            started_at,
            completed_at: None,
            exit_code: None,
            stdout: None,
            stderr: None,
            duration_ms: None,
            outcome: None,
        }
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
