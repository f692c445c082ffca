//! Jobs that wait, the one that runs, and the history of those that ran.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::prompt::Prompt;

/// A posted prompt.
pub struct Job {
    /// Integer, or the float that the client chose.
    pub number: Value,
    pub id: String,
    pub prompt: Prompt,
    /// The prompt as it was posted.
    pub posted: Value,
    pub extra_data: Value,
    pub outputs: Vec<String>,
}

impl Job {
    /// `[number, id, prompt, extra_data, outputs]`, as `/queue` and `/history` show it.
    pub fn as_tuple(&self) -> Value {
        json!([self.number, self.id, self.posted, self.extra_data, self.outputs])
    }

    pub fn client_id(&self) -> Option<&str> {
        self.extra_data["client_id"].as_str()
    }

    fn rank(&self) -> (f64, &str) {
        (self.number.as_f64().unwrap_or_default(), &self.id)
    }
}

/// A job that ran, as `/history` shows it.
pub struct Past {
    pub id: String,
    pub entry: Value,
}

/// Everything under one lock.
#[derive(Default)]
pub struct Queue {
    pub pending: Vec<Arc<Job>>,
    pub running: Option<Arc<Job>>,
    pub history: Vec<Past>,
    /// The number of the next prompt.
    pub next: i64,
    pub free_memory: bool,
}

impl Queue {
    /// Waiting and running.
    pub fn remaining(&self) -> usize {
        self.pending.len() + usize::from(self.running.is_some())
    }

    /// Adds a job in its place; false when one of the same number and id waits already: then it is in the queue all
    /// the same, but the real one failed to compare the two, and answers 500.
    pub fn put(&mut self, job: Job) -> bool {
        let is_alone = !self.pending.iter().any(|other| other.rank() == job.rank());
        let at = self.pending.iter().position(|other| other.rank() > job.rank()).unwrap_or(self.pending.len());
        self.pending.insert(at, Arc::new(job));
        is_alone
    }

    /// Moves the first waiting job to running.
    pub fn take(&mut self) -> Option<Arc<Job>> {
        if self.pending.is_empty() {
            return None;
        }
        self.running = Some(self.pending.remove(0));
        self.running.clone()
    }

    /// Removes a waiting job.
    pub fn delete(&mut self, id: &str) -> bool {
        let before = self.pending.len();
        self.pending.retain(|job| job.id != id);
        self.pending.len() < before
    }

    pub fn is_running(&self, id: &str) -> bool {
        self.running.as_ref().is_some_and(|job| job.id == id)
    }

    /// Books the end of the running job; the same id again replaces the former entry.
    pub fn book(&mut self, past: Past) {
        self.running = None;
        self.history.retain(|other| other.id != past.id);
        self.history.push(past);
    }

    /// `GET /history`: at most so many entries, from an offset or from the end.
    pub fn history(&self, most: Option<usize>, offset: Option<usize>) -> Value {
        let most = most.unwrap_or(usize::MAX);
        let from = offset.unwrap_or_else(|| self.history.len().saturating_sub(most));
        let shown = self.history.iter().skip(from).take(most);
        Value::Object(shown.map(|past| (past.id.clone(), past.entry.clone())).collect::<Map<_, _>>())
    }
}
