//! Which names a module may have: relative paths that mean the same on every file system and steer no tool.

use std::collections::BTreeSet;

/// The longest module name, in bytes.
pub const MAX_BYTES: usize = 255;
/// The most path segments in a module name.
pub const MAX_DEPTH: usize = 16;

/// File names that a runtime or an installer would read as its own configuration.
const RESERVED_FILES: [&str; 16] = [
    "deno.json",
    "deno.jsonc",
    "deno.lock",
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "bun.lock",
    "bun.lockb",
    "bunfig.toml",
    "tsconfig.json",
    "jsconfig.json",
    "import_map.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "vendor",
];

/// Why a module's name is refused. The name itself is part of the text, escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleNameError {
    #[error("module name {0:?} is longer than {MAX_BYTES} bytes")]
    TooLong(String),
    #[error("module name {0:?} has more than {MAX_DEPTH} path segments")]
    TooDeep(String),
    #[error(
        "module name {0:?} may hold letters, digits and . _ - @ + in segments divided by /, and no segment may be empty or start with . or -"
    )]
    Character(String),
    #[error("module name {0:?} is reserved: it would configure the runtime or an installer")]
    Reserved(String),
    #[error("module names {0:?} and {1:?} differ in case only")]
    CaseTwins(String, String),
    #[error("module name {0:?} is also the folder of {1:?}")]
    FileIsFolder(String, String),
}

/// Checks every name of an environment, alone and against each other.
///
/// # Errors
/// The first name that is refused, with the reason.
pub fn validate_all<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), ModuleNameError> {
    let mut folded = std::collections::BTreeMap::new();
    let mut folders = BTreeSet::new();
    let names: Vec<&str> = names.collect();
    for name in &names {
        validate(name)?;
        if let Some(twin) = folded.insert(name.to_ascii_lowercase(), *name) {
            return Err(ModuleNameError::CaseTwins(twin.to_owned(), (*name).to_owned()));
        }
        folders.extend(name.match_indices('/').map(|(end, _)| (name[..end].to_ascii_lowercase(), *name)));
    }
    for (folder, within) in folders {
        if let Some(file) = folded.get(&folder) {
            return Err(ModuleNameError::FileIsFolder((*file).to_owned(), within.to_owned()));
        }
    }
    Ok(())
}

fn validate(name: &str) -> Result<(), ModuleNameError> {
    if name.len() > MAX_BYTES {
        let shown: String = name.chars().take(40).collect();
        return Err(ModuleNameError::TooLong(format!("{shown}…")));
    }
    let segments: Vec<&str> = name.split('/').collect();
    if segments.len() > MAX_DEPTH {
        return Err(ModuleNameError::TooDeep(name.to_owned()));
    }
    if !segments.iter().all(|segment| is_plain(segment)) {
        return Err(ModuleNameError::Character(name.to_owned()));
    }
    if segments.iter().any(|segment| is_reserved(segment)) {
        return Err(ModuleNameError::Reserved(name.to_owned()));
    }
    Ok(())
}

fn is_plain(segment: &str) -> bool {
    let first_is_safe = segment.bytes().next().is_some_and(|byte| byte != b'.' && byte != b'-');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
    first_is_safe && segment.bytes().all(allowed)
}

fn is_reserved(segment: &str) -> bool {
    let lower = segment.to_ascii_lowercase();
    lower == "node_modules" || RESERVED_FILES.contains(&lower.as_str()) || lower.starts_with("tsconfig.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(name: &str) -> Result<(), ModuleNameError> {
        validate_all(std::iter::once(name))
    }

    #[test]
    fn ordinary_names_pass() {
        for name in ["main.ts", "lib/util.mjs", "a/b/c.tsx", "data.json", "@scope/x+1_y-2.js"] {
            assert_eq!(one(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_climb_hide_or_steer_are_refused() {
        let deep = vec!["d"; 50].join("/");
        let long = "x".repeat(300);
        let bad = [
            "",
            "../x",
            "/abs",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "..",
            "nul\0",
            "new\nline",
            "-rf",
            "with space",
            "\u{202e}gnp.ts",
            "e\u{301}.ts",
            "é.ts",
            "node_modules/x",
            "deno.json",
            "sub/package.json",
            ".npmrc",
            "bunfig.toml",
            ".env",
            "DENO.JSON",
            "tsconfig.base.json",
            "a\\b",
            "%2e%2e",
            deep.as_str(),
            long.as_str(),
        ];
        for name in bad {
            assert!(one(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn twins_and_files_that_are_folders_are_refused() {
        assert!(matches!(validate_all(["A.ts", "a.ts"].into_iter()), Err(ModuleNameError::CaseTwins(..))));
        assert!(matches!(validate_all(["lib", "lib/a.ts"].into_iter()), Err(ModuleNameError::FileIsFolder(..))));
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_inside_its_folder(name in ".{0,40}") {
            if one(&name).is_ok() {
                let path = std::path::Path::new(&name);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert!(!name.starts_with('-') && !name.contains('\0'));
            }
        }
    }
}
