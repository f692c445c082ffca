//! Cloister: one daemon per host that keeps walled work alive, restarted, rate-limited and garbage-collected.

mod actors;
mod adapters;
mod api;
mod boot;
mod cli;
mod config;
mod domain;
mod messages;
mod ports;
mod sealed;
mod sys;
mod telemetry;

use std::process::ExitCode;

use cli::{Invocation, Variables};

/// Nothing that was ever decrypted stays in freed memory.
#[global_allocator]
static MEMORY: sys::wipe::Wiping = sys::wipe::Wiping;

fn main() -> ExitCode {
    let code = match cli::parse(std::env::args_os()) {
        Invocation::Serve(flags) => boot::load(&flags.config, true).map_or_else(|exit| exit, boot::serve).code(),
        Invocation::Config(command) => boot::configuration(&command).code(),
        Invocation::Doctor(flags) => boot::doctor(&flags).code(),
        Invocation::Client(command) => cli::run_client(command, &Variables::new(config::variable)),
        Invocation::Ended(code) => code,
    };
    ExitCode::from(code)
}
