//! The body of `POST /prompt`, and what of a prompt has to be known to follow it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::job::PromptId;

/// The input by which a run's output nodes differ from those of every other run: see [`body`].
const SALT: &str = "cloister_run";
/// How ComfyUI makes pictures of latents under way, when they are wanted.
const PREVIEWS: &str = "auto";

/// A prompt as it was read.
pub(super) struct Prompt<'a> {
    text: &'a str,
    nodes: BTreeMap<String, Node<'a>>,
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(default)]
    class_type: Option<String>,
    #[serde(borrow, default)]
    inputs: Option<&'a RawValue>,
}

impl<'a> Prompt<'a> {
    /// None when it is no object. A node that is none is left to ComfyUI to refuse.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let raw: BTreeMap<String, &'a RawValue> = serde_json::from_str(text).ok()?;
        let nodes = raw.into_iter().filter_map(|(id, node)| Some((id, serde_json::from_str(node.get()).ok()?)));
        Some(Self { text, nodes: nodes.collect() })
    }

    /// The nodes that send their pictures over the WebSocket and write no file.
    pub(super) fn senders(&self) -> BTreeSet<String> {
        let sends = |node: &Node<'_>| {
            node.class_type.as_ref().is_some_and(|class| class.to_ascii_lowercase().contains("websocket"))
        };
        self.nodes.iter().filter(|(_, node)| sends(node)).map(|(id, _)| id.clone()).collect()
    }

    /// The whole body.
    ///
    /// With `salted`, the nodes that no other node reads get an input more, which no node knows and ComfyUI does not
    /// hand to them, but which is part of what it takes for "the same". So what writes files runs each time, while
    /// loaders, and with them the models, may be kept from the job before.
    pub(super) fn body(&self, prompt: PromptId, client: &str, previews: bool, salted: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.text.len() + 512);
        body.extend_from_slice(b"{\"prompt\":");
        let mut from = 0;
        if salted {
            for (at, empty) in self.salting() {
                let comma = if empty { "" } else { "," };
                body.extend_from_slice(self.text.as_bytes().get(from..at).unwrap_or_default());
                body.extend_from_slice(format!("\"{SALT}\":\"{prompt}\"{comma}").as_bytes());
                from = at;
            }
        }
        body.extend_from_slice(self.text.as_bytes().get(from..).unwrap_or_default());
        let method = if previews { PREVIEWS } else { "none" };
        let rest = format!(
            ",\"client_id\":\"{client}\",\"prompt_id\":\"{prompt}\",\"extra_data\":{{\"preview_method\":\"{method}\"}}}}"
        );
        body.extend_from_slice(rest.as_bytes());
        body
    }

    /// Where the inputs of the unread nodes begin, in the order of the text, and whether they have none.
    fn salting(&self) -> Vec<(usize, bool)> {
        let mut read = BTreeSet::new();
        let mut of_nodes = BTreeMap::new();
        for (id, node) in &self.nodes {
            let Some(raw) = node.inputs else { continue };
            let Ok(inputs) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) else { continue };
            let links = inputs.values().filter_map(|value| serde_json::from_str::<(String, f64)>(value.get()).ok());
            read.extend(links.map(|(source, _slot)| source));
            // Both are the same text, one within the other.
            let begin = (raw.get().as_ptr() as usize) - (self.text.as_ptr() as usize);
            of_nodes.insert(id, (begin + 1, inputs.is_empty()));
        }
        let unread = of_nodes.into_iter().filter(|(id, _)| !read.contains(*id));
        let mut places: Vec<_> = unread.map(|(_, place)| place).collect();
        places.sort_unstable();
        places
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn body_of(text: &str, salted: bool) -> Value {
        let prompt = Prompt::read(text).expect("an object");
        let body = prompt.body(PromptId(Uuid::nil()), "client", false, salted);
        serde_json::from_slice(&body).expect("JSON")
    }

    #[test]
    fn the_prompt_goes_out_as_it_came() {
        let text = r#"{"1": {"class_type": "A", "inputs": {"seed": 18446744073709551615, "x": 1.0}}}"#;
        let prompt = Prompt::read(text).expect("an object");
        let body = prompt.body(PromptId(Uuid::nil()), "client", true, false);
        let body = String::from_utf8(body).expect("text");
        assert!(body.starts_with(&format!("{{\"prompt\":{text},\"client_id\":\"client\",")), "{body}");
        let read: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(read["prompt_id"], Uuid::nil().to_string());
        assert_eq!(read["extra_data"], json!({"preview_method": "auto"}));
    }

    #[test]
    fn only_the_nodes_that_nobody_reads_are_salted() {
        let text = r#"{
            "1": {"inputs": {"ckpt_name": "a"}, "class_type": "Loader"},
            "2": {"class_type": "Save", "inputs": { "images": ["1", 0], "prefix": "[\"3\", 0]"}},
            "3": {"class_type": "Lonely", "inputs": {}},
            "4": {"class_type": "No inputs"}, "5": "no node"
        }"#;
        let salt = json!(Uuid::nil().to_string());
        let prompt = &body_of(text, true)["prompt"];
        assert_eq!(prompt["1"]["inputs"], json!({"ckpt_name": "a"}));
        assert_eq!(prompt["2"]["inputs"], json!({"images": ["1", 0], "prefix": "[\"3\", 0]", "cloister_run": salt}));
        assert_eq!(prompt["3"]["inputs"], json!({"cloister_run": salt}));
        assert_eq!(prompt["4"], json!({"class_type": "No inputs"}));
    }

    #[test]
    fn what_is_no_object_is_no_prompt_and_senders_are_known_by_their_class() {
        assert!(Prompt::read("[1]").is_none());
        let text = r#"{"7": {"class_type": "SaveImageWebsocket", "inputs": {}}, "8": {"class_type": "SaveImage"}}"#;
        assert_eq!(Prompt::read(text).expect("an object").senders(), BTreeSet::from(["7".to_owned()]));
    }
}
