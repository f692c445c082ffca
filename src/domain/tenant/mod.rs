//! Tenants: who the callers are, what their tokens let them do, and what is theirs.
//!
//! Whatever a tenant makes is its own: environments, calls, jobs. To everybody else it does not exist.

mod scope;
mod token;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::quota::{Allowance, Quotas, Usage};
use crate::domain::time::WallTime;

pub use scope::{Scope, Scopes};
pub use token::{MAX_LIFE, Token, TokenId, TokenOrder};

/// The longest name of a tenant, in bytes.
const LONGEST: usize = 64;

/// A tenant's name. It goes into logs, routes and the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TenantName(Arc<str>);

/// A text that is no tenant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name has 1 to {LONGEST} lower-case letters, digits and - _ . and begins with a letter or a digit")]
pub struct InvalidTenantName;

impl TenantName {
    /// Whose everything is that came without a token of a tenant: by the operator's own token, or from a queue.
    pub fn operator() -> Self {
        Self(Arc::from("default"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, InvalidTenantName> {
        let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let starts_well = text.as_bytes().first().is_some_and(first);
        let reads_well = text.bytes().all(|byte| first(&byte) || b"-_.".contains(&byte));
        if !starts_well || !reads_well || text.len() > LONGEST {
            return Err(InvalidTenantName);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl<'de> Deserialize<'de> for TenantName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who sent a request, as its token told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantName,
    pub scopes: Scopes,
    /// None: the operator's own token, or none where none is asked for. Routes that no scope is for are the operator's.
    pub token: Option<TokenId>,
}

impl Caller {
    /// The operator: the tenant "default", with every scope.
    pub fn operator() -> Self {
        Self { tenant: TenantName::operator(), scopes: Scopes::all(), token: None }
    }

    /// Whether this is the operator himself and not a tenant's token.
    pub fn is_operator(&self) -> bool {
        self.token.is_none()
    }
}

/// A tenant as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub name: TenantName,
    pub created_at: WallTime,
    /// Its own allowance; what it leaves open is the configuration's.
    pub allowance: Allowance,
}

/// A tenant as it is shown to whoever runs the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantView {
    pub tenant: Tenant,
    /// What is in force.
    pub quotas: Quotas,
    pub usage: Usage,
    pub tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_route_and_in_a_log_line() {
        for good in ["a", "team-7", "0", "acme.example_2", &"x".repeat(64)] {
            assert_eq!(good.parse::<TenantName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "A", "-a", ".", "..", "a b", "a/b", "é", "a\n", "a%", &"x".repeat(65)] {
            assert_eq!(bad.parse::<TenantName>(), Err(InvalidTenantName), "{bad:?}");
        }
        assert_eq!(TenantName::operator().as_str().parse(), Ok(TenantName::operator()));
    }
}
