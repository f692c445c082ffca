//! What a sandbox may reach, decided before a byte of it leaves this host.
//!
//! ```text
//!   CONNECT host:port ─┐                       (looked up by the daemon)
//!   GET http://host/ ──┴─► listed? ─► room? ─► addresses admitted? ─► connected to one of those
//!                          Policy     Ledger    Reach                       │
//!                                              TLS: the name in the first message is the one asked for ─► bytes, counted
//!                                              (read by the proxy where `domain::credential` has something to put in)
//! ```
//!
//! Invariants, held by the property tests: what no rule lists is refused before its name is looked up; no address comes
//! out that is neither public nor named by the operator; never more connections, requests and bytes than the caps say.

mod address;
mod destination;
mod header;
mod hello;
mod ledger;
mod policy;

use serde::{Deserialize, Serialize};

pub use address::{Network, Reach};
pub use destination::Destination;
pub use header::HostHeader;
pub use hello::{Peek, peek};
pub use ledger::{Caps, Ledger};
pub use policy::{Policy, Rule, RuleError};

/// Why something may not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request is not one that a proxy takes: CONNECT host:port, or http://host/ with its Host")]
    Malformed,
    #[error("the environment's allowNet does not list it")]
    NotListed,
    #[error("its name leads nowhere")]
    NoSuchName,
    #[error("it leads to an address that is not public")]
    NotPublic,
    #[error("nobody answers there")]
    Unreachable,
    #[error("what goes through CONNECT is TLS or a WebSocket, and this is neither")]
    NotTls,
    #[error("the name in TLS or in Host is not the one that was asked for")]
    OtherName,
    #[error("the client does not take this host's certificate, or offers no HTTP/1.1 in TLS")]
    Handshake,
    #[error("the server's certificate is not one for its name, or it speaks no TLS")]
    Untrusted,
    #[error("the request's head is too large")]
    HeadTooLarge,
    #[error("too many connections are open at once")]
    Connections,
    #[error("this sandbox has made all the requests that it may")]
    Requests,
    #[error("this sandbox has moved all the bytes that it may")]
    Bytes,
}

impl Refusal {
    /// The name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::NotListed => "not_listed",
            Refusal::NoSuchName => "no_such_name",
            Refusal::NotPublic => "not_public",
            Refusal::Unreachable => "unreachable",
            Refusal::NotTls => "not_tls",
            Refusal::OtherName => "other_name",
            Refusal::Handshake => "handshake",
            Refusal::Untrusted => "untrusted",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::Connections => "connections",
            Refusal::Requests => "requests",
            Refusal::Bytes => "bytes",
        }
    }

    /// The error type of RFC 9209, for the `Proxy-Status` of the answer.
    pub fn proxy_error(self) -> &'static str {
        match self {
            Refusal::Malformed | Refusal::NotTls | Refusal::OtherName | Refusal::Handshake | Refusal::HeadTooLarge => {
                "http_request_error"
            }
            Refusal::Untrusted => "tls_certificate_error",
            Refusal::NotListed => "http_request_denied",
            Refusal::NoSuchName => "dns_error",
            Refusal::NotPublic => "destination_ip_prohibited",
            Refusal::Unreachable => "destination_unavailable",
            Refusal::Connections | Refusal::Requests | Refusal::Bytes => "connection_limit_reached",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Malformed | Refusal::NotTls | Refusal::OtherName | Refusal::Handshake => 400,
            Refusal::HeadTooLarge => 431,
            Refusal::NotListed | Refusal::NotPublic => 403,
            Refusal::NoSuchName | Refusal::Unreachable | Refusal::Untrusted => 502,
            Refusal::Connections | Refusal::Requests | Refusal::Bytes => 429,
        }
    }
}

/// What went out so far, since the daemon's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPicture {
    /// Sandboxes that have a way out at this moment.
    pub gates: usize,
    pub connections: usize,
    pub allowed: u64,
    pub refused: u64,
    /// Secrets that are kept here.
    #[serde(default)]
    pub secrets: usize,
    /// How often one was put into a request, and how often its placeholder was left in one.
    #[serde(default)]
    pub secrets_put: u64,
    #[serde(default)]
    pub secrets_withheld: u64,
    /// To and from sandboxes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests;
