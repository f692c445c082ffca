//! Waiting for a job's end, with its progress on a terminal.

use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::kept::Kept;
use super::remote::{Remote, Status};
use super::reply::{Progress, Reply, open_progress};
use crate::cli::client::ClientError;
use crate::cli::printable::printable;
use crate::domain::job::JobId;

/// From one question to the next: from the first span to the last.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(1);
/// How long nobody may answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job that has come to its end.
pub struct Ended {
    pub status: String,
    pub output: Option<Box<RawValue>>,
    error: Option<Value>,
}

impl Ended {
    /// Why the job failed; none when it did not.
    pub fn failure(&self, reply: &Reply) -> Option<String> {
        let told = match &self.error {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        let by_status = || {
            let text = match self.status.as_str() {
                "COMPLETED" => return None,
                "CANCELLED" => "cancelled".to_owned(),
                "TIMED_OUT" => "out of time at the endpoint (TIMED_OUT)".to_owned(),
                other => format!("the job is {other}"),
            };
            Some(text)
        };
        told.or_else(|| reply.error.clone()).or_else(by_status)
    }

    /// The failure as a sentence about the job.
    pub fn in_words(&self, job: &JobId, failure: &str) -> String {
        match (self.status.as_str(), failure) {
            ("CANCELLED", "cancelled") => format!("job {job} was cancelled"),
            ("CANCELLED", told) => format!("job {job} was cancelled: {}", printable(told)),
            (_, told) => format!("job {job} failed: {}", printable(told)),
        }
    }
}

/// Asks until the job is at its end. None when `wait` is over first.
///
/// # Errors
/// When the other end does not know the job, or nobody answers for a while.
pub async fn follow(remote: &Remote, kept: &Kept, wait: Duration) -> Result<Option<Ended>, ClientError> {
    let bar = Bar::new();
    let mut waited = pin!(sleep(wait));
    let mut patience = pin!(sleep(PATIENCE));
    let (mut pause, mut unanswered) = (FIRST, Some(ClientError::Silent(remote.name().to_owned())));
    let ended = loop {
        let answer = tokio::select! {
            biased;
            answer = remote.status(&kept.job) => answer,
            () = &mut waited => break unanswered.map_or(Ok(None), Err),
        };
        match answer {
            Ok(status) if is_final(&status.status) => {
                break Ok(Some(Ended { status: status.status, output: status.output, error: status.error }));
            }
            Ok(status) => {
                unanswered = None;
                patience.set(sleep(PATIENCE));
                bar.show(&status, kept);
            }
            Err(error) if error.is_passing() => {
                unanswered = Some(error);
                bar.unanswered();
            }
            Err(error) => break Err(error),
        }
        tokio::select! {
            biased;
            () = &mut waited => break unanswered.map_or(Ok(None), Err),
            () = &mut patience, if unanswered.is_some() => break unanswered.map_or(Ok(None), Err),
            () = sleep(pause) => pause = (pause * 2).min(LAST),
        }
    };
    bar.clear();
    ended
}

fn is_final(status: &str) -> bool {
    matches!(status, "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT")
}

/// A bar on the terminal; nothing where there is none.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(1000);
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3} %  {elapsed}  {msg}") {
            bar.set_style(style);
        }
        bar.set_message("waiting");
        Self(bar)
    }

    fn show(&self, status: &Status, kept: &Kept) {
        match status.output.as_deref().and_then(|output| open_progress(output, kept)) {
            Some(progress) => {
                self.0.set_position(progress.permille());
                self.0.set_message(in_words(&progress));
            }
            None if status.status == "IN_PROGRESS" => self.0.set_message("running"),
            None => self.0.tick(),
        }
    }

    fn unanswered(&self) {
        self.0.set_message("no answer; asking again");
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn in_words(progress: &Progress) -> String {
    let step =
        if progress.max > 1.0 { format!(", step {} of {}", progress.value, progress.max) } else { String::new() };
    format!("node {} of {}{step}", (progress.nodes_done + 1).min(progress.nodes.max(1)), progress.nodes.max(1))
}
