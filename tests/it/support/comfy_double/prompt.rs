//! A prompt as it was posted, its order kept: ComfyUI runs nodes in the order in which it meets them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A JSON object whose order is kept.
#[derive(Clone)]
pub struct Pairs<T>(pub Vec<(String, T)>);

impl<T> Pairs<T> {
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Pairs<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

/// One node; both fields may be missing, which validation finds.
#[derive(Clone, serde::Deserialize)]
pub struct Node {
    pub class_type: Option<String>,
    pub inputs: Option<Pairs<Value>>,
}

impl Node {
    pub fn class(&self) -> &str {
        self.class_type.as_deref().unwrap_or_default()
    }

    /// The inputs that are links: name, node, slot.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let inputs = self.inputs.iter().flat_map(Pairs::iter);
        inputs.filter_map(|(name, value)| link(value).map(|(node, slot)| (name, node, slot)))
    }
}

/// Node id → node.
pub type Prompt = Pairs<Node>;

/// `["node", slot]`, if it is a link.
pub fn link(value: &Value) -> Option<(&str, usize)> {
    match value.as_array()?.as_slice() {
        [Value::String(node), slot] => Some((node, slot.as_u64()? as usize)),
        _ => None,
    }
}
