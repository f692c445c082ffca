//! What is wrong with a configuration: all of it at once, each with its place.

use std::fmt;

use super::origin::Origin;

/// One thing that is wrong. No text of it ever holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where it stands; none when something is missing everywhere.
    place: Option<String>,
    pub(super) text: String,
    /// Faults are told by it: a file's from top to bottom, then the environment's, the flags', and what is missing.
    rank: (u8, usize),
}

impl Fault {
    /// Something wrong with a value that stands at `origin`.
    pub(super) fn at(origin: &Origin, text: impl Into<String>) -> Self {
        let rank = match origin {
            Origin::Default | Origin::Derived { .. } => (0, 0),
            Origin::File { line, .. } => (1, *line),
            Origin::Environment { .. } => (2, 0),
            Origin::Flag { .. } => (3, 0),
        };
        Self {
            place: Some(origin.to_string()),
            text: text.into(),
            rank,
        }
    }

    /// Something wrong with a whole file.
    pub(super) fn in_file(place: impl fmt::Display, text: impl Into<String>) -> Self {
        Self {
            place: Some(place.to_string()),
            text: text.into(),
            rank: (1, 0),
        }
    }

    /// Something that nobody has set.
    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self {
            place: None,
            text: text.into(),
            rank: (4, 0),
        }
    }
}

/// Everything that is wrong with a configuration. Its text has one line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.rank);
        Self(faults)
    }
}

fn lines(faults: &[Fault]) -> String {
    let line = |fault: &Fault| match &fault.place {
        Some(place) => format!("{place}: {}", fault.text),
        None => fault.text.clone(),
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}
