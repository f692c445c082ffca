//! Recorded dialogues, as they lie in `tests/it/fixtures`.

use std::path::PathBuf;

use serde_json::Value;

/// The lines of a dialogue.
pub fn lines(path: &str) -> Vec<String> {
    let whole = folder().join(path);
    let text = std::fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{}: {error}", whole.display()));
    text.lines().map(str::to_owned).collect()
}

/// The dialogues of a folder, by name.
pub fn names(under: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder().join(under)).unwrap();
    let file = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(file).map(|name| format!("{under}/{name}")).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures")
}

/// A line with what stands for what put in.
pub fn parse(line: &str, learned: &[(String, String)]) -> Value {
    serde_json::from_str(&put_in(line, learned)).unwrap()
}

/// Replaces every recorded name by the one of this run.
pub fn put_in(text: &str, learned: &[(String, String)]) -> String {
    learned.iter().fold(text.to_owned(), |text, (recorded, own)| text.replace(recorded, own))
}
