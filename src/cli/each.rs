//! Commands that end several things.

use std::fmt::Display;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::cli::streams::Streams;

/// How a command tells of one thing.
pub struct Words {
    /// What identifies it, in JSON: `id`.
    pub key: &'static str,
    /// What became of it, in JSON and before it in a line: `deleted`.
    pub done: &'static str,
    /// What follows it in that line.
    pub but: &'static str,
    /// Whether it stands before its refusal: one that names it needs no more.
    pub named: bool,
}

/// Does it to each, and goes on after one that is refused.
///
/// # Errors
/// What is no refusal: without a connection or a token the next one fares no better.
pub async fn each<T: Display + Serialize>(
    things: &[T],
    words: &Words,
    json: bool,
    streams: &mut Streams<'_>,
    mut act: impl AsyncFnMut(&T) -> Result<()>,
) -> Result<u8> {
    let Words { key, done, but, named } = words;
    let mut code = exit::OK;
    let mut told = Vec::new();
    for thing in things {
        let failure = match act(thing).await {
            Ok(()) => None,
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(ClientError::Refused { message, .. }) => Some(message.clone()),
                _ => return Err(error),
            },
        };
        match &failure {
            None if !json => writeln!(streams.out, "{done} {thing}{but}")?,
            Some(message) if !json && *named => writeln!(streams.err, "cloister: {thing}: {message}")?,
            Some(message) if !json => writeln!(streams.err, "cloister: {message}")?,
            _ => {}
        }
        if failure.is_some() {
            code = exit::FAILED;
        }
        told.push(json!({ *key: thing, *done: failure.is_none(), "error": failure }));
    }
    if json {
        writeln!(streams.out, "{}", Value::from(told))?;
    }
    Ok(code)
}
