//! Files on this machine, made into an environment's modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The most files that are read; the daemon's own limit is below it.
const MAX_FILES: usize = 5000;
/// The most bytes that are read: what a set-up request can hold.
const MAX_BYTES: usize = 10 << 20;
/// Names that are tried for the main module when none is given, the first one first.
const USUAL_MAINS: [&str; 8] = [
    "main.ts",
    "main.js",
    "index.ts",
    "index.js",
    "handler.ts",
    "handler.js",
    "mod.ts",
    "mod.js",
];

/// Why files cannot be made into modules.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} is hidden: such files often hold secrets, so move it out of the directory first")]
    Hidden(PathBuf),
    #[error("{0} is not text: modules are UTF-8 source files without NUL, so move it out of the directory first")]
    Binary(PathBuf),
    #[error("{0} is neither a file nor a directory: links and devices are not followed")]
    Special(PathBuf),
    #[error("the file name {0:?} is not UTF-8")]
    Name(PathBuf),
    #[error("{0} holds more than {MAX_FILES} files")]
    TooMany(PathBuf),
    #[error("{0} holds more than {MAX_BYTES} bytes, the most that a set-up can carry")]
    TooLarge(PathBuf),
    #[error("{0} holds no files")]
    Empty(PathBuf),
    #[error("which module is the main one? none is named {}: say it with --main", USUAL_MAINS.join(", "))]
    NoMain,
    #[error("--main {0:?} is not among the modules: {1}")]
    OtherMain(String, String),
}

/// Sources by module name, and which of them is called.
#[derive(Debug)]
pub struct Modules {
    pub main: String,
    pub sources: BTreeMap<String, String>,
}

/// Reads a file, or all files below a directory under names relative to it.
pub fn read(path: &Path, main: Option<String>) -> Result<Modules, ModulesError> {
    let mut found = Found {
        root: path,
        sources: BTreeMap::new(),
        bytes: 0,
    };
    // The path itself may be a link: the caller has named it.
    if fs::metadata(path).map_err(|source| unread(path, source))?.is_dir() {
        found.add_folder(path, "")?;
    } else {
        found.add_file(path, name_of(path)?)?;
    }
    let only = if found.sources.len() == 1 {
        found.sources.keys().next().cloned()
    } else {
        None
    };
    let main = match main.or(only) {
        Some(main) if found.sources.contains_key(&main) => main,
        Some(main) => return Err(ModulesError::OtherMain(main, shown(found.sources.keys()))),
        None if found.sources.is_empty() => return Err(ModulesError::Empty(path.to_owned())),
        None => usual_main(&found.sources)?,
    };
    Ok(Modules {
        main,
        sources: found.sources,
    })
}

fn usual_main(sources: &BTreeMap<String, String>) -> Result<String, ModulesError> {
    let usual = USUAL_MAINS.into_iter().find(|name| sources.contains_key(*name));
    usual.map(str::to_owned).ok_or(ModulesError::NoMain)
}

fn shown<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    match names.as_slice() {
        [] => "there are none".to_owned(),
        few if few.len() <= 8 => few.join(", "),
        many => format!("{} and {} more", many[..8].join(", "), many.len() - 8),
    }
}

struct Found<'a> {
    root: &'a Path,
    sources: BTreeMap<String, String>,
    bytes: usize,
}

impl Found<'_> {
    fn add_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), ModulesError> {
        for entry in fs::read_dir(folder).map_err(|source| unread(folder, source))? {
            let entry = entry.map_err(|source| unread(folder, source))?;
            let path = entry.path();
            let name = name_of(&path)?;
            if name.starts_with('.') {
                return Err(ModulesError::Hidden(path));
            }
            let kind = entry.file_type().map_err(|source| unread(&path, source))?;
            let module = format!("{prefix}{name}");
            if kind.is_dir() {
                self.add_folder(&path, &format!("{module}/"))?;
            } else if kind.is_file() {
                self.add_file(&path, module)?;
            } else {
                return Err(ModulesError::Special(path));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, module: String) -> Result<(), ModulesError> {
        if self.sources.len() >= MAX_FILES {
            return Err(ModulesError::TooMany(self.root.to_owned()));
        }
        let length = fs::metadata(path).map_err(|source| unread(path, source))?.len();
        self.bytes = self.bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if self.bytes > MAX_BYTES {
            return Err(ModulesError::TooLarge(self.root.to_owned()));
        }
        let bytes = fs::read(path).map_err(|source| unread(path, source))?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => self.sources.insert(module, text),
            _ => return Err(ModulesError::Binary(path.to_owned())),
        };
        Ok(())
    }
}

fn name_of(path: &Path) -> Result<String, ModulesError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| ModulesError::Name(path.to_owned()))
}

fn unread(path: &Path, source: std::io::Error) -> ModulesError {
    ModulesError::Read {
        path: path.to_owned(),
        source,
    }
}
