//! An error with its causes, as one log value.

use std::error::Error;
use std::fmt;

use slog::{Key, Record, Serializer, Value};

/// An error and its causes: `a: b: c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorChain(String);

/// Tells an error with its sources, from the outside in. A source whose text the error before it already holds is left
/// out, as some crates repeat theirs.
///
/// ```ignore
/// error!(logger, "store.failed"; "error" => error_chain(&error));
/// ```
pub fn error_chain(error: &dyn Error) -> ErrorChain {
    let mut last = error.to_string();
    let mut chain = last.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !text.is_empty() && !last.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
            last = text;
        }
        source = cause.source();
    }
    ErrorChain(chain)
}

/// The innermost cause of an error: of a request's, without the address that the outer ones quote.
pub fn innermost(error: &dyn Error) -> Option<&dyn Error> {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    cause
}

/// Why a request failed, without its address, which may be signed.
pub fn transport_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    innermost(error).map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

impl fmt::Display for ErrorChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for ErrorChain {
    fn serialize(&self, _record: &Record<'_>, key: Key, serializer: &mut dyn Serializer) -> slog::Result {
        serializer.emit_str(key, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> String {
        let link = |source, text: &&'static str| Some(Box::new(Link { text, source }));
        let first: Option<Box<Link>> = texts.iter().rev().fold(None, link);
        error_chain(&*first.expect("a text")).to_string()
    }

    #[test]
    fn causes_follow_and_are_not_repeated() {
        assert_eq!(chain(&["the store cannot be opened"]), "the store cannot be opened");
        assert_eq!(chain(&["a", "b", "c"]), "a: b: c");
        let repeated = ["the store failed", "database error: (code: 13) full", "(code: 13) full", "no space"];
        assert_eq!(chain(&repeated), "the store failed: database error: (code: 13) full: no space");
    }
}
