//! `cloister secrets …`: what the proxy puts into sandboxes' requests. A value is read from stdin or a file, never from an
//! argument, which every user of a host can see.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use crate::api::dto::{PutSecretBody, SecretBody};
use crate::cli::client::{Client, Reach};
use crate::cli::each::{Words, each};
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::cli::variables::Variables;
use crate::domain::credential::{CredentialName, MOST_VALUE_BYTES};

/// The `secrets` commands and how the daemon is reached.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  export BEARER_TOKEN=secret
  cloister secrets set API_KEY --host api.example.com <key.txt
  cloister env setup handler.ts --secret API_KEY --permissions '{\"allowNet\": [\"api.example.com\"]}'

The handler finds a placeholder in API_KEY. On its way to a listed host the daemon puts the value in its place, in
headers; anywhere else the placeholder goes out as it is.")]
pub struct SecretsGroup {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// Keep a secret, in place of a former one of its name; its value comes from stdin
    #[command(after_help = "Examples:
  cloister secrets set API_KEY --host api.example.com <key.txt
  pass show internal | cloister secrets set INTERNAL --host '*.internal.example:8443' --host 10.0.0.7:8080

A host without a port is meant in TLS, on whatever port. With a port it is meant in plain http as well.
One line break at the end of the value is left out. It is in force for the next request.")]
    Set(SetFlags),
    /// List secrets: names and hosts, never values
    #[command(after_help = "Example:
  cloister secrets list --json | jq -r '.[].name'")]
    List,
    /// Forget secrets: environments that name them go on, and send their placeholders as they are
    #[command(after_help = "Example:
  cloister secrets remove API_KEY")]
    Remove(RemoveFlags),
}

/// What to keep.
#[derive(Debug, Args)]
struct SetFlags {
    /// Its name, which is the variable's that handlers find
    #[arg(value_name = "NAME")]
    name: CredentialName,
    /// Where it may be sent: a host, host:port, or *.suffix; repeatable
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// File that holds the value [default: stdin]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What to forget.
#[derive(Debug, Args)]
struct RemoveFlags {
    /// The secrets' names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<CredentialName>,
}

/// Runs a `secrets` command.
pub async fn run(group: SecretsGroup, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let client = Client::new(&group.reach, variables)?;
    let json = group.reach.json;
    match group.command {
        SecretsCommand::Set(flags) => set(flags, json, &client, streams).await,
        SecretsCommand::List => list(json, &client, streams).await,
        SecretsCommand::Remove(flags) => remove(&flags, json, &client, streams).await,
    }
}

async fn set(flags: SetFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let value = read(flags.file.as_deref(), streams)?;
    let answer =
        client.put_secret(&flags.name, &PutSecretBody { value: value.to_string(), hosts: flags.hosts }).await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
    } else {
        writeln!(streams.out, "{} is kept, for {}", printable(&answer.body.name), hosts(&answer.body))?;
    }
    Ok(exit::OK)
}

/// One line break at the end is the editor's or the shell's, and no part of a value.
fn read(file: Option<&Path>, streams: &mut Streams<'_>) -> anyhow::Result<Zeroizing<String>> {
    // Room for the value, a line break, and a byte that says that there is more.
    let room = MOST_VALUE_BYTES + 3;
    let mut text = Zeroizing::new(String::with_capacity(room));
    let read = match file {
        None => streams.input.by_ref().take(room as u64).read_to_string(&mut text).context("cannot read stdin"),
        Some(path) => {
            let read = File::open(path).and_then(|file| file.take(room as u64).read_to_string(&mut text));
            read.with_context(|| format!("cannot read {}", path.display()))
        }
    };
    read?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = Zeroizing::new(value.strip_suffix('\r').unwrap_or(value).to_owned());
    if value.is_empty() {
        bail!("there is no value: send it to stdin, or name a file that holds it with --file");
    }
    Ok(value)
}

async fn list(json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.secrets().await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
        return Ok(exit::OK);
    }
    if answer.body.is_empty() {
        writeln!(streams.err, "there are no secrets: keep one with `cloister secrets set NAME --host HOST`")?;
        return Ok(exit::OK);
    }
    let mut rows = vec![row(["NAME", "CREATED", "CHANGED", "HOSTS"])];
    rows.extend(answer.body.iter().map(|secret| {
        row([&printable(&secret.name), &printable(&secret.created_at), &printable(&secret.updated_at), &hosts(secret)])
    }));
    write!(streams.out, "{}", table(&rows))?;
    Ok(exit::OK)
}

fn hosts(secret: &SecretBody) -> String {
    printable(&secret.hosts.join(", "))
}

/// Forgets each, and goes on after one that is not there.
async fn remove(flags: &RemoveFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let words = Words { key: "name", done: "removed", but: "", named: false };
    each(&flags.names, &words, json, streams, async |name| client.remove_secret(name).await).await
}
