//! Prompts that the double and, with the recorded test nodes, the real ComfyUI run.

use std::path::Path;

use serde_json::{Value, json};

/// One of `fixtures/comfyui/workflows`, by its name without the ending.
pub fn fixture(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/comfyui/workflows");
    let path = folder.join(name).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// One picture of 64 × 64.
pub fn save_one() -> Value {
    fixture("01_save_one")
}

/// One picture after so many steps, each of which is told, can be interrupted, and takes so long.
pub fn steps(count: u32, seconds_each: f64) -> Value {
    let mut workflow = fixture("21_test_steps");
    workflow["2"]["inputs"]["steps"] = json!(count);
    workflow["2"]["inputs"]["delay"] = json!(seconds_each);
    workflow["2"]["inputs"]["preview"] = json!("none");
    workflow
}

/// One picture after a node that hears nothing for so long.
pub fn block(seconds: f64, mode: &str) -> Value {
    let mut workflow = fixture("22_test_block");
    workflow["2"]["inputs"]["seconds"] = json!(seconds);
    workflow["2"]["inputs"]["mode"] = json!(mode);
    workflow
}

/// A file of so many bytes, by the double's own node.
pub fn file_of(bytes: u64) -> Value {
    let inputs = json!({
        "key": "files", "filename": "large.bin", "subfolder": "", "type": "output", "text": "", "bytes": bytes,
    });
    json!({"1": {"class_type": "DoubleSave", "inputs": inputs}})
}
