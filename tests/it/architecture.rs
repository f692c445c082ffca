//! Holds the house's plan against its sources: who may import whom, where `unsafe` lives, how big a file may grow.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each layer, and what of ours it may import. `boot` may import everything; nobody imports `boot` but `main`.
const LAYERS: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("sealed", &["domain", "sys"]),
    ("ports", &["domain"]),
    ("messages", &["domain"]),
    ("actors", &["messages", "ports", "domain", "telemetry"]),
    ("adapters", &["ports", "domain", "sealed", "sys", "telemetry"]),
    // `sys` tells how a process ended in the core's own words.
    ("sys", &["domain"]),
    ("api", &["messages", "domain", "ports", "telemetry"]),
    ("cli", &["api::dto", "domain", "sealed"]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
];

/// Outside crates that a layer must not touch.
const FORBIDDEN_CRATES: [(&str, &[&str]); 6] = [
    ("domain", &["tokio", "actix", "actix_web", "std::fs", "std::net", "std::process", "std::env", "nix", "libc"]),
    ("sealed", &["tokio", "actix", "actix_web", "std::fs", "std::net", "std::process", "std::env", "nix", "libc"]),
    ("ports", &["actix", "actix_web", "sqlx", "nix", "libc"]),
    ("messages", &["actix_web", "sqlx", "nix", "libc", "std::fs"]),
    ("actors", &["actix_web", "sqlx", "reqwest", "nix", "libc", "std::process", "std::fs"]),
    ("api", &["sqlx", "reqwest", "nix", "libc", "std::process::Command"]),
];

const MOST_LINES: usize = 600;
const MEDIAN_LINES: usize = 150;

struct Source {
    path: PathBuf,
    layer: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let in_tests = self.path.components().any(|part| part.as_os_str().to_string_lossy().ends_with("tests"));
        in_tests || name == "tests" || name.ends_with("_tests") || name == "doubles" || name.contains("contract")
    }

    /// The text without its inline test module and without comments: what the program is built from.
    fn program(&self) -> String {
        let until_tests = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = until_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(paths.len() > 40, "the sources were not found below {}", root.display());
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().to_path_buf();
        let layer = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        Source { path: relative, layer, text }
    };
    paths.into_iter().map(read).collect()
}

/// Every path after `crate::`, to its second segment; groups in braces are looked into.
fn imports(program: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in program.match_indices("crate::") {
        let rest = &program[start + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let names = group.split('}').next().unwrap_or_default();
            found.extend(names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let path: Vec<&str> = rest[..end].split("::").filter(|part| !part.is_empty()).take(2).collect();
        found.insert(path.join("::"));
    }
    found
}

#[test]
fn imports_point_down_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == source.layer) else { continue };
        for import in imports(&source.program()) {
            let own = import.split("::").next() == Some(source.layer.as_str());
            let may = allowed.iter().any(|layer| import == *layer || import.starts_with(&format!("{layer}::")));
            if !own && !may {
                wrong.push(format!("{} imports crate::{import}", source.path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn adapters_do_not_import_one_another() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.layer == "adapters" && !source.is_test()) {
        let own = source.path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
        let own = own.trim_end_matches(".rs");
        for import in imports(&source.program()) {
            if let Some(other) = import.strip_prefix("adapters::")
                && other != own
            {
                wrong.push(format!("{} imports adapters::{other}", source.path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_core_touches_no_outside_world() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some((_, forbidden)) = FORBIDDEN_CRATES.iter().find(|(layer, _)| *layer == source.layer) else { continue };
        let program = source.program();
        for name in *forbidden {
            let used = program.match_indices(&format!("{name}::")).any(|(at, _)| {
                !program[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            });
            if used {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    let outside: Vec<String> = sources()
        .iter()
        .filter(|source| source.layer != "sys" && source.program().contains("unsafe "))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_eq!(outside, Vec::<String>::new());
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn files_stay_small() {
    let mut sizes: Vec<(usize, String)> =
        sources().iter().map(|source| (source.text.lines().count(), source.path.display().to_string())).collect();
    sizes.sort();
    let large: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > MOST_LINES).collect();
    assert!(large.is_empty(), "files over {MOST_LINES} lines: {large:?}");
    let median = sizes[sizes.len() / 2].0;
    assert!(median <= MEDIAN_LINES, "the median file has {median} lines");
}
