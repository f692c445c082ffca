//! A call as it is asked for and as it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::archive;
use crate::domain::base64;
use crate::domain::execution::{
    Captured, ErrorReport, ExecutionReport, FilesForm, LogEntry, OutFile, Outcome, Phase, Start, Timings,
};
use crate::domain::id::ExecutionId;
use crate::domain::time::{WallTime, whole_millis};
use crate::domain::webhook::Webhook;

/// What an answer says when its sandbox was a plain process tree.
pub const NOT_ISOLATED: &str = "this call ran without gVisor (DISABLE_GVISOR): for development only";

/// The last millisecond that can be written in every time zone: a day before the end of the year 9999.
const LAST_WRITABLE_MILLI: f64 = 253_402_207_199_999.0;

/// The body of `POST /environments/{id}/execute`, as a client writes it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct ExecuteBody {
    /// Any JSON. User data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsBody>,
    /// Whether what the handler leaves in /tmp/out is to come back, and how.
    #[serde(default, skip_serializing_if = "FilesForm::is_none")]
    pub files: FilesForm,
    /// Told when the call has ended; for calls that are answered later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// What a caller asks for; 0 or absent takes the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
}

/// A captured console call, or the handler's raw stdout (level `stdout`) when the result took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBody {
    pub level: String,
    pub message: String,
    /// RFC 3339 in UTC.
    pub timestamp: String,
}

/// A file that came out of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBody {
    /// Below /tmp/out: plain segments, divided by /.
    pub path: String,
    /// In bytes.
    pub size: usize,
    /// Standard base64 with padding.
    pub content: String,
}

impl From<OutFile> for FileBody {
    fn from(file: OutFile) -> Self {
        Self { path: file.path, size: file.content.len(), content: base64::encode(&file.content) }
    }
}

impl LogBody {
    /// A console call; `now` stands in where the sandbox gave no usable time.
    pub fn new(entry: LogEntry, now: WallTime) -> Self {
        Self { level: entry.level, message: entry.message, timestamp: written(entry.timestamp, now) }
    }
}

/// The answer to a call: the first system's five fields, then ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionBody {
    pub id: ExecutionId,
    pub exit_code: i32,
    /// The result as JSON text; without a result, what the handler itself wrote.
    pub stdout: String,
    /// What the handler wrote, and the error on a line of its own when there is one.
    pub stderr: String,
    pub duration_ms: u64,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    pub logs: Vec<LogBody>,
    /// What the handler left in /tmp/out, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileBody>,
    /// The same as a tar archive in base64, where that was asked for; with every result, also when there are no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_archive: Option<String>,
    pub timings: Timings,
    pub peak_memory_mb: f64,
    pub cpu_ms: f64,
    pub start: Start,
    /// The limits that were in force, after defaults and caps.
    pub limits: LimitsBody,
    /// Only ever `false`: the sandbox was not gVisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Keeps `"result": null` apart from no result at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// A call's report as JSON text, for a job that came through a queue.
pub fn execution_json(report: ExecutionReport, now: WallTime) -> String {
    // Strings, numbers and raw JSON only: nothing of it can fail to be written.
    serde_json::to_string(&ExecutionBody::new(report, now)).unwrap_or_default()
}

impl ExecutionBody {
    /// The answer that a report makes; `now` stands in where the sandbox gave no usable time.
    pub fn new(report: ExecutionReport, now: WallTime) -> Self {
        let raw_stdout = with_mark(&report.stdout);
        let mut logs: Vec<LogBody> = report.logs.into_iter().map(|entry| LogBody::new(entry, now)).collect();
        let stdout = match &report.result {
            None => raw_stdout,
            Some(json) => {
                if !raw_stdout.is_empty() {
                    logs.push(LogBody { level: "stdout".to_owned(), message: raw_stdout, timestamp: now.to_rfc3339() });
                }
                json.clone()
            }
        };
        let stderr = stderr_of(&report.stderr, report.outcome, report.error.as_ref());
        let (files, files_archive) = match report.files_form {
            FilesForm::Tar => {
                let archive = || base64::encode(&archive::tar(report.files));
                (Vec::new(), (report.outcome == Outcome::Ok).then(archive))
            }
            FilesForm::None | FilesForm::List => (report.files.into_iter().map(FileBody::from).collect(), None),
        };
        Self {
            id: report.execution,
            exit_code: report.outcome.exit_code(),
            stdout,
            stderr,
            duration_ms: whole(report.timings.total_ms),
            outcome: report.outcome,
            phase: report.phase,
            // The runner's adapter has already checked that it is JSON.
            result: report.result.and_then(|json| RawValue::from_string(json).ok()),
            error: report.error,
            logs,
            files,
            files_archive,
            timings: rounded(report.timings),
            peak_memory_mb: thousandths(bytes_as_mb(report.peak_memory_bytes)),
            cpu_ms: thousandths(report.cpu.as_secs_f64() * 1000.0),
            start: report.start,
            limits: LimitsBody {
                timeout_ms: Some(whole_millis(report.limits.timeout)),
                memory_mb: Some(report.limits.memory_mb),
            },
            isolated: (!report.isolated).then_some(false),
            warning: (!report.isolated).then(|| NOT_ISOLATED.to_owned()),
        }
    }
}

fn with_mark(captured: &Captured) -> String {
    match captured.dropped_bytes {
        0 => captured.text.clone(),
        dropped => format!("{}\n[truncated: {dropped} bytes dropped]", captured.text),
    }
}

fn stderr_of(captured: &Captured, outcome: Outcome, error: Option<&ErrorReport>) -> String {
    let mut text = with_mark(captured);
    if let (true, Some(error)) = (outcome != Outcome::Ok, error) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&error.name);
        text.push_str(": ");
        text.push_str(&error.message);
    }
    text
}

/// The sandbox's clock is a hint: what RFC 3339 cannot write becomes `now`.
fn written(timestamp: f64, now: WallTime) -> String {
    let usable = (0.0..=LAST_WRITABLE_MILLI).contains(&timestamp);
    if usable { WallTime(timestamp as i64).to_rfc3339() } else { now.to_rfc3339() }
}

fn rounded(timings: Timings) -> Timings {
    Timings {
        queue_ms: thousandths(timings.queue_ms),
        claim_ms: thousandths(timings.claim_ms),
        handler_ms: thousandths(timings.handler_ms),
        total_ms: thousandths(timings.total_ms),
    }
}

/// Rounds for reading; JSON has no word for what is not finite.
fn thousandths(number: f64) -> f64 {
    if number.is_finite() { (number * 1000.0).round() / 1000.0 } else { 0.0 }
}

fn whole(millis: f64) -> u64 {
    // A float's cast saturates, and NaN becomes 0.
    millis.round() as u64
}

fn bytes_as_mb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1024 * 1024)
}

#[cfg(test)]
#[path = "execution_tests.rs"]
mod tests;
