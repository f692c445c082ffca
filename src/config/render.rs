//! `cloister config show`: what is in force, and where it came from.

use serde_json::{Map, json};

use super::Loaded;

/// The configuration in force as TOML that loads again (tokens as `***`), or as JSON; with each value's origin if asked.
pub fn render(loaded: &Loaded, with_origin: bool, json: bool) -> String {
    if json {
        as_json(loaded, with_origin)
    } else {
        as_toml(loaded, with_origin)
    }
}

fn as_toml(loaded: &Loaded, with_origin: bool) -> String {
    let mut text = String::new();
    let mut current = "";
    for entry in &loaded.entries {
        let (section, key) = entry.key.split_once('.').unwrap_or(("", entry.key));
        if section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{section}]\n"));
            current = section;
        }
        let line = format!("{key} = {}", entry.value.to_toml());
        if with_origin {
            text.push_str(&format!("{line:<40}  # {}\n", entry.origin));
        } else {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn as_json(loaded: &Loaded, with_origin: bool) -> String {
    let mut root = Map::new();
    for entry in &loaded.entries {
        let (section, key) = entry.key.split_once('.').unwrap_or(("", entry.key));
        let value = match with_origin {
            true => json!({ "value": entry.value.to_json(), "origin": entry.origin.to_string() }),
            false => entry.value.to_json(),
        };
        let section = root.entry(section).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(key.to_owned(), value);
        }
    }
    format!("{:#}\n", serde_json::Value::Object(root))
}
