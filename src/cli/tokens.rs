//! `cloister tokens …`: who may come in.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo};
use reqwest::Method;

use crate::api::dto::tenant::{Scopes, TenantName, TokenBody, TokenOrderBody};
use crate::cli::desk::{DeskFlags, ask, tell};
use crate::cli::exit;
use crate::cli::streams::Streams;
use crate::cli::table::{row, table};
use crate::cli::variables::Variables;
use crate::domain::tenant::{MAX_LIFE, TokenId};

/// The `tokens` commands.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cloister tenants set acme --environments 20 --concurrency 4
  (umask 077; cloister tokens create --tenant acme --scopes environments:write,environments:read,execute > acme.token)
  cloister env list --token-file acme.token
  cloister tokens revoke 3f09a1c2d4e5

Each change holds at once. It takes root, or the daemon's own user.")]
pub struct TokensGroup {
    #[command(flatten)]
    desk: DeskFlags,
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Make a token and print it, once
    #[command(after_help = "Examples:
  (umask 077; cloister tokens create --tenant acme --scopes execute --expires 30d > acme.token)
  cloister tokens create --tenant acme --scopes all

Scopes:
  environments:read   list and show environments, list their calls
  environments:write  make, change, clone and delete environments
  execute             call handlers, see how those calls stand, and cancel them
  jobs:submit         put jobs into this host's queue, and cancel them
  jobs:read           see how jobs stand, and their answers
  all                 all of these

Secrets are the operator's: no scope opens them.")]
    Create(CreateFlags),
    /// List tokens, without the tokens themselves
    #[command(after_help = "Example:
  cloister tokens list --tenant acme --json | jq -r '.[].id'")]
    List(ListFlags),
    /// Take tokens back; the next request with one of them is refused
    #[command(after_help = "Example:
  cloister tokens revoke 3f09a1c2d4e5")]
    Revoke(RevokeFlags),
}

/// What the token is to be.
#[derive(Debug, Args)]
struct CreateFlags {
    /// Whose token it is
    #[arg(long, value_name = "NAME")]
    tenant: TenantName,
    /// What it allows, divided by commas; see below
    #[arg(long, value_name = "SCOPES")]
    scopes: Scopes,
    /// How long it lives, such as 12h or 30d [default: until it is revoked]
    #[arg(long, value_name = "SPAN", value_parser = lifetime)]
    expires: Option<Duration>,
}

/// Which tokens.
#[derive(Debug, Args)]
struct ListFlags {
    /// Those of one tenant only
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
}

/// Which tokens.
#[derive(Debug, Args)]
struct RevokeFlags {
    /// The tokens' ids, as `cloister tokens list` shows them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<TokenId>,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let span = text.trim().parse::<Span>().ok();
    let signed = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let span = signed.and_then(|span| Duration::try_from(span).ok()).filter(|span| span.as_secs() > 0);
    match span {
        Some(span) if span <= MAX_LIFE => Ok(span),
        Some(_) => Err("a token may live for ten years at most".to_owned()),
        None => Err("write it as a number with its unit, such as 12h or 30d".to_owned()),
    }
}

/// Runs a `tokens` command.
pub async fn run(group: TokensGroup, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let path = group.desk.path(variables);
    let json = group.desk.json;
    match group.command {
        TokensCommand::Create(flags) => {
            let lives_for = flags.expires.map(|span| span.as_secs());
            let order = TokenOrderBody { tenant: flags.tenant, scopes: flags.scopes, lives_for };
            let made = ask::<TokenBody>(&path, Method::POST, "/tokens", Some(&order)).await?;
            if json {
                writeln!(streams.out, "{}", made.text)?;
                return Ok(exit::OK);
            }
            let TokenBody { id, tenant, scopes, expires_at, token, .. } = made.body;
            writeln!(streams.out, "{}", token.unwrap_or_default())?;
            let end = expires_at.map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {end}"));
            writeln!(streams.err, "token {id} of {tenant}, {scopes}, {end}; it is not shown again")?;
        }
        TokensCommand::List(flags) => {
            let listed = ask::<Vec<TokenBody>>(&path, Method::GET, "/tokens", None::<&()>).await?;
            let is_wanted = |token: &&TokenBody| flags.tenant.as_ref().is_none_or(|tenant| token.tenant == *tenant);
            let tokens: Vec<&TokenBody> = listed.body.iter().filter(is_wanted).collect();
            if json {
                writeln!(streams.out, "{}", serde_json::to_string(&tokens)?)?;
                return Ok(exit::OK);
            }
            let mut rows = vec![row(["ID", "TENANT", "SCOPES", "CREATED", "EXPIRES"])];
            rows.extend(tokens.iter().map(|token| {
                let expires = token.expires_at.as_deref().unwrap_or("never");
                row([&token.id, token.tenant.as_str(), &token.scopes.to_string(), &token.created_at, expires])
            }));
            write!(streams.out, "{}", table(&rows))?;
        }
        TokensCommand::Revoke(flags) => {
            for id in &flags.ids {
                tell(&path, Method::DELETE, &format!("/tokens/{id}"), None::<&()>).await?;
                if !json {
                    writeln!(streams.out, "revoked {id}")?;
                }
            }
            if json {
                let ids: Vec<&str> = flags.ids.iter().map(TokenId::as_str).collect();
                writeln!(streams.out, "{}", serde_json::json!({ "revoked": ids }))?;
            }
        }
    }
    Ok(exit::OK)
}
