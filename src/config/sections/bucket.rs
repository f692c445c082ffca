//! `[bucket]`: where outputs go that are too large for an answer.

use std::time::Duration;

use secrecy::SecretString;

use super::{DAY, Reader, secs};

/// `[bucket]`
#[derive(Debug, Clone)]
pub struct Bucket {
    /// None: there is no bucket, and what is too large is an error.
    pub access: Option<BucketAccess>,
    /// How long an uploaded output can be read by its address.
    pub link_lasts: Duration,
}

/// A bucket and the right to write there.
#[derive(Debug, Clone)]
pub struct BucketAccess {
    /// Such as `https://s3.example.com`.
    pub endpoint: String,
    /// None: the month names it.
    pub name: Option<String>,
    /// None: it follows from the endpoint.
    pub region: Option<String>,
    /// Begins all keys; without slashes at its ends, and may be empty.
    pub prefix: String,
    pub access_key_id: SecretString,
    pub secret_access_key: SecretString,
}

impl Bucket {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let endpoint = reader.url_if_any("bucket.endpoint");
        let id = reader.secret("bucket.access_key_id");
        let secret = reader.secret("bucket.secret_access_key");
        let name = reader.text_if_any("bucket.name");
        let region = reader.text_if_any("bucket.region");
        let prefix = reader.text_if_any("bucket.prefix").unwrap_or_default();
        let link_lasts = reader.span("bucket.link_lasts", secs(1)..=secs(7 * DAY));
        let access = match (endpoint, id, secret) {
            (None, None, None) => None,
            (Some(endpoint), Some(access_key_id), Some(secret_access_key)) => {
                let prefix = prefix.trim_matches('/').to_owned();
                Some(BucketAccess { endpoint, name, region, prefix, access_key_id, secret_access_key })
            }
            (endpoint, id, secret) => {
                let keys = ["bucket.endpoint", "bucket.access_key_id", "bucket.secret_access_key"];
                let given = [endpoint.is_some(), id.is_some(), secret.is_some()];
                for (key, _) in keys.iter().zip(given).filter(|(_, given)| !given) {
                    reader.refuse(key, "a bucket needs its endpoint and both of its keys; set all three, or none");
                }
                None
            }
        };
        Self { access, link_lasts }
    }
}
