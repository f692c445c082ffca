//! ComfyUI's API prompt: node id → node. It is looked over in one pass, and kept as the text that it is.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::job::OpenError;
use crate::domain::json::{self, Fields, MAX_DEPTH};

/// The most nodes of a prompt, and the most inputs of a node.
const MOST_KEYS: usize = 10_000;
/// The most model files that are noted, and the longest name of one, in bytes: they help to choose an instance.
const MOST_MODELS: usize = 64;
const LONGEST_MODEL: usize = 512;
/// The ends of a model file's name.
const MODEL_FILES: [&str; 10] =
    [".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl"];

/// What is known of a prompt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) nodes: usize,
    /// Model files that it loads, each once, in its own order.
    pub(super) models: Vec<String>,
}

/// Looks over the JSON text of a prompt: an object of objects, of which one at least has a `class_type`. What else is
/// wrong with it, ComfyUI says by node.
///
/// # Errors
/// `NoWorkflow`: it is no prompt.
pub(super) fn outline(text: &[u8]) -> Result<Outline, OpenError> {
    let not_one = OpenError::NoWorkflow { graph_export: false };
    if json::is_deeper_than(text, MAX_DEPTH) {
        return Err(not_one);
    }
    let text = std::str::from_utf8(text).map_err(|_| not_one.clone())?;
    match serde_json::from_str::<Prompt>(text) {
        Ok(prompt) if prompt.has_class => Ok(prompt.outline),
        _ => Err(OpenError::NoWorkflow { graph_export: is_graph(text) }),
    }
}

/// True for the editor's own file: a list of nodes, with where they lie and how they are linked.
fn is_graph(text: &str) -> bool {
    let fields = Fields::of_body(text.as_bytes()).ok();
    fields.and_then(|mut fields| fields.take("nodes")).is_some_and(|nodes| nodes.get().starts_with('['))
}

/// Keys of one object, each once.
#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Keys {
    /// The next key, if there is one.
    fn next<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Option<String>, A::Error> {
        let Some(key) = map.next_key::<String>()? else { return Ok(None) };
        if self.0.len() >= MOST_KEYS || !self.0.insert(key.clone()) {
            return Err(A::Error::custom("a key twice, or too many of them"));
        }
        Ok(Some(key))
    }
}

#[derive(Default)]
struct Prompt {
    outline: Outline,
    has_class: bool,
}

#[derive(Default)]
struct Node {
    has_class: bool,
    models: Vec<String>,
}

#[derive(Default)]
struct Inputs {
    models: Vec<String>,
}

/// Something that is read from an object, and from nothing else.
trait OfMap: Default {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

impl OfMap for Prompt {
    fn read<'de, A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
        let node = map.next_value::<FromMap<Node>>()?.0;
        self.has_class |= node.has_class;
        self.outline.nodes += 1;
        for model in node.models {
            if self.outline.models.len() < MOST_MODELS && !self.outline.models.contains(&model) {
                self.outline.models.push(model);
            }
        }
        Ok(())
    }
}

impl OfMap for Node {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "class_type" => self.has_class = map.next_value::<&RawValue>()?.get().starts_with('"'),
            "inputs" => self.models = map.next_value::<FromMap<Inputs>>()?.0.models,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl OfMap for Inputs {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if !key.ends_with("_name") {
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        let value = map.next_value::<&RawValue>()?;
        let is_model = |name: &str| {
            name.len() <= LONGEST_MODEL && MODEL_FILES.iter().any(|end| name.to_ascii_lowercase().ends_with(end))
        };
        let name = json::string(value).filter(|name| is_model(name));
        self.models.extend(name.map(Into::into));
        Ok(())
    }
}

struct FromMap<T>(T);

impl<'de, T: OfMap> Deserialize<'de> for FromMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(T::default())).map(FromMap)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FromMap::deserialize(deserializer).map(|read| read.0)
    }
}

struct MapVisitor<T>(T);

impl<'de, T: OfMap> Visitor<'de> for MapVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<T, A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = keys.next(&mut map)? {
            self.0.read(&key, &mut map)?;
        }
        Ok(self.0)
    }
}
