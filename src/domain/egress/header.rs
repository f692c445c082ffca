//! A header that the daemon itself puts on the requests to a host: what a sandbox never has in its hands.

use super::policy::Rule;
use crate::domain::secret::Secret;

/// Put on every request that goes where `rule` admits, in place of the sandbox's own of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHeader {
    pub rule: Rule,
    pub name: String,
    pub value: Secret,
    /// Whether it may go there without TLS, too.
    pub in_clear: bool,
}
