//! The configuration: defaults < file < environment < flags, with every error told at once and with its place.
//!
//! ```text
//!   config/default.toml ─┐
//!   file (TOML)         ─┤ layers: values by dotted key, each with its origin
//!   environment         ─┤
//!   flags               ─┴─► Reader ◄─── sections (each asks for its keys, by rule) ──► Config
//!                              └──────── what nobody asked for is unknown
//! ```
//!
//! The sections are the only list of keys in the code. That `default.toml` has the same ones is a test.

mod clashes;
mod environment;
mod error;
mod file;
mod layer;
mod origin;
mod reader;
mod render;
mod sections;
mod span;
mod suggest;
mod value;

use std::path::PathBuf;

pub use environment::variable;
pub use error::ConfigErrors;
pub use layer::FlagValue;
pub use render::render;
pub use sections::{BucketAccess, Calls, Comfy, Config, Daemon, Jobs, Log, LogFormat, Runpod, Sandbox, Server};

use error::Fault;
use layer::Layer;
use reader::{Entry, Reader};

/// Read when it exists and no other file is named.
const STANDARD_FILE: &str = "/etc/cloister/cloister.toml";

/// Where settings are looked for.
pub struct Sources {
    /// `--config`; else `CLOISTER_CONFIG` names the file; else [`Sources::standard_file`] is read if it exists.
    pub file: Option<PathBuf>,
    pub standard_file: PathBuf,
    /// Environment variables, by name. May hold more than is of interest.
    pub environment: Vec<(String, String)>,
    pub flags: Vec<FlagValue>,
    /// True when a door will be opened, so that a bearer token must be there. Commands that only ask a running daemon
    /// do without.
    pub serving: bool,
}

impl Sources {
    /// This process's environment and the standard file, with what the command line gave.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<FlagValue>, serving: bool) -> Self {
        Self { file, standard_file: STANDARD_FILE.into(), environment: environment::of_process(), flags, serving }
    }

    /// The file to read, if any.
    fn file(&self) -> Option<PathBuf> {
        let named = environment::value(&self.environment, environment::FILE).map(PathBuf::from);
        let standard = || self.standard_file.exists().then(|| self.standard_file.clone());
        self.file.clone().or(named).or_else(standard)
    }
}

/// A configuration that has no error in it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What works, and should be known: to be logged at start.
    pub warnings: Vec<String>,
    entries: Vec<Entry>,
}

impl Loaded {
    /// Where the value of a dotted key came from; none when there is no such key.
    #[cfg(test)]
    fn origin(&self, key: &str) -> Option<&origin::Origin> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin)
    }
}

/// Reads all sources, once.
///
/// # Errors
/// Everything that is wrong with any of them: one line each, with file and line, variable or flag.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let file = sources.file();
    let mut faults: Vec<Fault> = Vec::new();
    let mut layers: Vec<Layer> = Vec::new();
    let from_file = file.as_deref().map(file::read);
    // In a file that cannot be read there may be a token.
    let needs_token = sources.serving && !matches!(from_file, Some(Err(_)));
    for layer in std::iter::once(layer::defaults()).chain(from_file) {
        match layer {
            Ok(layer) => layers.push(layer),
            Err(fault) => faults.push(fault),
        }
    }
    let (from_environment, wrong) = environment::layer(&sources.environment);
    faults.extend(wrong);
    layers.extend([from_environment, layer::flags(&sources.flags)]);

    let mut reader = Reader::new(&layers);
    let mut config = Config::read(&mut reader);
    clashes::settle(&mut config, &mut reader, needs_token);
    reader.refuse_unknown();
    faults.append(&mut reader.faults);
    if !faults.is_empty() {
        return Err(ConfigErrors::new(faults));
    }
    let warnings = clashes::warnings(&config, &reader);
    Ok(Loaded { config, file, warnings, entries: reader.entries })
}

#[cfg(test)]
mod tests;
