//! `cloister env execute --follow`: what a call says is printed while it runs.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::dto::{DroppedEvent, ErrorBody, ExecutionBody, LogBody, OutputEvent};
use crate::cli::client::{Ask, Client, ClientError};
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::domain::execution::Outcome;

/// Calls, prints each event as it comes, and the result last. With `json`, a line for each event.
pub async fn run(ask: Ask<'_>, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let mut code = None;
    let told = client.follow(ask, |name, data| {
        if json {
            let data: &RawValue = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            writeln!(streams.out, "{}", serde_json::to_string(&Line { event: name, data })?)?;
            streams.out.flush()?;
        }
        if let Some(ended) = hear(name, data, json, streams)? {
            code = Some(ended);
        }
        Ok(())
    });
    told.await?;
    code.context("the daemon ended the stream before the call was over: it is stopping, or the connection was cut")
}

/// An event as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    data: &'a RawValue,
}

const NOT_UNDERSTOOD: &str = "an event of the daemon is not understood: it is of another version";

/// Prints an event, unless all are printed as JSON. Some, with the exit code, for the last one.
fn hear(name: &str, data: &str, json: bool, streams: &mut Streams<'_>) -> anyhow::Result<Option<u8>> {
    match name {
        "log" if !json => {
            let log: LogBody = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            writeln!(streams.err, "[{}] {}", printable(&log.level), printable(&log.message))?;
        }
        "stdout" | "stderr" if !json => {
            let output: OutputEvent = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            write!(streams.err, "{}", printable(&output.text))?;
            streams.err.flush()?;
        }
        "dropped" if !json => {
            let dropped: DroppedEvent = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            writeln!(streams.err, "[{} events were dropped here: this reader was too slow]", dropped.events)?;
        }
        "result" => {
            let call: ExecutionBody = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            if !json {
                conclude(&call, streams)?;
            }
            return Ok(Some(if call.exit_code == 0 { exit::OK } else { exit::FAILED }));
        }
        "error" => {
            let ErrorBody { error: message, code, .. } = serde_json::from_str(data).context(NOT_UNDERSTOOD)?;
            return Err(ClientError::Refused { message: printable(&message), code }.into());
        }
        // Of a later version.
        _ => {}
    }
    Ok(None)
}

/// The result; logs and output have been printed already.
fn conclude(call: &ExecutionBody, streams: &mut Streams<'_>) -> anyhow::Result<()> {
    if let Some(warning) = &call.warning {
        writeln!(streams.err, "warning: {}", printable(warning))?;
    }
    if let Some(result) = &call.result {
        let text = if streams.terminal { printable(result.get()) } else { result.get().to_owned() };
        writeln!(streams.out, "{text}")?;
    }
    if call.outcome != Outcome::Ok {
        if let Some(error) = &call.error {
            writeln!(streams.err, "{}: {}", printable(&error.name), printable(&error.message))?;
        }
        let phase = call.phase.map(|phase| format!(" in {phase:?}").to_lowercase()).unwrap_or_default();
        writeln!(streams.err, "outcome: {}{phase} after {} ms", call.outcome.as_str(), call.duration_ms)?;
    }
    Ok(())
}
