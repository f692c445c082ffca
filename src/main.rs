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
mod sys;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    let loaded = config::load(&config::Sources::of_process(None, Vec::new(), true));
    match loaded {
        Ok(loaded) => ExitCode::from(boot::serve(loaded).code()),
        Err(errors) => { eprintln!("{errors}"); ExitCode::from(78) }
    }
}
