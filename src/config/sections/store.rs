//! `[store]`: the record of environments and calls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DAY, Reader, secs};

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    /// The most read connections at once.
    pub read_connections: u32,
    /// How long a finished call's record is kept.
    pub keep_executions: Duration,
    /// True: what handlers print is kept with the record. User data.
    pub keep_output: bool,
}

impl Store {
    pub(super) fn read(reader: &mut Reader<'_>, state_dir: &Path) -> Self {
        Self {
            path: reader.path_or("store.path", "daemon.state_dir", &state_dir.join("cloister.db")),
            read_connections: reader.whole("store.read_connections", 1..=64),
            keep_executions: reader.span("store.keep_executions", secs(0)..=secs(3650 * DAY)),
            keep_output: reader.switch("store.keep_output"),
        }
    }
}
