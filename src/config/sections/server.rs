//! `[server]`: the HTTP door.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::{MINUTE, Reader, millis, secs};

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    pub address: IpAddr,
    /// 0: any free port.
    pub port: u16,
    /// Any of these opens the door. Empty only when `disable_bearer_token` is set, or when nobody serves.
    pub bearer_tokens: Vec<SecretString>,
    /// True: the door stands open, whatever tokens there are.
    pub disable_bearer_token: bool,
    /// For a request's head to arrive.
    pub header_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    pub max_connections: usize,
    /// For answers under way when the door closes.
    pub shutdown_grace: Duration,
}

impl Server {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            address: reader.address("server.address"),
            port: reader.whole("server.port", 0..=65_535),
            bearer_tokens: reader.secrets("server.bearer_tokens"),
            disable_bearer_token: reader.switch("server.disable_bearer_token"),
            header_timeout: reader.span("server.header_timeout", millis(100)..=secs(10 * MINUTE)),
            body_timeout: reader.span("server.body_timeout", millis(100)..=secs(60 * MINUTE)),
            max_connections: reader.whole("server.max_connections", 1..=100_000),
            shutdown_grace: reader.span("server.shutdown_grace", secs(0)..=secs(10 * MINUTE)),
        }
    }
}
