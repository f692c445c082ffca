//! `[secrets]`: the key of what the proxy puts into sandboxes' requests.

use std::path::PathBuf;

use super::Reader;

/// `[secrets]`
#[derive(Debug, Clone)]
pub struct Secrets {
    /// None: systemd's credential, or the daemon's own file.
    pub key_file: Option<PathBuf>,
}

impl Secrets {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { key_file: reader.path_if_any("secrets.key_file") }
    }
}
