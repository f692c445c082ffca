//! From what nodes reported to the outputs themselves. What counts is a file's name, not the key it was reported under.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use super::failure::plain;
use super::kind;
use super::room::{Room, Shelf};
use crate::domain::job::{ComfyFailure, FailureCode, Output, OutputKind};
use crate::domain::secret::Secret;

/// Keys under which nodes show plain texts.
const TEXTS: [&str; 4] = ["text", "texts", "string", "strings"];

/// What a node reported.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    File { node: String, shelf: Shelf, path: String, animated: bool },
    Text { node: String, text: String },
}

/// All that was reported, each file once, in the order of its coming.
pub(super) fn items(outputs: &[(String, Value)]) -> Vec<Item> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for (node, output) in outputs {
        let Some(by_key) = output.as_object() else { continue };
        let animated = by_key.get("animated").is_some_and(|says| says.to_string().contains("true"));
        for (key, values) in by_key {
            let values = match values {
                Value::Array(values) => values.as_slice(),
                alone => std::slice::from_ref(alone),
            };
            for value in values {
                let item = match value {
                    Value::String(text) if TEXTS.contains(&key.as_str()) => {
                        Some(Item::Text { node: node.clone(), text: text.clone() })
                    }
                    value => file(node, value, animated),
                };
                let Some(item) = item else { continue };
                if let Item::File { shelf, path, .. } = &item
                    && !known.insert((*shelf, path.clone()))
                {
                    continue;
                }
                found.push(item);
            }
        }
    }
    found
}

fn file(node: &str, value: &Value, animated: bool) -> Option<Item> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let name = text("filename").filter(|name| !name.is_empty())?;
    let shelf = match text("type").unwrap_or("output") {
        "temp" => Shelf::Temporary,
        "input" => Shelf::Input,
        _ => Shelf::Output,
    };
    let path = match text("subfolder").unwrap_or_default().trim_matches('/') {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    };
    Some(Item::File { node: node.to_owned(), shelf, path, animated })
}

/// Reads what was reported, at most `most` bytes in all. What cannot be had is told beside what could.
pub(super) fn collect(
    room: &Room,
    items: Vec<Item>,
    pictures: Vec<(String, Secret)>,
    most: u64,
) -> (Vec<Output>, Option<ComfyFailure>) {
    let mut basket = Basket { outputs: Vec::new(), most, left: most, failure: None };
    let mut texts = 0_usize;
    for item in items {
        match item {
            Item::File { node, shelf, path, animated } => match room.take(shelf, &path, basket.left) {
                Ok(bytes) => {
                    let (kind, mime) = kind::of_file(&path, &bytes, animated);
                    basket.put(Output { node, filename: path, kind, mime, data: Secret::new(bytes) });
                }
                Err(error) => basket.lacks(&error),
            },
            Item::Text { node, text } => {
                texts += 1;
                let filename = format!("text_{texts:05}.txt");
                let (kind, mime, data) = (OutputKind::Text, "text/plain", Secret::from(text));
                basket.put(Output { node, filename, kind, mime, data });
            }
        }
    }
    for (number, (node, data)) in (1_usize..).zip(pictures) {
        let mime = kind::of_picture(data.bytes());
        let extension = mime.rsplit_once('/').map_or("bin", |(_, name)| if name == "jpeg" { "jpg" } else { name });
        let filename = format!("websocket_{number:05}.{extension}");
        basket.put(Output { node, filename, kind: OutputKind::Image, mime, data });
    }
    (basket.outputs, basket.failure)
}

struct Basket {
    outputs: Vec<Output>,
    most: u64,
    left: u64,
    failure: Option<ComfyFailure>,
}

impl Basket {
    fn put(&mut self, output: Output) {
        match self.left.checked_sub(output.data.len() as u64) {
            Some(left) => {
                self.left = left;
                self.outputs.push(output);
            }
            None => self.lacks(&io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn lacks(&mut self, error: &io::Error) {
        let most = self.most;
        let summary = match error.kind() {
            io::ErrorKind::FileTooLarge => format!("the outputs are larger than the limit of {most} bytes"),
            io::ErrorKind::NotFound => {
                "an output that ComfyUI reported is not there: it was removed, or kept from an earlier run".to_owned()
            }
            io::ErrorKind::InvalidInput => "an output that ComfyUI reported is no plain file".to_owned(),
            _ => "an output that ComfyUI reported cannot be read".to_owned(),
        };
        self.failure.get_or_insert_with(|| plain(FailureCode::Unsendable, summary));
    }
}
