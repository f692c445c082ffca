//! Where an environment's files lie in its volume.

use std::collections::BTreeMap;

use crate::domain::environment::Runtime;

/// True for a module that no engine can run as it is.
pub fn is_typescript(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["ts", "tsx", "mts", "cts", "jsx"].contains(&extension)
}

/// True when a set-up has to boot a sandbox to turn modules into JavaScript.
pub fn needs_transpiling<'a>(_runtime: Runtime, mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|name| is_typescript(name))
}

/// The volume's files by path.
pub fn files(
    _runtime: Runtime,
    modules: BTreeMap<String, String>,
    mut javascript: BTreeMap<String, String>,
) -> BTreeMap<String, Vec<u8>> {
    let file = |(name, source): (String, String)| {
        let text = javascript.remove(&name).unwrap_or(source);
        (format!("workspace/{name}"), text.into_bytes())
    };
    modules.into_iter().map(file).collect()
}
