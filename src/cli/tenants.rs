//! `cloister tenants …`: whose work this daemon does, and how much of it.

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::api::dto::tenant::{Allowance, TenantBody, TenantName};
use crate::cli::desk::{DeskFlags, ask};
use crate::cli::exit;
use crate::cli::printable::printable;
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::cli::variables::Variables;

/// The `tenants` commands.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cloister tenants set acme --environments 20 --concurrency 4 --rate 10/s --cpu-seconds 3600/day --storage-mib 1024
  (umask 077; cloister tokens create --tenant acme --scopes all > acme.token)
  cloister tenants list

Each change holds at once. It takes root, or the daemon's own user.")]
pub struct TenantsGroup {
    #[command(flatten)]
    desk: DeskFlags,
    #[command(subcommand)]
    command: TenantsCommand,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// Make a tenant, or change what it may use
    #[command(after_help = "Examples:
  cloister tenants set acme
  cloister tenants set acme --rate 5/s --burst 20
  cloister tenants set acme --reset --environments 0

0 is no limit. What is not given stays as it is, or with --reset is left to [tenants] of the configuration.")]
    Set(SetFlags),
    /// List tenants with what they use, and of how much
    #[command(after_help = "Example:
  cloister tenants list --json | jq '.[] | {name, usage}'")]
    List,
}

/// What to change.
#[derive(Debug, Args)]
struct SetFlags {
    /// The tenant: lower-case letters, digits, dots, - and _
    #[arg(value_name = "NAME")]
    name: TenantName,
    /// Environments at the same time
    #[arg(long, value_name = "N")]
    environments: Option<u64>,
    /// Calls at the same time, those that wait for a sandbox included
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Calls, set-ups and jobs that may begin in a second
    #[arg(long, value_name = "N[/s]", value_parser = rate)]
    rate: Option<f64>,
    /// And how many of them at once [default: one second's]
    #[arg(long, value_name = "N")]
    burst: Option<u64>,
    /// CPU time of calls in a day (UTC), in seconds
    #[arg(long, value_name = "N[/day]", value_parser = daily)]
    cpu_seconds: Option<u64>,
    /// What the files of environments take on disk
    #[arg(long, value_name = "N")]
    storage_mib: Option<u64>,
    /// Forget what was set before
    #[arg(long)]
    reset: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim().parse::<f64>().ok();
    number
        .filter(|number| *number >= 0.0)
        .ok_or_else(|| "write it as a number a second, such as 10/s or 0.5/s".to_owned())
}

fn daily(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/day").unwrap_or(text).trim().parse().ok();
    number.ok_or_else(|| "write it as whole seconds a day, such as 3600/day".to_owned())
}

/// Runs a `tenants` command.
pub async fn run(group: TenantsGroup, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let path = group.desk.path(variables);
    let (text, tenants) = match group.command {
        TenantsCommand::Set(flags) => {
            let given = Allowance {
                environments: flags.environments,
                concurrency: flags.concurrency,
                rate: flags.rate,
                burst: flags.burst,
                cpu_seconds: flags.cpu_seconds,
                storage_mib: flags.storage_mib,
            };
            let method = if flags.reset { Method::PUT } else { Method::PATCH };
            let answer = ask::<TenantBody>(&path, method, &format!("/tenants/{}", flags.name), Some(&given)).await?;
            (answer.text, vec![answer.body])
        }
        TenantsCommand::List => {
            let answer = ask::<Vec<TenantBody>>(&path, Method::GET, "/tenants", None::<&()>).await?;
            (answer.text, answer.body)
        }
    };
    if group.desk.json {
        writeln!(streams.out, "{text}")?;
    } else {
        write!(streams.out, "{}", shown(&tenants))?;
    }
    Ok(exit::OK)
}

fn shown(tenants: &[TenantBody]) -> String {
    let mut rows = vec![row(["TENANT", "TOKENS", "ENVIRONMENTS", "CALLS", "RATE", "CPU TODAY", "STORAGE"])];
    rows.extend(tenants.iter().map(|tenant| {
        let TenantBody { quotas, usage, .. } = tenant;
        let of = |used: String, limit: Option<String>| match limit {
            Some(limit) => format!("{used} of {limit}"),
            None => used,
        };
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let rate =
            quotas.rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s, {}", rate.per_second(), rate.burst()));
        vec![
            printable(tenant.name.as_str()),
            tenant.tokens.to_string(),
            of(usage.environments.to_string(), quotas.environments.map(|limit| limit.to_string())),
            of(usage.calls.to_string(), quotas.concurrency.map(|limit| limit.to_string())),
            rate,
            of(format!("{:.1} s", usage.cpu_seconds), quotas.cpu_seconds.map(|limit| format!("{limit} s"))),
            of(mib(usage.storage_bytes), quotas.storage_bytes.map(mib)),
        ]
    }));
    table(&rows)
}
