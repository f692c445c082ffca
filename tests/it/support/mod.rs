//! A daemon of its own for every test, and a host's view of what it leaves behind.

pub mod client;
pub mod daemon;
pub mod dice;
pub mod far;
pub mod gpu;
pub mod host;
pub mod oci;
pub mod platform;
pub mod registry;
pub mod tier;

use std::time::{Duration, Instant};

pub use client::{Answer, Client};
pub use daemon::{Daemon, Settings};

/// The runtimes every behaviour is shown on.
pub const RUNTIMES: [&str; 2] = ["deno", "bun"];

/// An HTTP client in the making; reqwest builds none before the process has chosen its cryptography.
pub fn http() -> reqwest::ClientBuilder {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// Waits until a condition of the host holds, looking again and again.
///
/// # Panics
/// When it does not hold within `patience`; the last look is in the message.
pub async fn eventually(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(()) => return,
            Err(seen) if began.elapsed() > patience => panic!("{what}: not within {patience:?}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
