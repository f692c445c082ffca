//! An environment's `allowNet` as rules.

use std::fmt;
use std::str::FromStr;

use super::Refusal;
use super::destination::{Destination, bracketed, host_of, port_of, split};
use crate::domain::environment::Grant;

/// One entry of `allowNet`: `host`, `*.suffix`, each with `:port` where only that one is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In its one spelling; without `*.`.
    host: String,
    /// Any name below the host, and not the host itself.
    below: bool,
    /// None: every port.
    port: Option<u16>,
}

/// The entry is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host, host:port or *.suffix (IPv6 in brackets, international names as xn--…, no scheme and no path)")]
pub struct RuleError;

impl Rule {
    /// Whether only one port is meant.
    pub fn names_port(&self) -> bool {
        self.port.is_some()
    }

    pub fn admits(&self, to: &Destination) -> bool {
        let host = if self.below {
            let before = to.host().strip_suffix(&self.host).and_then(|before| before.strip_suffix('.'));
            before.is_some_and(|before| !before.is_empty()) && to.address().is_none()
        } else {
            to.host() == self.host
        };
        host && self.port.is_none_or(|port| port == to.port())
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (host, port) = split(text).ok_or(RuleError)?;
        let port = port.map(|digits| port_of(digits).ok_or(RuleError)).transpose()?;
        let (host, below) = match host.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (host, false),
        };
        let host = host_of(host).ok_or(RuleError)?;
        // Below an address there is nothing.
        let address = host.parse::<core::net::IpAddr>().is_ok();
        if below && address { Err(RuleError) } else { Ok(Self { host, below, port }) }
    }
}

/// As Deno's own `--allow-net` reads it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", bracketed(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// What an environment may reach, of all that this host admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    Any,
    /// At least one.
    Only(Vec<Rule>),
}

impl Policy {
    /// The policy of a grant; None where it lets nothing out. An entry that is no rule admits nothing: set-ups are refused
    /// with one, but a record may be older than that.
    pub fn of(grant: Option<&Grant>) -> Option<Self> {
        match grant? {
            Grant::Switch(true) => Some(Policy::Any),
            Grant::Switch(false) => None,
            Grant::Only(entries) => {
                let rules: Vec<Rule> = entries.iter().filter_map(|entry| entry.parse().ok()).collect();
                (!rules.is_empty()).then_some(Policy::Only(rules))
            }
        }
    }

    /// Whether a request may go there, before anybody looks up what its name leads to.
    ///
    /// # Errors
    /// `NotListed`.
    pub fn judge(&self, to: &Destination) -> Result<(), Refusal> {
        match self {
            Policy::Any => Ok(()),
            Policy::Only(rules) if rules.iter().any(|rule| rule.admits(to)) => Ok(()),
            Policy::Only(_) => Err(Refusal::NotListed),
        }
    }
}
