//! What comes over ComfyUI's WebSocket: JSON texts, and binary frames with a four-byte event in front.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One text of the socket, as far as it concerns one prompt.
#[cfg_attr(test, derive(Debug))]
#[derive(PartialEq)]
pub(super) enum Message {
    /// Another prompt's, the queue's, or none that is known.
    Other,
    Started,
    /// Nodes that are not run again.
    Cached(Vec<String>),
    /// A node begins; none: the prompt is over.
    Executing(Option<String>),
    Progress {
        node: Option<String>,
        value: f64,
        max: f64,
    },
    /// How many nodes have finished, of those that are not cached.
    Finished(usize),
    /// A node's outputs for people: `{images|audio|text|…: […]}`.
    Executed {
        node: String,
        output: Value,
    },
    Succeeded,
    /// The data of `execution_error`.
    Failed(Value),
    Interrupted,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Owner {
    prompt_id: Option<String>,
    node: Option<String>,
    display_node: Option<String>,
    #[serde(default)]
    nodes: Value,
    #[serde(default)]
    output: Value,
    #[serde(default)]
    value: f64,
    #[serde(default)]
    max: f64,
}

#[derive(Deserialize)]
struct Table {
    prompt_id: Option<String>,
    nodes: BTreeMap<String, State>,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

/// Reads a text for the prompt with this id. What cannot be read concerns nobody.
pub(super) fn read(text: &str, prompt: &str) -> Message {
    read_it(text, prompt).unwrap_or(Message::Other)
}

fn read_it(text: &str, prompt: &str) -> Option<Message> {
    let Envelope { kind, data } = serde_json::from_str(text).ok()?;
    let data = data.get();
    if kind == "progress_state" {
        let table: Table = serde_json::from_str(data).ok()?;
        let finished = table.nodes.values().filter(|node| node.state == "finished").count();
        return (table.prompt_id? == prompt).then_some(Message::Finished(finished));
    }
    if kind == "execution_error" {
        let error: Value = serde_json::from_str(data).ok()?;
        return (error.get("prompt_id")?.as_str()? == prompt).then_some(Message::Failed(error));
    }
    let known = ["execution_start", "execution_cached", "executing", "progress", "executed", "execution_success"];
    if !known.contains(&kind) && kind != "execution_interrupted" {
        return None;
    }
    let owner: Owner = serde_json::from_str(data).ok()?;
    // After a reconnect the node that runs is told without its prompt.
    let told_anew = kind == "executing" && owner.prompt_id.is_none() && owner.node.is_some();
    if !told_anew && owner.prompt_id.as_deref() != Some(prompt) {
        return None;
    }
    Some(match kind {
        "execution_start" => Message::Started,
        "execution_cached" => Message::Cached(serde_json::from_value(owner.nodes).ok()?),
        "executing" => Message::Executing(owner.display_node.or(owner.node)),
        "progress" => Message::Progress { node: owner.node, value: owner.value, max: owner.max },
        "executed" => Message::Executed { node: owner.display_node.or(owner.node)?, output: owner.output },
        "execution_success" => Message::Succeeded,
        _ => Message::Interrupted,
    })
}

/// A binary frame with a picture in it.
#[derive(PartialEq)]
pub(super) struct Picture {
    /// The node that it is of, and the prompt's id, where the frame says them.
    pub(super) node: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Metadata {
    node_id: Option<String>,
    display_node_id: Option<String>,
    prompt_id: Option<String>,
}

/// Reads a binary frame; none when it holds no picture.
///
/// Event 1: four bytes of type, the picture. Event 4: four bytes of length, that much JSON, the picture. All numbers
/// are big-endian.
pub(super) fn picture(frame: &[u8]) -> Option<Picture> {
    let (event, rest) = number(frame)?;
    let (second, rest) = number(rest)?;
    match event {
        1 => Some(Picture { node: None, prompt: None, bytes: rest.to_vec() }),
        4 => {
            let (metadata, bytes) = rest.split_at_checked(usize::try_from(second).ok()?)?;
            let Metadata { node_id, display_node_id, prompt_id } = serde_json::from_slice(metadata).ok()?;
            Some(Picture { node: display_node_id.or(node_id), prompt: prompt_id, bytes: bytes.to_vec() })
        }
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}
