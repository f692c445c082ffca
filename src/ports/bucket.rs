//! Object stores, for outputs that are too large for an answer.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;

/// Why an upload failed; names the bucket's host at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    #[error("{host} answered the upload with status {status}")]
    Refused { host: String, status: u16 },
    #[error("{host} could not be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("the bucket's address is not a URL")]
    Address,
}

/// Writes objects.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Uploads under `key` (below the bucket's prefix), with retries, and returns a URL that reads it for `lasting`.
    async fn put(
        &self,
        bucket: &Bucket,
        key: &str,
        mime: &str,
        body: Secret,
        lasting: Duration,
    ) -> Result<String, UploadError>;
}
