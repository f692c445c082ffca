//! What a caller asks for beside the outputs.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::job::{OpenError, Wants};
use crate::domain::json::{self, Fields};

/// The longest `client_id`, in bytes.
const LONGEST_CLIENT_ID: usize = 256;

/// Wishes about the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub wants: Wants,
    /// A limit on the run that is below the host's.
    pub deadline: Option<Duration>,
    /// v1 gave the history unasked; v2 gives it to who asks.
    history_unasked: bool,
}

impl Options {
    /// Takes the fields that may stand beside an envelope, or beside a workflow in clear: `client_id`, `no_history`.
    pub(super) fn beside(fields: &mut Fields<'_>) -> Result<Self, OpenError> {
        // The caller's own name for itself, from v1: read, and used for nothing.
        fields.take("client_id").map(client_id).transpose()?;
        let no_history = fields.take("no_history").map(no_history).transpose()?.unwrap_or(false);
        let wants = Wants { history: !no_history, previews: false, silent: false };
        Ok(Self { wants, deadline: None, history_unasked: true })
    }

    /// For v2: the history, which quotes the whole prompt, comes only when `reply` asks for it.
    pub(super) fn of_v2(self) -> Self {
        Self { history_unasked: false, ..self }
    }

    /// Adds what the object `reply` asks for: `history`, `previews`, `progress`, `deadline_ms`. A `no_history` beside the
    /// envelope outranks it.
    pub(super) fn with_reply(mut self, fields: &mut Fields<'_>) -> Result<Self, OpenError> {
        let wrong = |_| OpenError::Field("reply must be an object without a key twice");
        let allowed = self.wants.history;
        self.wants.history &= self.history_unasked;
        let Some(mut reply) = fields.object("reply").map_err(wrong)? else { return Ok(self) };
        let mut switch = |name, text| reply.read::<bool>(name, "").map_err(|_| OpenError::Field(text));
        let history = switch("history", "reply.history must be true or false")?;
        let previews = switch("previews", "reply.previews must be true or false")?;
        let progress = switch("progress", "reply.progress must be true or false")?;
        let deadline = reply.read::<u64>("deadline_ms", "").ok().map(|read| read.filter(|ms| *ms > 0));
        let deadline = deadline.ok_or(OpenError::Field("reply.deadline_ms must be a whole number of milliseconds"))?;
        self.wants.history = allowed && history.unwrap_or(self.history_unasked);
        self.wants.previews = previews.unwrap_or(false);
        self.wants.silent = !progress.unwrap_or(true);
        self.deadline = deadline.map(Duration::from_millis);
        Ok(self)
    }
}

fn client_id(raw: &RawValue) -> Result<(), OpenError> {
    let text = json::string(raw).filter(|text| text.len() <= LONGEST_CLIENT_ID);
    text.map(drop).ok_or(OpenError::Malformed("client_id must be a string of at most 256 bytes"))
}

/// The first system took each of these.
fn no_history(raw: &RawValue) -> Result<bool, OpenError> {
    match raw.get() {
        "true" | "1" | "\"true\"" | "\"1\"" => Ok(true),
        "false" | "0" | "\"false\"" | "\"0\"" | "\"\"" => Ok(false),
        _ => Err(OpenError::Malformed("no_history must be true or false")),
    }
}
