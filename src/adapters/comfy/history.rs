//! A prompt's entry in ComfyUI's history. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::failure;
use super::seen::End;

/// What an entry tells.
pub(super) struct Told {
    pub(super) end: End,
    /// By node.
    pub(super) outputs: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    outputs: BTreeMap<String, Value>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    status_str: String,
    #[serde(default)]
    messages: Vec<(String, Value)>,
}

/// Reads an entry; none when it is not one.
pub(super) fn read(entry: &[u8]) -> Option<Told> {
    let Entry { outputs, status } = serde_json::from_slice(entry).ok()?;
    let end = match status {
        Some(status) if status.status_str != "success" => {
            let told = |kind: &str| status.messages.iter().find(|(found, _)| found == kind).map(|(_, data)| data);
            End::Failed(match told("execution_error") {
                Some(data) => failure::raised(data),
                // An entry in error without an exception is an interrupted prompt's.
                None => failure::interrupted(),
            })
        }
        // An old ComfyUI wrote none for a success.
        _ => End::Succeeded,
    };
    Some(Told { end, outputs })
}
