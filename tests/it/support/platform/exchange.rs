//! One request, and what became of it.

use std::time::Instant;

use serde_json::Value;

/// Which of the platform's calls it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// One job or a batch.
    Take,
    /// A final result.
    Done,
    /// A result that says `IN_PROGRESS`.
    Progress,
    Stream,
    Ping,
    Stop,
    /// Any of the client's routes.
    Client,
}

/// A request with its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub call: Call,
    /// Its head.
    pub arrived: Instant,
    /// Its body, to the last byte.
    pub whole: Option<Instant>,
    pub method: String,
    /// As it was sent, query included.
    pub target: String,
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When the answer was written, and its status; 0 for a reset.
    pub answered: Option<(Instant, u16)>,
    /// The other end went away before an answer.
    pub abandoned: bool,
}

impl Exchange {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The segments of the path behind `/v2/<endpoint>/`; anything from an `&` on in the last one is cut off.
    pub fn segments(&self) -> Vec<&str> {
        let path = self.path.split('&').next().unwrap_or_default();
        path.split('/').filter(|part| !part.is_empty()).skip(2).collect()
    }

    /// The job that the path names.
    pub fn job(&self) -> Option<&str> {
        matches!(self.call, Call::Done | Call::Progress | Call::Stream).then(|| self.segments().last().copied())?
    }

    /// The jobs that a heartbeat names.
    pub fn pinged(&self) -> Vec<&str> {
        self.parameter("job_id").map(|ids| ids.split(',').collect()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn status(&self) -> Option<u16> {
        self.answered.map(|(_, status)| status)
    }
}
