//! `cloister executions …`: calls by their id, those that were accepted to be answered later among them.

use clap::{Args, Subcommand};

use crate::api::dto::{CallBody, ErrorBody, ExecutionBody};
use crate::cli::client::{Answer, Client, Reach};
use crate::cli::each::{Words, each};
use crate::cli::env::print_call;
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::cli::variables::Variables;
use crate::domain::desk::CallStatus;
use crate::domain::id::{EnvironmentId, ExecutionId};

/// The `executions` commands and how the daemon is reached.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  id=$(cloister env execute $env --data '{\"a\": 1}' --async)
  cloister executions show $id")]
pub struct ExecutionsGroup {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: ExecutionsCommand,
}

#[derive(Debug, Subcommand)]
enum ExecutionsCommand {
    /// List the calls that were accepted to be answered later, newest first
    #[command(after_help = "Example:
  cloister executions list --env 0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55")]
    List(ListFlags),
    /// Show how a call stands, and its answer when it is done
    #[command(after_help = "Example:
  cloister executions show 0190c5a2-5c1b-7f2e-9d3a-7a1f0e2d4c55

Exits with 0 for a call that is done with outcome ok, and for one that is not done yet; else with 1.")]
    Show(ShowFlags),
    /// Cancel calls: those that wait are over at once, those that run end as cancelled
    #[command(after_help = "Example:
  cloister executions cancel 0190c5a2-5c1b-7f2e-9d3a-7a1f0e2d4c55")]
    Cancel(CancelFlags),
}

/// Which calls to list.
#[derive(Debug, Args)]
struct ListFlags {
    /// Of this environment only
    #[arg(long, value_name = "ID")]
    env: Option<EnvironmentId>,
}

/// Which call to show.
#[derive(Debug, Args)]
struct ShowFlags {
    /// The call's id
    #[arg(value_name = "ID")]
    id: ExecutionId,
}

/// Which calls to cancel.
#[derive(Debug, Args)]
struct CancelFlags {
    /// The calls' ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<ExecutionId>,
}

/// Runs an `executions` command.
pub async fn run(group: ExecutionsGroup, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let client = Client::new(&group.reach, variables)?;
    let json = group.reach.json;
    match group.command {
        ExecutionsCommand::List(flags) => list(&flags, json, &client, streams).await,
        ExecutionsCommand::Show(flags) => show(&flags, json, &client, streams).await,
        ExecutionsCommand::Cancel(flags) => cancel(&flags, json, &client, streams).await,
    }
}

async fn list(flags: &ListFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.executions(flags.env).await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
        return Ok(exit::OK);
    }
    if answer.body.is_empty() {
        writeln!(streams.err, "there are no such calls: make one with `cloister env execute ID --async`")?;
        return Ok(exit::OK);
    }
    let mut rows = vec![row(["ID", "STATUS", "OUTCOME", "ACCEPTED", "ENVIRONMENT"])];
    rows.extend(answer.body.iter().map(|call| {
        let outcome = call.outcome.as_deref().map_or("-".to_owned(), printable);
        let accepted = call.accepted_at.as_deref().map_or("-".to_owned(), printable);
        row([&call.id.to_string(), word(call.status), &outcome, &accepted, &call.environment_id.to_string()])
    }));
    write!(streams.out, "{}", table(&rows))?;
    Ok(exit::OK)
}

async fn show(flags: &ShowFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let Answer { text, body: call } = client.execution(flags.id).await?;
    let failed = call.status == CallStatus::Done && call.outcome.as_deref() != Some("ok");
    if json {
        writeln!(streams.out, "{text}")?;
    } else {
        print(&call, streams)?;
    }
    Ok(if failed { exit::FAILED } else { exit::OK })
}

/// The answer as `env execute` prints it; all else goes to stderr.
fn print(call: &CallBody, streams: &mut Streams<'_>) -> anyhow::Result<()> {
    let outcome = call.outcome.as_deref().map(|outcome| format!(", {}", printable(outcome))).unwrap_or_default();
    writeln!(streams.err, "{} in environment {}{outcome}", word(call.status), call.environment_id)?;
    if let Some(webhook) = call.webhook {
        writeln!(streams.err, "webhook {} after {} tries", webhook.state.as_str(), webhook.attempts)?;
    }
    match (&call.answer, &call.error) {
        (Some(answer), _) => print_call(&serde_json::from_str::<ExecutionBody>(answer.get())?, streams)?,
        (None, Some(error)) => {
            let error: ErrorBody = serde_json::from_str(error.get())?;
            writeln!(streams.err, "{}", printable(&error.error))?;
        }
        (None, None) if call.outcome.as_deref() == Some("cancelled") => {
            writeln!(
                streams.err,
                "cut off, by its caller or with the daemon: it may have had effects, and is not run again"
            )?;
        }
        (None, None) if call.status == CallStatus::Done => writeln!(streams.err, "its answer is not kept")?,
        (None, None) => {}
    }
    Ok(())
}

/// Cancels each, and goes on after one that is not known.
async fn cancel(flags: &CancelFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let words = Words { key: "id", done: "cancelled", but: ", unless it was over already", named: true };
    each(&flags.ids, &words, json, streams, async |id| client.cancel(*id).await).await
}

fn word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Queued => "queued",
        CallStatus::Running => "running",
        CallStatus::Done => "done",
    }
}
