//! `cloister env …`: environments of a running daemon.

mod change;
mod execute;
mod files;
mod follow;
mod modules;
mod set_up;
mod show;

pub use execute::print_call;

use clap::{Args, Subcommand};

use crate::cli::client::{Client, Reach};
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;

/// The `env` commands and how the daemon is reached.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  export BEARER_TOKEN=secret
  id=$(cloister env setup handler.ts)
  cloister env execute $id --data '{\"a\": 1}'
  cloister env delete $id")]
pub struct EnvGroup {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(Debug, Subcommand)]
enum EnvCommand {
    /// Make an environment of a file, or of all files in a directory, and print its id
    #[command(after_help = "Examples:
  cloister env setup handler.ts
  cloister env setup handler.ts --npm left-pad@1.3.0 --deno jsr:@std/path@1
  cloister env setup app/ --main main.ts --runtime bun --ttl 600 --permissions '{\"allowEnv\": [\"API_KEY\"]}'")]
    Setup(set_up::SetUpFlags),
    /// Call an environment's handler and print its result
    #[command(after_help = "Examples:
  cloister env execute $id --data '{\"a\": 1}' --env API_KEY
  echo '{\"a\": 1}' | cloister env execute $id --data -
  cloister env execute $id --timeout-ms 60000 --follow
  cloister env execute $id --files out
  cloister env execute $id --async --webhook https://example.com/done --idempotency-key order-17

Exits with 0 when the outcome is ok, else with 1; outcome, logs and stderr go to stderr.")]
    Execute(execute::ExecuteFlags),
    /// Give an environment new modules; calls that have begun keep the old ones, and installed packages stay
    #[command(after_help = "Example:
  cloister env update $id handler.ts")]
    Update(change::UpdateFlags),
    /// Make another environment of one, and print its id
    #[command(after_help = "Example:
  copy=$(cloister env clone $id --ttl 600)")]
    Clone(change::CloneFlags),
    /// Change how long an environment lives
    #[command(after_help = "Example:
  cloister env ttl $id 86400")]
    Ttl(change::TtlFlags),
    /// List environments, newest first
    #[command(after_help = "Example:
  cloister env list --json | jq -r '.[].id'")]
    List,
    /// Show one environment
    #[command(after_help = "Example:
  cloister env show 0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55")]
    Show(show::ShowFlags),
    /// Delete environments, together with the calls that run in them
    #[command(after_help = "Example:
  cloister env delete $(cloister env list --json | jq -r '.[].id')")]
    Delete(show::DeleteFlags),
}

/// Runs an `env` command.
pub async fn run(group: EnvGroup, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let client = Client::new(&group.reach, variables)?;
    let json = group.reach.json;
    match group.command {
        EnvCommand::Setup(flags) => set_up::run(flags, json, &client, streams).await,
        EnvCommand::Execute(flags) => execute::run(flags, json, &client, variables, streams).await,
        EnvCommand::Update(flags) => change::update(flags, json, &client, streams).await,
        EnvCommand::Clone(flags) => change::clone(&flags, json, &client, streams).await,
        EnvCommand::Ttl(flags) => change::ttl(&flags, json, &client, streams).await,
        EnvCommand::List => show::list(json, &client, streams).await,
        EnvCommand::Show(flags) => show::show(&flags, json, &client, streams).await,
        EnvCommand::Delete(flags) => show::delete(&flags, json, &client, streams).await,
    }
}
