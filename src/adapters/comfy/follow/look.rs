//! Looking for a prompt by HTTP.

use std::time::Duration;

use super::super::http::{Http, Place};
use crate::domain::job::PromptId;

/// Tries for a history entry, and the wait before the second; each wait is twice the one before.
const TRIES: u32 = 11;
const FIRST_WAIT: Duration = Duration::from_millis(1);

/// What a look found.
pub(super) enum Looked {
    /// It is over: the history entry.
    Over(Vec<u8>),
    /// It waits or runs, as far as was looked.
    Queued,
    Absent,
    /// ComfyUI could not be asked.
    Unknown,
}

/// Asks history, and, to be thorough, the queue. `stop` asks it to stop first.
pub(super) async fn look(http: Http, prompt: PromptId, thorough: bool, stop: bool) -> Looked {
    if stop {
        // Where that fails, the next look tries again.
        let _ = http.interrupt(prompt).await;
    }
    match http.history(prompt).await {
        Ok(Some(entry)) => Looked::Over(entry),
        Ok(None) if !thorough => Looked::Queued,
        Ok(None) => match http.place(prompt).await {
            Ok(Place::Queue) => Looked::Queued,
            Ok(Place::Nowhere) => Looked::Absent,
            Err(_) => Looked::Unknown,
        },
        Err(_) => Looked::Unknown,
    }
}

/// The entry of a prompt whose end was told. ComfyUI writes it after it told; about one second is waited.
pub(super) async fn entry(http: &Http, prompt: PromptId) -> Option<Vec<u8>> {
    let mut wait = FIRST_WAIT;
    for _ in 0..TRIES {
        if let Ok(Some(entry)) = http.history(prompt).await {
            return Some(entry);
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    None
}
