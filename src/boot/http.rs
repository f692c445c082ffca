//! The HTTP client that the adapters speak with.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};
use rustls::{ClientConfig, RootCertStore};

/// For a connection, with its TLS, to stand.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next call.
const KEPT: Duration = Duration::from_secs(50);
/// How often a silent connection is probed, so that a poll does not wait on a peer that is gone.
const PROBED: Duration = Duration::from_secs(15);
/// Told to every server.
const USER_AGENT: &str = concat!("Cloister/", env!("CARGO_PKG_VERSION"), " (Linux)");

/// TLS as all clients of this process speak it: rustls on ring, and the host's own root certificates. Made once, for
/// reading the certificates is most of what a client costs.
#[derive(Clone)]
pub struct Tls(ClientConfig);

impl Tls {
    /// Reads the host's root certificates; takes milliseconds. On a host without any, every https address fails, and
    /// plain HTTP works.
    ///
    /// # Errors
    /// When TLS cannot be set up at all.
    pub fn of_this_host() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions()?;
        Ok(Self(versions.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl Tls {
    /// For who speaks TLS without a client of HTTP.
    pub fn config(&self) -> ClientConfig {
        self.0.clone()
    }
}

/// What every client of the daemon begins as. No proxy of the surroundings gets to see a job, and redirects are
/// followed by hand, where they are at all.
pub fn builder(tls: &Tls) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls.0.clone())
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_WITHIN)
        .pool_idle_timeout(KEPT)
        .tcp_keepalive(PROBED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_clients_are_built_of_one_tls() {
        let tls = Tls::of_this_host().expect("TLS");
        assert!(builder(&tls).build().is_ok());
        assert!(builder(&tls).build().is_ok());
    }
}
