//! The way out of sandboxes: the proxy of this configuration, and the secrets that it puts in.

use std::path::PathBuf;
use std::sync::Arc;

use slog::Logger;

use super::http::Tls;
use crate::adapters::credentials::{HostCredentials, KeySources};
use crate::adapters::egress::{HostEgress, Settings};
use crate::config::{self, Config};
use crate::domain::egress::{Caps, Reach};
use crate::ports::credentials::{Credentials, SealedCredentials};
use crate::ports::store::StoreError;

/// Why nothing can get out of sandboxes, though the configuration says that it may.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the host's root certificates could not be read")]
    Roots,
}

/// The proxy and the secrets. Cloning shares both.
#[derive(Clone)]
pub struct WayOut {
    pub proxy: Arc<HostEgress>,
    pub credentials: Arc<dyn Credentials>,
}

impl WayOut {
    /// None: nothing gets out of any sandbox.
    ///
    /// # Errors
    /// When the secrets cannot be read from the store, or TLS cannot be spoken at all.
    pub async fn build(
        config: &Config,
        records: Arc<dyn SealedCredentials>,
        log: &Logger,
    ) -> Result<Option<Self>, EgressError> {
        let egress = &config.sandbox.egress;
        if !config.sandbox.enabled || !egress.enabled {
            return Ok(None);
        }
        // Reading the host's certificates takes milliseconds.
        let tls = tokio::task::spawn_blocking(Tls::of_this_host);
        let log = log.new(slog::o!("part" => "egress"));
        let credentials = HostCredentials::open(records, &key_sources(config), &log).await?;
        let credentials: Arc<dyn Credentials> = Arc::new(credentials);
        let settings = Settings {
            dir: config.daemon.run_dir.join("egress"),
            reach: Reach::and(egress.allow_private.clone()),
            caps: Caps {
                connections: egress.connections,
                requests: egress.requests,
                bytes: egress.bytes,
                answer_within: egress.answer_within,
                idle: egress.idle,
                lasts: egress.lasts,
            },
        };
        let tls = tls.await.map_err(|_| EgressError::Roots)??;
        let proxy = HostEgress::new(settings, tls.config(), Arc::clone(&credentials), log);
        Ok(Some(Self { proxy: Arc::new(proxy), credentials }))
    }
}

/// Where the key of the secrets may be. Also what `doctor` looks at.
pub fn key_sources(config: &Config) -> KeySources {
    KeySources {
        file: config.secrets.key_file.clone(),
        credentials: config::variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        own: config.daemon.state_dir.join("secrets.key"),
    }
}
