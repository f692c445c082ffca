//! Where a request wants to go.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;

/// The longest name of a host.
const MOST_NAME: usize = 253;

/// A host and a port. The host is in one spelling: lower case, without a final dot; IPv6 without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    host: String,
    port: u16,
}

impl Destination {
    /// Reads `host`, `host:port` or `[IPv6]:port`. None where the text is anything else, or has no port and there is no
    /// default. A user's name, a path, white space and non-ASCII letters are anything else.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = split(text)?;
        let port = match port {
            Some(digits) => port_of(digits)?,
            None => default_port?,
        };
        Some(Self { host: host_of(host)?, port })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one in its usual spelling. Unusual ones (`127.1`) are names, and are judged by what
    /// they lead to.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether `name`, out of a `Host` or of TLS, means this host.
    pub fn is_named(&self, name: &str) -> bool {
        host_of(name).is_some_and(|name| name == self.host)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bracketed(&self.host))?;
        write!(f, ":{}", self.port)
    }
}

/// As it stands before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The host, and the port where there is one.
pub(super) fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let end = rest.find(']')? + 2;
        let (host, after) = text.split_at_checked(end)?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// A port that can be connected to.
pub(super) fn port_of(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port != 0)
}

/// A host in its one spelling. IPv6 stands in brackets.
pub(super) fn host_of(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('[') {
        let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let good = name.len() <= MOST_NAME && name.split('.').all(label);
    good.then(|| name.to_ascii_lowercase())
}
