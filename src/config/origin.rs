//! Where a setting came from.

use std::fmt;
use std::path::PathBuf;

/// The place that decided a value, as a person would look it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The embedded `config/default.toml`.
    Default,
    /// Not set anywhere: it follows from another key or from the host.
    Derived { from: &'static str },
    /// A line of a file, counted from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Environment { name: String },
    /// An option of the command line, with its dashes.
    Flag { name: String },
}

impl Origin {
    /// True when nobody chose the value.
    pub fn is_default(&self) -> bool {
        matches!(self, Origin::Default | Origin::Derived { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Derived { from } => write!(f, "default, from {from}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.to_string_lossy().escape_debug()),
            Origin::Environment { name } => write!(f, "environment variable {name}"),
            Origin::Flag { name } => write!(f, "flag {name}"),
        }
    }
}
