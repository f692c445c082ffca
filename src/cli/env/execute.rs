//! `cloister env execute`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::value::RawValue;

use crate::api::dto::{ExecuteBody, ExecutionBody, LimitsBody};
use crate::cli::client::{Ask, Client};
use crate::cli::env::{files, follow};
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;
use crate::domain::execution::FilesForm;
use crate::domain::id::EnvironmentId;
use crate::domain::webhook::Webhook;

/// What to call, and with what.
#[derive(Debug, Args)]
pub struct ExecuteFlags {
    /// The environment's id
    #[arg(value_name = "ID")]
    id: EnvironmentId,
    /// The event's data; - reads it from stdin [default: null]
    #[arg(long, value_name = "JSON", conflicts_with = "data_file")]
    data: Option<String>,
    /// File that holds the event's data; - is stdin
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// A variable for the handler; a name alone takes the value from here, unseen by `ps`; repeatable
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Time limit, import included [default: the daemon's]
    #[arg(long, value_name = "N")]
    timeout_ms: Option<u64>,
    /// Memory limit in MiB [default: the daemon's]
    #[arg(long, value_name = "N")]
    memory_mb: Option<u64>,
    /// Print logs and output while the call runs
    #[arg(long)]
    follow: bool,
    /// Write what the handler leaves in /tmp/out into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["later", "follow"])]
    files: Option<PathBuf>,
    /// Write it into this file, as a tar archive
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "later", "follow"])]
    files_archive: Option<PathBuf>,
    /// Do not wait for the answer: print the call's id, for `cloister executions`
    #[arg(long = "async", conflicts_with = "follow")]
    later: bool,
    /// Address that is told when the call has ended
    #[arg(long, value_name = "URL", requires = "later")]
    webhook: Option<String>,
    /// File that holds the secret to sign with: whsec_ and the base64 of 24 to 64 bytes
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_secret_file: Option<PathBuf>,
    /// Key under which the call is made once, however often this is asked
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Calls the handler, prints its result, and says on stderr what else there is to say.
pub async fn run(
    flags: ExecuteFlags,
    json: bool,
    client: &Client,
    variables: &Variables,
    streams: &mut Streams<'_>,
) -> anyhow::Result<u8> {
    let limits = LimitsBody { timeout_ms: flags.timeout_ms, memory_mb: flags.memory_mb };
    let body = ExecuteBody {
        data: data(&flags, streams)?,
        env: env(&flags.env, variables)?,
        limits: (limits != LimitsBody::default()).then_some(limits),
        files: form(&flags),
        webhook: webhook(&flags)?,
    };
    if let Some(folder) = &flags.files {
        files::make(folder)?;
    }
    if let Some(file) = &flags.files_archive {
        files::look_at(file)?;
    }
    let ask = Ask { id: flags.id, body: &body, key: flags.idempotency_key.as_deref() };
    if flags.follow {
        return follow::run(ask, json, client, streams).await;
    }
    if flags.later {
        let accepted = client.execute_later(ask).await?;
        let shown = if json { accepted.text } else { accepted.body.id.to_string() };
        writeln!(streams.out, "{shown}")?;
        return Ok(exit::OK);
    }
    let answer = client.execute(ask).await?;
    // First what came back: the files may find no room.
    if json {
        writeln!(streams.out, "{}", answer.text)?;
    } else {
        print_call(&answer.body, streams)?;
    }
    if let Some(folder) = &flags.files {
        files::write(folder, &answer.body.files)?;
    }
    if let (Some(file), Some(archive)) = (&flags.files_archive, &answer.body.files_archive) {
        files::write_archive(file, archive)?;
    }
    Ok(if answer.body.exit_code == 0 { exit::OK } else { exit::FAILED })
}

fn form(flags: &ExecuteFlags) -> FilesForm {
    match (&flags.files, &flags.files_archive) {
        (Some(_), _) => FilesForm::List,
        (None, Some(_)) => FilesForm::Tar,
        (None, None) => FilesForm::None,
    }
}

fn data(flags: &ExecuteFlags, streams: &mut Streams<'_>) -> anyhow::Result<Option<Box<RawValue>>> {
    let text = match (flags.data.as_deref(), flags.data_file.as_deref()) {
        (None, None) => return Ok(None),
        (Some("-"), _) => from_stdin(streams)?,
        (Some(text), _) => text.to_owned(),
        (None, Some(path)) if path == Path::new("-") => from_stdin(streams)?,
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the data file {}", path.display()))?
        }
    };
    let text = text.trim().to_owned();
    RawValue::from_string(text).map(Some).context("the data is not JSON: quote strings, as in --data '\"text\"'")
}

fn webhook(flags: &ExecuteFlags) -> anyhow::Result<Option<Webhook>> {
    let Some(url) = flags.webhook.clone() else { return Ok(None) };
    let secret = match &flags.webhook_secret_file {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read the secret file {}", path.display()))?.trim().to_owned())
        }
    };
    Ok(Some(Webhook { url, secret }))
}

fn from_stdin(streams: &mut Streams<'_>) -> anyhow::Result<String> {
    let mut text = String::new();
    streams.input.read_to_string(&mut text).context("cannot read the data from stdin")?;
    Ok(text)
}

fn env(pairs: &[String], variables: &Variables) -> anyhow::Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for pair in pairs {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match variables.get(pair) {
                Some(value) => (pair.as_str(), value),
                None => bail!("--env {pair}: there is no such variable here; give it a value with {pair}=VALUE"),
            },
        };
        env.insert(name.to_owned(), value);
    }
    Ok(env)
}

/// Prints an answer: the result to stdout, all else to stderr.
pub fn print_call(call: &ExecutionBody, streams: &mut Streams<'_>) -> anyhow::Result<()> {
    for log in &call.logs {
        writeln!(streams.err, "[{}] {}", printable(&log.level), printable(&log.message))?;
    }
    if !call.stderr.is_empty() {
        writeln!(streams.err, "{}", printable(call.stderr.trim_end_matches('\n')))?;
    }
    if let Some(warning) = &call.warning {
        writeln!(streams.err, "warning: {}", printable(warning))?;
    }
    if !call.stdout.is_empty() {
        let text = call.stdout.trim_end_matches('\n');
        let text = if streams.terminal { printable(text) } else { text.to_owned() };
        writeln!(streams.out, "{text}")?;
    }
    if call.exit_code != 0 {
        let phase = call.phase.map(|phase| format!(" in {phase:?}").to_lowercase()).unwrap_or_default();
        writeln!(streams.err, "outcome: {}{phase} after {} ms", call.outcome.as_str(), call.duration_ms)?;
    }
    Ok(())
}
