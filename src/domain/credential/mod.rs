//! Named secrets that sandboxes use and never see: the proxy puts them in on the way out.
//!
//! ```text
//!   PUT /secrets/NAME ─► Credential ─► sealed, kept          sandbox: NAME=cloister-secret-<32 hex> ─► header ─► proxy
//!                        name, hosts, value                                                            its host? ─► value
//! ```
//!
//! Users call it a secret. Here it is a credential, since [`Secret`] is any bytes that cannot be logged.
//!
//! Invariants, held by the property tests: a header that does not hold a placeholder stays as it is, byte by byte; a value
//! holds nothing that could end its header; a value goes to no host that its credential does not list.

mod name;
mod placeholder;

use super::egress::{Destination, Rule, RuleError};
use super::execution::EnvInvalid;
use super::secret::Secret;
use super::time::WallTime;

pub use name::CredentialName;
pub use placeholder::{Placeholder, put_in, put_into_basic, take_out};

/// The longest value, in bytes.
pub const MOST_VALUE_BYTES: usize = 8192;
/// The most hosts that one may list.
pub const MOST_HOSTS: usize = 64;
/// The most that one environment may name.
pub const MOST_NAMED: usize = 32;

/// A named secret, in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub name: CredentialName,
    /// Where its value may go; at least one.
    pub hosts: Vec<Rule>,
    pub value: Secret,
}

/// Why something is no credential. Nothing of the value is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialInvalid {
    #[error("the secret's name cannot be one: {0}")]
    Name(EnvInvalid),
    #[error("hosts is required: list the hosts that the secret may be sent to, such as \"api.example.com\"")]
    NoHosts,
    #[error("{0} hosts are too many: at most {MOST_HOSTS} are allowed")]
    TooManyHosts(usize),
    #[error("hosts has {entry:?}, which is {error}")]
    Host { entry: String, error: RuleError },
    #[error(
        "value must be 1 to {MOST_VALUE_BYTES} visible ASCII characters; spaces only between them, and no line breaks"
    )]
    Value,
}

impl Credential {
    /// # Errors
    /// The first thing that is wrong with any of the three.
    pub fn new(name: &str, hosts: &[String], value: Secret) -> Result<Self, CredentialInvalid> {
        let name = name.parse().map_err(CredentialInvalid::Name)?;
        let hosts = rules(hosts)?;
        if fits_a_header(value.bytes()) { Ok(Self { name, hosts, value }) } else { Err(CredentialInvalid::Value) }
    }
}

fn rules(hosts: &[String]) -> Result<Vec<Rule>, CredentialInvalid> {
    match hosts.len() {
        0 => return Err(CredentialInvalid::NoHosts),
        1..=MOST_HOSTS => {}
        many => return Err(CredentialInvalid::TooManyHosts(many)),
    }
    let rule = |entry: &String| {
        let clipped = || entry.chars().take(300).collect();
        entry.parse().map_err(|error| CredentialInvalid::Host { entry: clipped(), error })
    };
    hosts.iter().map(rule).collect()
}

/// Whether bytes can be part of a header's value, and stay what they are there (RFC 9110 §5.5).
fn fits_a_header(value: &[u8]) -> bool {
    let spaced = |byte: Option<&u8>| byte == Some(&b' ');
    (1..=MOST_VALUE_BYTES).contains(&value.len())
        && value.iter().all(|byte| (b' '..=b'~').contains(byte))
        && !spaced(value.first())
        && !spaced(value.last())
}

/// What is told of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFacts {
    pub name: CredentialName,
    pub hosts: Vec<Rule>,
    pub created_at: WallTime,
    pub updated_at: WallTime,
}

/// Whether a value that may go to `hosts` may go to `to`. In clear only where an entry names the port: who lists a host
/// alone means its TLS, and code that nobody reviewed chooses between `http` and `https`.
pub fn may_go(hosts: &[Rule], to: &Destination, in_clear: bool) -> bool {
    hosts.iter().any(|rule| rule.admits(to) && (!in_clear || rule.names_port()))
}

#[cfg(test)]
mod tests;
