//! `cloister env update`, `clone` and `ttl`.

use std::path::PathBuf;

use clap::Args;

use crate::api::dto::{EnvironmentBody, ModulesBody, TtlBody};
use crate::cli::client::{Answer, Client};
use crate::cli::env::modules;
use crate::cli::exit;
use crate::cli::streams::Streams;
use crate::domain::id::EnvironmentId;

/// What to give an environment's modules up for.
#[derive(Debug, Args)]
pub struct UpdateFlags {
    /// The environment's id
    #[arg(value_name = "ID")]
    id: EnvironmentId,
    /// A source file, or a directory whose files become modules under their relative names
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// The module that exports `handler` [default: the only one, else main, index, handler or mod]
    #[arg(long, value_name = "NAME")]
    main: Option<String>,
}

/// Which environment to make another one of.
#[derive(Debug, Args)]
pub struct CloneFlags {
    /// The environment's id
    #[arg(value_name = "ID")]
    id: EnvironmentId,
    /// How long the new one lives [default: as long as the other]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

/// How long an environment is to live.
#[derive(Debug, Args)]
pub struct TtlFlags {
    /// The environment's id
    #[arg(value_name = "ID")]
    id: EnvironmentId,
    /// Seconds from its creation on
    #[arg(value_name = "SECONDS")]
    seconds: u64,
}

/// Sends the files; what was there and is not named any more is gone.
pub async fn update(flags: UpdateFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let modules = modules::read(&flags.path, flags.main)?;
    let body = ModulesBody { main_module: Some(modules.main), modules: modules.sources, dependencies: None };
    let answer = client.update(flags.id, &body).await?;
    let text = format!("{} is at revision {}", flags.id, answer.body.revision);
    print(&answer, &text, json, streams)
}

/// Prints the new one's id.
pub async fn clone(flags: &CloneFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.clone_of(flags.id, TtlBody { ttl_seconds: flags.ttl }).await?;
    let text = answer.body.id.to_string();
    print(&answer, &text, json, streams)
}

/// Says how long it lives.
pub async fn ttl(flags: &TtlFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.set_ttl(flags.id, TtlBody { ttl_seconds: Some(flags.seconds) }).await?;
    let text = format!("{} lives for {} s", flags.id, answer.body.ttl_seconds);
    print(&answer, &text, json, streams)
}

fn print(answer: &Answer<EnvironmentBody>, text: &str, json: bool, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    writeln!(streams.out, "{}", if json { answer.text.as_str() } else { text })?;
    Ok(exit::OK)
}
