//! The arguments of every command that is about the daemon itself, and the list of all commands.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cli::env::EnvGroup;
use crate::cli::executions::ExecutionsGroup;
use crate::cli::health::HealthFlags;
use crate::cli::keygen::KeygenFlags;
use crate::cli::reload::ReloadFlags;
use crate::cli::secrets::SecretsGroup;
use crate::cli::status::StatusFlags;
use crate::cli::submit::SubmitFlags;
use crate::cli::tenants::TenantsGroup;
use crate::cli::tokens::TokensGroup;

/// One daemon per host for two kinds of work: handlers that nobody reviewed, each call in a sandbox of its own, and
/// sealed jobs for ComfyUI.
#[derive(Debug, Parser)]
#[command(name = "cloister", version, disable_help_subcommand = true)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Example, in a checkout after scripts/setup (or simply: make run):
  export BEARER_TOKEN=$(head -c 24 /dev/urandom | base64) CLOISTER_RUN_DIR=$PWD/.cloister/run
  cloister serve --state-dir .cloister --address 127.0.0.1 &
  cloister env setup handler.ts
Sealed jobs: COMFYUI_DIR=… makes `cloister serve` take them, `cloister keygen` makes their keys, `cloister submit` sends them.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, until it is told to stop
    #[command(after_help = "Example:
  BEARER_TOKEN=secret cloister serve --port 8080 --set log.level=debug

Stops on SIGTERM or Ctrl-C when all it has taken on is done; a second signal hurries it.
Exit codes: 0 stopped as told, 1 a RunPod worker gave its place up since ComfyUI starts nowhere, 64 wrong usage,
69 port, socket or state directory taken, 70 a part gave up, 78 wrong configuration or private key.")]
    Serve(ServeFlags),
    /// Make, call, change, clone, list, show and delete environments on a running daemon
    Env(Box<EnvGroup>),
    /// List, show and cancel calls by their id
    Executions(Box<ExecutionsGroup>),
    /// Keep, list and remove secrets that handlers use and never see
    Secrets(Box<SecretsGroup>),
    /// Seal a ComfyUI workflow, send it to RunPod or to a Cloister, and write what comes back
    #[command(after_help = "Examples:
  export SERVER_PUBLIC_KEY_B64=…           # what `cloister keygen` printed on the worker's host
  cloister submit workflow.json --image input.png=photo.png --out pictures
  RP_API_KEY=… cloister submit workflow.json --endpoint abc123
  cloister submit --resume 0190c5a2-…-u1   # go on with a job that was sent before

Nothing of the workflow leaves this machine in clear. Until the answer is opened, a one-time key is kept in
$XDG_STATE_HOME/cloister/jobs (~/.local/state/cloister/jobs), for --resume.
A Cloister's queue is in memory: after a restart of the daemon the job is not known, and has to be submitted again.
Exit codes:
   0  done, or with --detach sent
   1  the job failed, was cancelled or is not known, or the request was refused; an output cannot be written
  64  wrong usage: the flags, the key, an --image, or a workflow that is no \"Export (API)\"
  69  the service cannot be reached within 30 s, or takes nothing now
  75  not done within --wait; it goes on, and --resume comes back to it
  76  the key is not the worker's, or the answer does not open or is not to this request
  77  the token or the API key was refused")]
    Submit(Box<SubmitFlags>),
    /// Make a key pair for sealed jobs, or show the public key of a private one
    Keygen(KeygenFlags),
    /// Ask a running daemon whether it is alive or ready
    Health(HealthFlags),
    /// Show the parts of a running daemon
    Status(StatusFlags),
    /// Have a running daemon read its private keys anew, and look for the runtimes' images again
    Reload(ReloadFlags),
    /// Say whose work a running daemon does, and how much each may use
    Tenants(Box<TenantsGroup>),
    /// Make, list and revoke the tokens of tenants
    Tokens(Box<TokensGroup>),
    /// Say what this host can and cannot do, each with its remedy
    #[command(after_help = "Example:
  cloister doctor")]
    Doctor(DoctorFlags),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// The commands that are clients of a running daemon.
#[derive(Debug)]
pub enum ClientCommand {
    Env(Box<EnvGroup>),
    Executions(Box<ExecutionsGroup>),
    Secrets(Box<SecretsGroup>),
    Health(HealthFlags),
    Status(StatusFlags),
    Reload(ReloadFlags),
    Tenants(Box<TenantsGroup>),
    Tokens(Box<TokensGroup>),
    Submit(Box<SubmitFlags>),
    Keygen(KeygenFlags),
}

/// What `serve` was given.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// What `doctor` was given.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorFlags {
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The `config` commands.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and report everything that is wrong with it
    #[command(after_help = "Example:
  cloister config check --config /etc/cloister/cloister.toml

Exits with 78 when something is wrong.")]
    Check {
        #[command(flatten)]
        config: ConfigFlags,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the configuration as the daemon would use it, without its secrets
    #[command(after_help = "Example:
  cloister config show --origin --set server.port=9000")]
    Show {
        #[command(flatten)]
        config: ConfigFlags,
        /// Say where each value comes from: default, file, environment or flag
        #[arg(long)]
        origin: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration comes from, and what stands above it.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFlags {
    /// Configuration file [default: $CLOISTER_CONFIG, else /etc/cloister/cloister.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// HTTP port; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Address to listen on
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where records, volumes and runtimes are kept
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets, bundles and runners are made
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Least important messages to log
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_parser = ["auto", "pretty", "json"])]
    pub log_format: Option<String>,
    /// Set any key of the configuration file; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
}

impl ConfigFlags {
    /// The flags with the dotted keys and the values they set, the named ones first. They stand above file and
    /// environment.
    pub fn settings(&self) -> Vec<(&'static str, String, String)> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let named = [
            ("--port", "server.port", self.port.map(|port| port.to_string())),
            ("--address", "server.address", self.address.map(|address| address.to_string())),
            ("--state-dir", "daemon.state_dir", self.state_dir.as_ref().map(path)),
            ("--run-dir", "daemon.run_dir", self.run_dir.as_ref().map(path)),
            ("--log-level", "log.level", self.log_level.clone()),
            ("--log-format", "log.format", self.log_format.clone()),
        ];
        let given = named.into_iter().filter_map(|(flag, key, value)| Some((flag, key.to_owned(), value?)));
        given.chain(self.set.iter().map(|(key, value)| ("--set", key.clone(), value.clone()))).collect()
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if is_key(key) => Ok((key.to_owned(), value.to_owned())),
        Some((key, _)) => Err(format!("{key:?} is not a key: write it as in the file, such as server.port")),
        None => Err("there is no = in it: write KEY=VALUE, such as server.port=9000".to_owned()),
    }
}

fn is_key(key: &str) -> bool {
    let is_word = |word: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        !word.is_empty() && word.bytes().all(allowed)
    };
    key.split('.').all(is_word)
}
