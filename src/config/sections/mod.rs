//! The typed settings, one struct for each section of the file. `config/default.toml` documents every key.

mod bucket;
mod calls;
mod comfy;
mod crypto;
mod daemon;
mod egress;
mod images;
mod jobs;
mod log;
mod reaper;
mod runpod;
mod sandbox;
mod secrets;
mod server;
mod standing;
mod store;
mod supervision;
mod tenants;

use std::time::Duration;

pub use bucket::{Bucket, BucketAccess};
pub use calls::Calls;
pub use comfy::Comfy;
pub use crypto::Crypto;
pub use daemon::Daemon;
pub use jobs::Jobs;
pub use log::{Log, LogFormat};
pub use reaper::Reaper;
pub use runpod::Runpod;
pub use sandbox::Sandbox;
pub use secrets::Secrets;
pub use server::Server;
pub use store::Store;
pub use supervision::Supervision;

use super::reader::Reader;
use crate::domain::quota::Allowance;

/// Everything that can be configured. Paths are absolute, and what was left to be derived is filled in.
#[derive(Debug, Clone)]
pub struct Config {
    pub daemon: Daemon,
    pub log: Log,
    pub server: Server,
    pub sandbox: Sandbox,
    pub secrets: Secrets,
    pub calls: Calls,
    pub comfy: Comfy,
    pub store: Store,
    pub reaper: Reaper,
    pub supervision: Supervision,
    pub crypto: Crypto,
    pub runpod: Runpod,
    pub bucket: Bucket,
    pub jobs: Jobs,
    /// Of every tenant that has no settings of its own.
    pub tenants: Allowance,
}

impl Config {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let daemon = Daemon::read(reader);
        let state_dir = daemon.state_dir.clone();
        Self {
            daemon,
            log: Log::read(reader),
            server: Server::read(reader),
            sandbox: Sandbox::read(reader, &state_dir),
            secrets: Secrets::read(reader),
            calls: Calls::read(reader),
            comfy: Comfy::read(reader),
            store: Store::read(reader, &state_dir),
            reaper: Reaper::read(reader),
            supervision: Supervision::read(reader),
            crypto: Crypto::read(reader, &state_dir),
            runpod: Runpod::read(reader),
            bucket: Bucket::read(reader),
            jobs: Jobs::read(reader),
            tenants: tenants::read(reader),
        }
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
