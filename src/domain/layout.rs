//! Where an environment's files lie in its volume.
//!
//! ```text
//!   workspace/<name>                     the modules as they came: what the handler sees at /workspace
//!   workspace/node_modules/<path>        the packages that were installed at set-up
//!   lock/bun.lock, lock/deno.lock        which versions were installed, and their sums
//!   lock/npm.json, lock/modules.json     what was asked for, and the digest of what was installed
//!   remote/<scheme>/<host>/<hash>        Deno only: its modules from elsewhere
//!   emitted/<scheme>/<host>/<hash>.js    and what its compiler made of the TypeScript among them
//!   emitted/file/workspace/<name>.js     Deno only: what its compiler made of the TypeScript among them, at set-up
//! ```
//!
//! Bun runs TypeScript as fast as JavaScript (measured: 40–50 ms for 200 kB of either), so nothing is made for it.

use std::collections::BTreeMap;

use crate::domain::environment::Runtime;

/// The volume's folder that is mounted at `/workspace`.
pub const WORKSPACE: &str = "workspace";
/// The folder in it with the packages of npm.
pub const PACKAGES: &str = "workspace/node_modules";
/// The volume's folder with Deno's emitted JavaScript, in the form of its own cache.
pub const EMITTED: &str = "emitted";

/// The volume's folder with Deno's modules from elsewhere, in the form of its own cache.
pub const REMOTE: &str = "remote";
/// And the one with the lock files of what was installed.
const LOCKS: &str = "lock";
/// Every folder of a volume.
pub const FOLDERS: [&str; 4] = [WORKSPACE, LOCKS, EMITTED, REMOTE];
/// Those that hold what was installed, and nothing else.
pub const INSTALLED: [&str; 5] = [PACKAGES, LOCKS, REMOTE, "emitted/http", "emitted/https"];

/// True for a module that Deno has to turn into JavaScript before it runs. Declarations (`.d.ts`) are never run.
pub fn is_typescript(name: &str) -> bool {
    let is_declaration = [".d.ts", ".d.mts", ".d.cts"].iter().any(|ending| name.ends_with(ending));
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    !is_declaration && ["ts", "tsx", "mts", "cts", "jsx"].contains(&extension)
}

/// True when a set-up has to boot a sandbox to turn modules into JavaScript.
pub fn needs_transpiling<'a>(runtime: Runtime, mut names: impl Iterator<Item = &'a String>) -> bool {
    runtime == Runtime::Deno && names.any(|name| is_typescript(name))
}

/// The volume's files by path: the modules, and the JavaScript that was made of some of them.
pub fn files(modules: BTreeMap<String, String>, javascript: BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let sources = modules.into_iter().map(|(name, text)| (format!("{WORKSPACE}/{name}"), text));
    let emitted = javascript.into_iter().map(|(name, text)| (format!("{EMITTED}/file/{WORKSPACE}/{name}.js"), text));
    sources.chain(emitted).map(|(path, text)| (path, text.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deno_needs_its_typescript_turned_into_javascript() {
        let names = ["main.ts".to_owned(), "data.json".to_owned()];
        assert!(needs_transpiling(Runtime::Deno, names.iter()));
        assert!(!needs_transpiling(Runtime::Bun, names.iter()));
        assert!(!needs_transpiling(Runtime::Deno, names[1..].iter()));
        assert!(!needs_transpiling(Runtime::Deno, ["types.d.ts".to_owned()].iter()));
    }

    #[test]
    fn sources_and_what_was_made_of_them_lie_apart() {
        let modules = BTreeMap::from([("lib/a.ts".to_owned(), "ts".to_owned())]);
        let javascript = BTreeMap::from([("lib/a.ts".to_owned(), "js".to_owned())]);
        let files: Vec<String> = files(modules, javascript).into_keys().collect();
        assert_eq!(files, ["emitted/file/workspace/lib/a.ts.js", "workspace/lib/a.ts"]);
    }
}
