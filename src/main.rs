//! Cloister: one daemon per host that keeps walled work alive.
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

fn main() {}
