//! Waiting for a job's end, with its progress on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use serde_json::value::RawValue;

use super::kept::Kept;
use super::remote::{Remote, Status};
use super::reply::{Progress, Reply, open_progress};
use crate::cli::client::ClientError;

/// From one question to the next: from the first span to the last.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(1);
/// So many questions in a row may go unanswered.
const PATIENCE: u32 = 10;

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
        let by_status = || (self.status != "COMPLETED").then(|| format!("the job is {}", self.status));
        told.or_else(|| reply.error.clone()).or_else(by_status)
    }
}

/// Asks until the job is at its end. None when `patience` is over first.
///
/// # Errors
/// When the other end does not know the job, or cannot be reached for a while.
pub async fn follow(remote: &Remote, kept: &Kept, patience: Duration) -> anyhow::Result<Option<Ended>> {
    let bar = Bar::new();
    let following = async {
        let mut pause = FIRST;
        let mut unanswered = 0;
        loop {
            match remote.status(&kept.job).await {
                Ok(status) if is_final(&status.status) => {
                    return Ok(Ended { status: status.status, output: status.output, error: status.error });
                }
                Ok(status) => {
                    unanswered = 0;
                    bar.show(&status, kept);
                }
                Err(error) if unanswered < PATIENCE && is_passing(&error) => unanswered += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST);
        }
    };
    let ended = tokio::time::timeout(patience, following).await;
    bar.clear();
    ended.ok().transpose()
}

fn is_final(status: &str) -> bool {
    matches!(status, "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT")
}

/// Whether asking again may help; then a request may also have arrived without an answer.
pub fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_passing)
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

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn in_words(progress: &Progress) -> String {
    let step =
        if progress.max > 1.0 { format!(", step {} of {}", progress.value, progress.max) } else { String::new() };
    format!("node {} of {}{step}", (progress.nodes_done + 1).min(progress.nodes.max(1)), progress.nodes.max(1))
}
