//! What the platform answers instead of the truth.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::exchange::Call;
use super::http::Answer;

/// One answer of the script.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The true answer.
    Normal,
    /// The true answer, so much later.
    Slow(Duration),
    /// This answer. A result that is answered 2xx counts as posted.
    Answer(Answer),
    /// None, on an open connection.
    Hang,
    /// A reset before the body is read.
    ResetBeforeBody,
    /// A reset after the body was read; whether the platform keeps what it read.
    ResetAfterBody { kept: bool },
}

impl Reply {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer::empty(status))
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer(Answer::json(status, body))
    }

    /// Any bytes under any type.
    pub fn raw(status: u16, content_type: &str, body: &str) -> Self {
        let content_type = Some(content_type.to_owned()).filter(|text| !text.is_empty());
        Self::Answer(Answer { content_type, body: body.as_bytes().to_vec(), ..Answer::empty(status) })
    }

    /// 429, or another status, with `Retry-After` in seconds.
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
        Self::Answer(Answer { headers, ..Answer::empty(status) })
    }

    /// What a job-take may get that is no job, each with what it is: statuses, other types, broken and odd bodies.
    pub fn nothing_to_do() -> Vec<(&'static str, Self)> {
        let json = "application/json";
        vec![
            ("204", Self::status(204)),
            ("400", Self::status(400)),
            ("400 with a body", Self::raw(400, json, r#"{"error": "no worker"}"#)),
            ("no JSON", Self::raw(200, json, "not json at all")),
            ("text", Self::raw(200, "text/plain", "hello")),
            ("empty", Self::raw(200, json, "")),
            ("no fields", Self::raw(200, json, "{}")),
            ("no input", Self::raw(200, json, r#"{"id": "x"}"#)),
            ("no id", Self::raw(200, json, r#"{"input": {}}"#)),
            ("null", Self::raw(200, json, "null")),
            ("empty list", Self::raw(200, json, "[]")),
            ("half an object", Self::raw(200, json, r#"{"id": "half", "inp"#)),
            ("invalid UTF-8", {
                let answer = Answer { body: b"{\"id\": \"\xff\xfe\"}".to_vec(), ..Answer::empty(200) };
                Self::Answer(Answer { content_type: Some(json.to_owned()), ..answer })
            }),
            ("401", Self::raw(401, json, r#"{"error": "unauthorized"}"#)),
            ("403", Self::status(403)),
            ("404", Self::status(404)),
            ("500", Self::raw(500, json, r#"{"error": "oops"}"#)),
            ("502", Self::raw(502, "text/html", "<html>bad gateway</html>")),
            ("503", Self::status(503)),
            ("reset", Self::ResetAfterBody { kept: false }),
        ]
    }
}

/// The answers that are due, for each call.
#[derive(Debug, Default)]
pub struct Script {
    next: HashMap<Call, VecDeque<Reply>>,
    always: HashMap<Call, Reply>,
}

impl Script {
    pub fn next(&mut self, call: Call, reply: Reply) {
        self.next.entry(call).or_default().push_back(reply);
    }

    pub fn always(&mut self, call: Call, reply: Reply) {
        self.always.insert(call, reply);
    }

    pub fn forgive(&mut self, call: Call) {
        self.next.remove(&call);
        self.always.remove(&call);
    }

    /// The answer that is due.
    pub fn take(&mut self, call: Call) -> Reply {
        let due = self.next.get_mut(&call).and_then(VecDeque::pop_front);
        due.or_else(|| self.always.get(&call).cloned()).unwrap_or(Reply::Normal)
    }

    /// Takes the answer that is due if it is a reset before the body.
    pub fn take_early_reset(&mut self, call: Call) -> bool {
        let due = self.next.get(&call).and_then(VecDeque::front).or_else(|| self.always.get(&call));
        let is_reset = matches!(due, Some(Reply::ResetBeforeBody));
        if is_reset {
            self.take(call);
        }
        is_reset
    }
}
