//! A job as the platform sees it.

use std::time::Instant;

use serde_json::{Map, Value, json};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    InQueue,
    InProgress,
    Completed,
    Failed,
    Cancelled,
    TimedOut,
}

impl Status {
    pub fn is_final(self) -> bool {
        !matches!(self, Self::InQueue | Self::InProgress)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::InQueue => "IN_QUEUE",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
        }
    }
}

/// A final result that was accepted.
#[derive(Debug, Clone)]
pub struct Final {
    pub at: Instant,
    pub body: Value,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: String,
    /// What a worker is handed.
    pub handed: Value,
    pub status: Status,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub progress: Vec<(Instant, Value)>,
    pub chunks: Vec<Value>,
    /// Chunks that a client has seen.
    pub chunks_read: usize,
    /// Final results in the order of their arrival; the first decides.
    pub finals: Vec<Final>,
    /// A result was refused for its size.
    pub oversized: bool,
    pub worker: Option<String>,
    /// Each time it was handed out, and to whom.
    pub deliveries: Vec<(Instant, String)>,
    /// The last sign of life of its worker.
    pub alive: Instant,
    pub submitted: Instant,
    pub ended: Option<Instant>,
    pub retries: u32,
}

impl Job {
    pub fn new(id: String, handed: Value) -> Self {
        let now = Instant::now();
        Self {
            id,
            handed,
            status: Status::InQueue,
            output: None,
            error: None,
            progress: Vec::new(),
            chunks: Vec::new(),
            chunks_read: 0,
            finals: Vec::new(),
            oversized: false,
            worker: None,
            deliveries: Vec::new(),
            alive: now,
            submitted: now,
            ended: None,
            retries: 0,
        }
    }

    /// Takes a final result: the first decides, and one that was refused for its size gives way to the next.
    pub fn finish(&mut self, body: &Value) {
        let now = Instant::now();
        let decides = self.finals.is_empty() && (!self.status.is_final() || self.oversized);
        self.finals.push(Final { at: now, body: body.clone() });
        if !decides {
            return;
        }
        self.ended = Some(now);
        // An error that is no text is taken for none.
        let error = body.get("error").filter(|error| error.as_str().is_some_and(|text| !text.is_empty()));
        self.error = error.cloned();
        self.output = body.get("output").cloned();
        self.status = if self.error.is_some() { Status::Failed } else { Status::Completed };
    }

    /// Its result was too big: over, with nothing to show.
    pub fn refuse_result(&mut self) {
        self.oversized = true;
        self.status = Status::Completed;
        self.ended = Some(Instant::now());
    }

    /// As `/status` shows it.
    pub fn shown(&self) -> Value {
        let started = self.deliveries.first().map(|(at, _)| *at);
        let delay = started.unwrap_or_else(Instant::now) - self.submitted;
        let mut shown = Map::new();
        shown.insert("id".to_owned(), json!(self.id));
        shown.insert("status".to_owned(), json!(self.status.name()));
        shown.insert("delayTime".to_owned(), json!(delay.as_millis() as u64));
        if let Some(worker) = &self.worker {
            shown.insert("workerId".to_owned(), json!(worker));
        }
        if let (Some(started), Some(ended)) = (started, self.ended) {
            let took = ended.saturating_duration_since(started);
            shown.insert("executionTime".to_owned(), json!(took.as_millis() as u64));
        }
        let progress = self.progress.last().map(|(_, value)| value).filter(|_| self.status == Status::InProgress);
        if let Some(output) = self.output.as_ref().or(progress) {
            shown.insert("output".to_owned(), output.clone());
        }
        if let Some(error) = &self.error {
            shown.insert("error".to_owned(), error.clone());
        }
        if self.retries > 0 {
            shown.insert("retries".to_owned(), json!(self.retries));
        }
        Value::Object(shown)
    }
}
