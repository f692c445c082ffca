//! A sandbox job: `{"execute": {"id": …, "data", "env", "limits": {"timeoutMs", "memoryMb"}}}`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::domain::id::EnvironmentId;
use crate::domain::job::OpenError;
use crate::domain::json::{self, Fields};

/// A call of a handler, without whose it is.
pub struct Call {
    pub(super) environment: EnvironmentId,
    pub(super) data: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) memory_mb: Option<u64>,
}

/// Takes the field `execute`. The environment is named by `id`, as in the route and its answers, or by `environment`.
pub(super) fn read(fields: &mut Fields<'_>) -> Result<Call, OpenError> {
    let wrong = |text: &str| OpenError::Execute(text.to_owned());
    let object = fields.object("execute").map_err(|_| wrong("it must be an object without a key twice"))?;
    let mut call = object.ok_or_else(|| wrong("it must be an object without a key twice"))?;
    let id = match (call.take("id"), call.take("environment")) {
        (Some(id), None) | (None, Some(id)) => json::string(id).and_then(|text| text.parse().ok()),
        _ => None,
    };
    let environment = id.ok_or_else(|| wrong("id must be the environment's id, a UUID"))?;
    let env = call.strings("env", "").map_err(|_| wrong("env must map names to strings, each once"))?;
    let data = call.take("data").map_or("null", RawValue::get).to_owned();
    let (mut timeout_ms, mut memory_mb) = (None, None);
    if let Some(mut limits) = call.object("limits").map_err(|_| wrong("limits must be an object"))? {
        let mut whole = |name| limits.read::<u64>(name, "").map(|read| read.filter(|number| *number > 0));
        timeout_ms = whole("timeoutMs").map_err(|_| wrong("limits.timeoutMs must be a whole number"))?;
        memory_mb = whole("memoryMb").map_err(|_| wrong("limits.memoryMb must be a whole number"))?;
    }
    Ok(Call { environment, data, env, timeout_ms, memory_mb })
}
