//! A registry that speaks the distribution specification: manifests and blobs over HTTPS, each checked by its digest.
//!
//! ```text
//!   GET ─► 401 with a challenge ─► token, or user and password ─► GET again ─► redirect ─► (five times at most) ─► body, bounded
//! ```
//!
//! Credentials go to the registry itself and to whom it names for tokens, never along with a redirect to another host, and
//! never into a message. Plain HTTP is for loopback hosts and those that the operator names; no redirect leads to it.

mod credentials;
mod session;

pub(super) use credentials::{Credentials, CredentialsError};
pub(super) use session::{PlainHosts, Session};

/// What a registry did not do. Names hosts, never a whole address: it may hold a signature.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{host} answered {status} for {what}: {}", hint(*status))]
    Status { host: String, status: u16, what: String },
    #[error("{0} does not say which rights it wants")]
    Challenge(String),
    #[error("{0} gives out no token that can be used")]
    Token(String),
    #[error("the credentials for it cannot be used")]
    Credentials(#[from] CredentialsError),
    #[error("{0} leads to plain HTTP, which only loopback hosts and those in sandbox.images.plain_http may speak")]
    Plain(String),
    #[error("{0} redirects without end, or to no address")]
    Redirects(String),
    #[error("{host} sends more than {most} bytes")]
    Large { host: String, most: u64 },
    #[error("{host} says that the manifest is {told}, and it is {is}")]
    Manifest { host: String, told: String, is: String },
    #[error("no client for HTTPS can be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("what it sends cannot be kept on this host")]
    Disk(#[source] std::io::Error),
}

impl RegistryError {
    /// True where another try may end otherwise: a registry is mended, an image is pushed, rights are granted.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, RegistryError::Plain(_) | RegistryError::Client(_))
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "it wants other credentials (sandbox.images.auth_file), or there is no such image",
        404 => "there is no such image",
        429 => "it was asked too often",
        _ => "see the registry's own log",
    }
}

#[cfg(test)]
mod tests;
