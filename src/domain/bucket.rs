//! An object store's bucket, where large outputs go.

use std::fmt;

use serde::Deserialize;

/// A place for objects and the right to write there.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Such as `https://s3.example.com`; path-style.
    pub endpoint: String,
    /// Empty: named after the month in which it is written to, as RunPod's SDK does (`11-26`).
    pub name: String,
    pub region: String,
    pub access_id: String,
    pub access_secret: String,
    /// A prefix of all keys, without a slash at its end; may be empty.
    pub prefix: String,
    /// It came with a job: a stranger chose the endpoint, so it may lead to public addresses only.
    pub brought: bool,
}

/// A bucket in RunPod's words, as a job brings it (`s3Config`). Usable whole or not at all: half of it would be filled up
/// with the host's own keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Config {
    endpoint_url: String,
    access_id: String,
    access_secret: String,
    bucket_name: String,
    #[serde(default)]
    object_path: Option<String>,
}

impl From<S3Config> for Bucket {
    fn from(config: S3Config) -> Self {
        Self {
            region: region_of(&config.endpoint_url),
            endpoint: config.endpoint_url,
            name: config.bucket_name,
            access_id: config.access_id,
            access_secret: config.access_secret,
            prefix: config.object_path.unwrap_or_default().trim_matches('/').to_owned(),
            brought: true,
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({} at {})", self.name, self.endpoint)
    }
}

/// Providers whose host names hold the region after the label `s3`, also when that label comes first.
const AFTER_S3: [&str; 4] = [".amazonaws.com", ".amazonaws.com.cn", ".backblazeb2.com", ".wasabisys.com"];
/// What a store is signed for that names no region.
const ANY_REGION: &str = "us-east-1";

/// The region to sign for, as far as the endpoint's host tells it.
pub fn region_of(endpoint: &str) -> String {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = host.split(['/', ':', '?']).next().unwrap_or_default().to_ascii_lowercase();
    if host.ends_with(".r2.cloudflarestorage.com") {
        return "auto".to_owned();
    }
    let labels: Vec<&str> = host.split('.').collect();
    let found = match host.strip_suffix(".digitaloceanspaces.com") {
        Some(before) => before.split('.').next_back(),
        None => after_s3(&host, &labels),
    };
    found.unwrap_or(ANY_REGION).to_owned()
}

/// The label after `s3` (or after `s3.dualstack`), when a domain of two labels or more follows it.
fn after_s3<'a>(host: &str, labels: &[&'a str]) -> Option<&'a str> {
    let at = labels.iter().position(|label| *label == "s3")?;
    if at == 0 && !AFTER_S3.iter().any(|domain| host.ends_with(domain)) {
        return None;
    }
    let rest: Vec<&str> = labels.iter().skip(at + 1).copied().filter(|label| *label != "dualstack").collect();
    if rest.len() < 3 { None } else { rest.first().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_the_host_where_it_stands_there() {
        for (endpoint, region) in [
            ("https://bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
            ("https://s3.eu-central-1.amazonaws.com/", "eu-central-1"),
            ("https://s3.dualstack.us-west-2.amazonaws.com", "us-west-2"),
            ("https://s3.amazonaws.com", "us-east-1"),
            ("https://bucket.s3.amazonaws.com", "us-east-1"),
            ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
            ("https://s3.wasabisys.com", "us-east-1"),
            ("https://nyc3.digitaloceanspaces.com", "nyc3"),
            ("https://bucket.fra1.digitaloceanspaces.com", "fra1"),
            ("https://abcdef.r2.cloudflarestorage.com", "auto"),
            ("https://storage.googleapis.com", "us-east-1"),
            ("https://s3.example.co.uk", "us-east-1"),
            ("http://127.0.0.1:9000", "us-east-1"),
            ("nonsense", "us-east-1"),
        ] {
            assert_eq!(region_of(endpoint), region, "{endpoint}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let bucket = Bucket {
            endpoint: "https://s3.example".into(),
            name: "b".into(),
            region: ANY_REGION.into(),
            access_id: "AKIDX".into(),
            access_secret: "hunter2".into(),
            prefix: String::new(),
            brought: false,
        };
        assert_eq!(format!("{bucket:?}"), "Bucket(b at https://s3.example)");
    }
}
