//! `sandbox.images`: how runtimes that come from images are fetched and tried.

use std::path::PathBuf;
use std::time::Duration;

use super::{DAY, Reader, secs};
use crate::domain::egress::Destination;

/// `sandbox.images.…`
#[derive(Debug, Clone)]
pub struct Images {
    /// Good starts that a new image needs before it takes the place of another.
    pub soak_starts: u32,
    /// The most bytes of an image.
    pub bytes: u64,
    /// For one image to be fetched and unpacked.
    pub pull_deadline: Duration,
    /// Credentials for registries, as docker and podman keep them.
    pub auth_file: Option<PathBuf>,
    /// Registries that are asked over plain HTTP, in lower case.
    pub plain_http: Vec<String>,
}

impl Images {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            soak_starts: reader.whole("sandbox.images.soak_starts", 0..=100_000),
            bytes: reader.whole::<u64>("sandbox.images.mib", 1..=1_048_576) << 20,
            pull_deadline: reader.span("sandbox.images.pull_deadline", secs(1)..=secs(DAY)),
            auth_file: reader.path_if_any("sandbox.images.auth_file"),
            plain_http: plain_http(reader),
        }
    }
}

fn plain_http(reader: &mut Reader<'_>) -> Vec<String> {
    const KEY: &str = "sandbox.images.plain_http";
    let text = reader.text_if_any(KEY).unwrap_or_default();
    let mut hosts = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        if Destination::parse(entry, Some(80)).is_some() {
            hosts.push(entry.to_ascii_lowercase());
        } else {
            reader.refuse(KEY, &format!("{entry:?} is no host or host:port"));
        }
    }
    hosts
}
