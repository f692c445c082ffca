//! The HTTP client that the adapters speak with.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};

/// For a connection, with its TLS, to stand.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next call.
const KEPT: Duration = Duration::from_secs(50);
/// How often a silent connection is probed, so that a poll does not wait on a peer that is gone.
const PROBED: Duration = Duration::from_secs(15);
/// Told to every server.
const USER_AGENT: &str = concat!("Cloister/", env!("CARGO_PKG_VERSION"), " (Linux)");

/// Chooses what speaks TLS in this process: rustls on ring. Needed before any client is built; once is enough.
pub fn provide_tls() {
    // A second call finds the first one's choice and changes nothing.
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
}

/// What every client of the daemon begins as. No proxy of the surroundings gets to see a job, and redirects are
/// followed by hand, where they are at all.
pub fn builder() -> ClientBuilder {
    provide_tls();
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_WITHIN)
        .pool_idle_timeout(KEPT)
        .tcp_keepalive(PROBED)
}

/// Builds it. On a host without any root certificates it speaks plain HTTP, and every https address fails.
///
/// # Errors
/// When TLS cannot be set up at all.
pub fn build(make: impl Fn() -> ClientBuilder) -> reqwest::Result<Client> {
    make().build().or_else(|_no_roots| make().tls_certs_only([]).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_built_and_a_second_one_too() {
        assert!(build(builder).is_ok());
        assert!(build(builder).is_ok());
    }
}
