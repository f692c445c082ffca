//! The one integration binary: the real daemon, the real `runsc`, the real Deno and Bun.
//!
//! It needs root, the runtimes that `scripts/setup` installs, and a cgroup hierarchy it may write to. What is
//! asserted about a handler is asserted from the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends where its assumption does, and it looks at the host from outside the house"
)]

mod architecture;
mod calls;
mod canary;
mod chaos;
mod cli;
mod comfy_caller;
mod comfy_clients;
mod comfy_falls;
mod comfy_never;
mod comfy_outputs;
mod comfy_worker;
mod dependencies;
mod doors;
mod doubles;
mod egress;
mod faults;
mod files;
mod first_system;
mod follow;
mod hostile_filesystem;
mod hostile_network;
mod hostile_resources;
mod hostile_results;
mod images;
mod lifecycle;
mod plaintext;
mod platform;
mod reaping;
mod reuse;
mod revisions;
mod rounds;
mod sandbox_chaos;
mod secrets;
mod standing;
mod support;
mod tenants;
