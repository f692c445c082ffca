//! `cloister env list`, `show` and `delete`.

use clap::Args;

use crate::api::dto::EnvironmentBody;
use crate::cli::client::Client;
use crate::cli::each::{Words, each};
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::domain::credential::CredentialName;
use crate::domain::id::EnvironmentId;

/// Which environment to show.
#[derive(Debug, Args)]
pub struct ShowFlags {
    /// The environment's id
    #[arg(value_name = "ID")]
    id: EnvironmentId,
}

/// Which environments to delete.
#[derive(Debug, Args)]
pub struct DeleteFlags {
    /// The environments' ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<EnvironmentId>,
}

/// Lists what can be executed.
pub async fn list(json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.list().await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
        return Ok(exit::OK);
    }
    if answer.body.is_empty() {
        writeln!(streams.err, "there are no environments: make one with `cloister env setup FILE`")?;
        return Ok(exit::OK);
    }
    let mut rows = vec![row(["ID", "RUNTIME", "MODULES", "CALLS", "CREATED", "TTL", "MAIN"])];
    rows.extend(answer.body.iter().map(|environment| {
        vec![
            environment.id.to_string(),
            environment.runtime.to_string(),
            environment.metadata.module_count.to_string(),
            environment.execution_count.to_string(),
            printable(&environment.created_at),
            format!("{} s", environment.ttl_seconds),
            printable(&environment.main_module),
        ]
    }));
    write!(streams.out, "{}", table(&rows))?;
    Ok(exit::OK)
}

/// Shows one environment.
pub async fn show(flags: &ShowFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let answer = client.show(flags.id).await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
    } else {
        write!(streams.out, "{}", table(&facts(&answer.body)))?;
    }
    Ok(exit::OK)
}

fn facts(environment: &EnvironmentBody) -> Vec<Vec<String>> {
    let permissions = serde_json::to_string(&environment.metadata.permissions).unwrap_or_default();
    let secrets: Vec<&str> = environment.metadata.secrets.iter().map(CredentialName::as_str).collect();
    let limits = environment.limits.map(|limits| serde_json::to_string(&limits).unwrap_or_default());
    let last = environment.last_executed_at.as_deref().unwrap_or("never");
    let mut facts = vec![
        row(["id", &environment.id.to_string()]),
        row(["status", environment.status.as_str()]),
        row(["runtime", environment.runtime.as_str()]),
        row(["main module", &printable(&environment.main_module)]),
        row(["modules", &environment.metadata.module_count.to_string()]),
        row(["permissions", &printable(&permissions)]),
        row(["isolation", environment.metadata.isolation.as_str()]),
        row(["limits", &limits.unwrap_or_else(|| "none".to_owned())]),
        row(["created", &printable(&environment.created_at)]),
        row(["lives for", &format!("{} s", environment.ttl_seconds)]),
        row(["calls", &environment.execution_count.to_string()]),
        row(["last call", &printable(last)]),
        row(["revision", &environment.revision.to_string()]),
        row(["volume", &printable(&environment.volume_name)]),
    ];
    if !secrets.is_empty() {
        facts.push(row(["secrets", &printable(&secrets.join(", "))]));
    }
    facts
}

/// Deletes each, and goes on after one that cannot be.
pub async fn delete(flags: &DeleteFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let words = Words { key: "id", done: "deleted", but: "", named: true };
    each(&flags.ids, &words, json, streams, async |id| client.delete(*id).await).await
}
