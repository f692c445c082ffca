//! The command line: what `cloister …` understands, and the commands that speak to a running daemon.
//!
//! [`parse`] reads the arguments. What starts or inspects the daemon itself is handed back to `main`, since only boot
//! knows how; what is a client of the daemon is run here, over HTTP or the health socket, by [`run_client`].

pub mod arguments;
mod client;
mod desk;
mod each;
mod env;
mod events;
mod executions;
mod health;
mod keygen;
mod printable;
mod reload;
mod secrets;
mod socket;
mod status;
mod streams;
mod submit;
mod table;
mod tenants;
mod tokens;
pub mod variables;

use std::ffi::OsString;

use clap::Parser as _;

pub use arguments::{ClientCommand, ConfigCommand, DoctorFlags, ServeFlags};
pub use variables::Variables;

use arguments::{Cli, Command};
use client::ClientError;
use streams::Streams;
use submit::SubmitError;

/// The exit codes of the command line, after BSD's sysexits(3) where it has a number.
pub mod exit {
    pub const OK: u8 = 0;
    /// The command was understood and did not succeed.
    pub const FAILED: u8 = 1;
    /// The command was not understood.
    pub const USAGE: u8 = 64;
    /// The daemon cannot be reached, or takes nothing now.
    pub const UNAVAILABLE: u8 = 69;
    /// A job is not done within the time that was given, or the daemon went away while it was at work: ask later how it went
    /// (EX_TEMPFAIL).
    pub const NOT_YET: u8 = 75;
    /// The two ends do not have the same key, or an answer is not one (EX_PROTOCOL).
    pub const PROTOCOL: u8 = 76;
    /// The token or the API key was refused (EX_NOPERM).
    pub const DENIED: u8 = 77;
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Invocation {
    Serve(ServeFlags),
    Config(ConfigCommand),
    Doctor(DoctorFlags),
    /// For [`run_client`].
    Client(ClientCommand),
    /// Help or a usage error has been printed; exit with this code.
    Ended(u8),
}

/// Reads the arguments, the program's name first. Prints help, the version or what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.command {
            Command::Serve(flags) => Invocation::Serve(flags),
            Command::Config(command) => Invocation::Config(command),
            Command::Doctor(flags) => Invocation::Doctor(flags),
            Command::Env(group) => Invocation::Client(ClientCommand::Env(group)),
            Command::Executions(group) => Invocation::Client(ClientCommand::Executions(group)),
            Command::Secrets(group) => Invocation::Client(ClientCommand::Secrets(group)),
            Command::Health(flags) => Invocation::Client(ClientCommand::Health(flags)),
            Command::Submit(flags) => Invocation::Client(ClientCommand::Submit(flags)),
            Command::Keygen(flags) => Invocation::Client(ClientCommand::Keygen(flags)),
            Command::Status(flags) => Invocation::Client(ClientCommand::Status(flags)),
            Command::Reload(flags) => Invocation::Client(ClientCommand::Reload(flags)),
            Command::Tenants(group) => Invocation::Client(ClientCommand::Tenants(group)),
            Command::Tokens(group) => Invocation::Client(ClientCommand::Tokens(group)),
        },
        Err(told) => {
            // A closed terminal is no reason for another code.
            let _ = told.print();
            Invocation::Ended(if told.use_stderr() { exit::USAGE } else { exit::OK })
        }
    }
}

/// Runs a client command on the process's own streams and returns its exit code.
pub fn run_client(command: ClientCommand, variables: &Variables) -> u8 {
    run(command, variables, &mut Streams::of_process())
}

fn run(command: ClientCommand, variables: &Variables, streams: &mut Streams<'_>) -> u8 {
    match attempt(command, variables, streams) {
        Ok(code) => code,
        // Whoever reads our output has enough of it, as in `cloister env list | head`.
        Err(error) if is_broken_pipe(&error) => exit::OK,
        Err(error) => {
            let _ = writeln!(streams.err, "cloister: {error:#}");
            code_of(&error)
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    let of_client = error.downcast_ref::<ClientError>().map(ClientError::exit_code);
    let of_submit = || error.downcast_ref::<SubmitError>().map(SubmitError::exit_code);
    of_client.or_else(of_submit).unwrap_or(exit::FAILED)
}

fn attempt(command: ClientCommand, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ClientCommand::Env(group) => env::run(*group, variables, streams).await,
            ClientCommand::Executions(group) => executions::run(*group, variables, streams).await,
            ClientCommand::Secrets(group) => secrets::run(*group, variables, streams).await,
            ClientCommand::Health(flags) => health::run(&flags, variables, streams).await,
            ClientCommand::Submit(flags) => submit::run(*flags, variables, streams).await,
            ClientCommand::Keygen(flags) => keygen::run(&flags, streams),
            ClientCommand::Status(flags) => status::run(&flags, variables, streams).await,
            ClientCommand::Reload(flags) => reload::run(&flags, variables, streams).await,
            ClientCommand::Tenants(group) => tenants::run(*group, variables, streams).await,
            ClientCommand::Tokens(group) => tokens::run(*group, variables, streams).await,
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
