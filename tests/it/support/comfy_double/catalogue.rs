//! The node classes that the double knows, in the shape of `/object_info`; the data is in `catalogue.json`.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static CLASSES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("catalogue.json")).expect("the catalogue is JSON"));

/// One class.
#[derive(Clone, Copy)]
pub struct Class(&'static Value);

/// Name, and `[type or choices, options]`.
pub type Input = (&'static str, &'static Value);

impl Class {
    pub fn named(name: &str) -> Option<Self> {
        CLASSES.get(name).map(Self)
    }

    /// The inputs that must be there, in the class's order.
    pub fn required(self) -> impl Iterator<Item = Input> {
        let order = self.0["input_order"]["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let inputs = &self.0["input"]["required"];
        order.map(move |name| (name, &inputs[name]))
    }

    /// The type of an output slot.
    pub fn output(self, slot: usize) -> Option<&'static str> {
        self.0["output"].get(slot)?.as_str()
    }

    /// Whether it is given the whole prompt, and the graph it was drawn as.
    pub fn sees_the_prompt(self) -> bool {
        self.0["input"]["hidden"]["prompt"] == "PROMPT"
    }

    pub fn is_output(self) -> bool {
        self.0["output_node"] == true
    }
}

/// All classes, as `GET /object_info` gives them.
pub fn all() -> &'static Map<String, Value> {
    &CLASSES
}
