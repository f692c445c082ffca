//! Fetching input images by URL, through a guard against requests to places that only this host can reach.

use async_trait::async_trait;

use crate::domain::secret::Secret;

/// Why nothing was fetched. Names the host at most, never the rest of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("images by URL are not allowed on this worker (jobs.url_hosts)")]
    NotAllowed,
    #[error("the URL is not one of http or https")]
    Url,
    #[error("{0} is not among the hosts that images may come from (jobs.url_hosts)")]
    Host(String),
    #[error("{0} leads to an address that is not public")]
    Private(String),
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} could not be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("the image is larger than {0} bytes")]
    TooLarge(u64),
}

/// Fetches. Redirects are followed through the same guard; sizes and times are bounded.
#[async_trait]
pub trait Fetcher: Send + Sync {
    async fn fetch(&self, url: &str) -> Result<Secret, FetchError>;
}
