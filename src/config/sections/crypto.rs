//! `[crypto]`: the keys that sealed jobs are opened with, and the replay guard.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DAY, HOUR, MINUTE, Reader, secs};

/// `[crypto]`
#[derive(Debug, Clone)]
pub struct Crypto {
    /// The current private key; none: `WORKER_PRIVATE_KEY_B64`, or systemd's credential.
    pub private_key_file: Option<PathBuf>,
    /// Keys that requests may still be sealed to.
    pub former_key_files: Vec<PathBuf>,
    /// How long a former key is kept.
    pub overlap: Duration,
    /// True: workflows in clear are refused.
    pub required: bool,
    /// How far the time of a v2 request may be from this host's, to either side.
    pub replay_window: Duration,
    /// The most requests that the replay guard remembers.
    pub replay_room: usize,
    /// Where it remembers them.
    pub replay_path: PathBuf,
}

impl Crypto {
    pub(super) fn read(reader: &mut Reader<'_>, state_dir: &Path) -> Self {
        Self {
            private_key_file: reader.path_if_any("crypto.private_key_file"),
            former_key_files: former(reader),
            overlap: reader.span("crypto.overlap", secs(0)..=secs(30 * DAY)),
            required: reader.switch("crypto.required"),
            replay_window: reader.span("crypto.replay_window", secs(MINUTE)..=secs(24 * HOUR)),
            replay_room: reader.whole("crypto.replay_room", 1000..=10_000_000),
            replay_path: reader.path_or("crypto.replay_path", "daemon.state_dir", &state_dir.join("replay.db")),
        }
    }
}

/// Paths divided by colons, as in PATH.
fn former(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let Some(list) = reader.path_if_any("crypto.former_key_files") else { return Vec::new() };
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).map(absolute).collect()
}
