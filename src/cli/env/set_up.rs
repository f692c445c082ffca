//! `cloister env setup`.

use std::path::PathBuf;

use clap::Args;

use crate::api::dto::SetUpBody;
use crate::api::dto::environment::{Dependencies, EnvironmentLimits, Isolation, Permissions, Runtime};
use crate::cli::client::Client;
use crate::cli::env::modules;
use crate::cli::exit;
use crate::cli::streams::Streams;

/// What to make an environment of.
#[derive(Debug, Args)]
pub struct SetUpFlags {
    /// A source file, or a directory whose files become modules under their relative names
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// The module that exports `handler` [default: the only one, else main, index, handler or mod]
    #[arg(long, value_name = "NAME")]
    main: Option<String>,
    /// The engine
    #[arg(long, value_name = "NAME", value_parser = ["deno", "bun"], default_value = "deno")]
    runtime: String,
    /// How long the environment lives [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// What the handler may do, such as '{"allowEnv": true}' [default: nothing]
    #[arg(long, value_name = "JSON", value_parser = permissions)]
    permissions: Option<Permissions>,
    /// A package of npm to install, such as left-pad@1.3.0; repeatable
    #[arg(long, value_name = "NAME[@RANGE]")]
    npm: Vec<String>,
    /// A module for Deno to resolve, such as jsr:@std/path@1 or https://host/x.ts; repeatable
    #[arg(long, value_name = "SPECIFIER")]
    deno: Vec<String>,
    /// A secret whose placeholder the handler finds in the variable of that name; repeatable
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// How much it may be called, such as '{"concurrency": 1, "rate": {"perSecond": 5, "burst": 10}}' [default: no limit]
    #[arg(long, value_name = "JSON", value_parser = limits)]
    limits: Option<EnvironmentLimits>,
    /// Whether each call has a sandbox of its own, or an environment's calls follow each other in one
    #[arg(long, value_name = "WHAT", value_parser = ["call", "environment"], default_value = "call")]
    isolation: String,
}

fn limits(text: &str) -> Result<EnvironmentLimits, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn permissions(text: &str) -> Result<Permissions, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        // The message of an untagged choice does not say what the choice was.
        serde_json::error::Category::Data if error.to_string().contains("untagged") => {
            "each permission is true, false or a list of strings".to_owned()
        }
        _ => error.to_string(),
    })
}

/// Sends the files, prints the new id.
pub async fn run(flags: SetUpFlags, json: bool, client: &Client, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let modules = modules::read(&flags.path, flags.main)?;
    let dependencies = Dependencies { npm: flags.npm, deno: flags.deno };
    let dependencies = (dependencies.count() > 0).then_some(dependencies);
    let body = SetUpBody {
        main_module: modules.main,
        modules: modules.sources,
        runtime: if flags.runtime == "bun" { Runtime::Bun } else { Runtime::Deno },
        dependencies,
        permissions: flags.permissions,
        secrets: flags.secrets,
        ttl_seconds: flags.ttl,
        limits: flags.limits,
        isolation: (flags.isolation == "environment").then_some(Isolation::Environment),
    };
    let answer = client.set_up(&body).await?;
    if json {
        writeln!(streams.out, "{}", answer.text)?;
        return Ok(exit::OK);
    }
    let made = answer.body;
    writeln!(streams.out, "{}", made.id)?;
    let count = made.metadata.module_count;
    let noun = if count == 1 { "module" } else { "modules" };
    writeln!(
        streams.err,
        "{} with {count} {noun}, main {}, for {} s",
        made.runtime, made.main_module, made.ttl_seconds
    )?;
    Ok(exit::OK)
}
