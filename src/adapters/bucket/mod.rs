//! Object stores that speak S3: signed by rusty-s3, sent by the common client.
//!
//! An upload is one PUT to a presigned, path-style URL. Only the host is signed and the body is not hashed, so that there
//! is neither a checksum header nor a trailer, which R2 and GCS refuse from newer SDKs of S3's maker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Client, Url};
use rusty_s3::{Bucket as S3Bucket, Credentials, S3Action, UrlStyle};

use crate::domain::bucket::Bucket;
use crate::domain::secret::Secret;
use crate::ports::bucket::{ObjectStore, UploadError};
use crate::ports::clock::Clock;
use crate::telemetry::transport_cause;

/// How long an upload's own URL is good, over all attempts.
const PUT_LASTS: Duration = Duration::from_secs(3600);
/// The longest that a reading URL can be good.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);
/// For one attempt: a bit, and what the bytes take on a slow line.
const PUT_WITHIN: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;

/// How often an upload is tried, and how it waits in between.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    /// At least 1.
    pub most: u32,
    /// Before the second attempt; doubled for each after it.
    pub first_wait: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { most: 5, first_wait: Duration::from_millis(500) }
    }
}

/// Says whether a stranger's endpoint may be connected to, when its host is an address.
pub type MayReach = Arc<dyn Fn(&Url) -> bool + Send + Sync>;

/// The clients of a store. None of them follows redirects by itself.
pub struct Clients {
    /// For the host's own bucket, which may lie in a private network.
    pub own: Client,
    /// For buckets that come with a job: looks up public addresses only.
    pub guarded: Client,
    /// Looks at addresses that need no looking up, for the same buckets.
    pub may_reach: MayReach,
}

/// Uploads by HTTP.
pub struct S3Store {
    clients: Clients,
    clock: Arc<dyn Clock>,
    attempts: Attempts,
}

/// How one attempt ended.
enum Attempt {
    Stored,
    /// Worth another try.
    Failed(UploadError),
    Refused(UploadError),
}

impl S3Store {
    /// Connects to nobody yet.
    pub fn new(clients: Clients, clock: Arc<dyn Clock>, attempts: Attempts) -> Self {
        Self { clients, clock, attempts }
    }

    /// Now, as signatures count it.
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.wall().0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    async fn attempt(&self, client: &Client, url: Url, host: &str, mime: &str, body: Bytes) -> Attempt {
        let seconds = u64::try_from(body.len()).unwrap_or(u64::MAX) / SLOWEST_BYTES_PER_SECOND;
        let request = client
            .put(url)
            .header(CONTENT_TYPE, mime)
            .header(CONTENT_LENGTH, body.len())
            .body(body)
            .timeout(PUT_WITHIN + Duration::from_secs(seconds));
        match request.send().await {
            Ok(response) => match response.status().as_u16() {
                200..=299 => Attempt::Stored,
                status @ (408 | 429 | 500..=599) => Attempt::Failed(UploadError::Refused { host: host.into(), status }),
                status => Attempt::Refused(UploadError::Refused { host: host.into(), status }),
            },
            Err(error) => {
                Attempt::Failed(UploadError::Unreachable { host: host.into(), cause: transport_cause(&error) })
            }
        }
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(
        &self,
        bucket: &Bucket,
        key: &str,
        mime: &str,
        body: Secret,
        lasting: Duration,
    ) -> Result<String, UploadError> {
        let now = self.now();
        let endpoint = Url::parse(&bucket.endpoint).map_err(|_| UploadError::Address)?;
        let host = endpoint.host_str().unwrap_or_default().to_owned();
        let client = if bucket.brought { &self.clients.guarded } else { &self.clients.own };
        if bucket.brought && !(self.clients.may_reach)(&endpoint) {
            return Err(UploadError::Address);
        }
        let name = if bucket.name.is_empty() { now.strftime("%m-%y").to_string() } else { bucket.name.clone() };
        let signer = S3Bucket::new(endpoint, UrlStyle::Path, name, bucket.region.clone());
        let signer = signer.map_err(|_| UploadError::Address)?;
        let rights = Credentials::new(bucket.access_id.as_str(), bucket.access_secret.as_str());
        let key = whole_key(&bucket.prefix, key).ok_or(UploadError::Address)?;

        let upload = signer.put_object(Some(&rights), &key).sign_with_time(PUT_LASTS, &now);
        let body = Bytes::from_owner(body);
        let mut wait = self.attempts.first_wait;
        for left in (0..self.attempts.most.max(1)).rev() {
            match self.attempt(client, upload.clone(), &host, mime, body.clone()).await {
                Attempt::Stored => break,
                Attempt::Refused(error) => return Err(error),
                Attempt::Failed(error) if left == 0 => return Err(error),
                Attempt::Failed(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        let link = signer.get_object(Some(&rights), &key).sign_with_time(lasting.min(LONGEST_LINK), &self.now());
        Ok(link.into())
    }
}

/// The key below the prefix, without the segments that a URL would resolve as a path's. None when nothing is left.
fn whole_key(prefix: &str, key: &str) -> Option<String> {
    let plain = |segment: &&str| !matches!(*segment, "" | "." | "..");
    let segments: Vec<&str> = prefix.split('/').chain(key.split('/')).filter(plain).collect();
    let any_of_key = key.split('/').any(|segment| plain(&segment));
    any_of_key.then(|| segments.join("/"))
}

#[cfg(test)]
mod tests;
