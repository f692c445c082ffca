//! Where a slot's things lie on the host.

use std::path::{Path, PathBuf};

use crate::domain::id::SlotId;

/// The container's name inside a slot's own state directory, short for the sake of its socket's path. One directory per slot: removing it removes bundle and
/// runtime state together, and no `runsc delete` process is needed for a sandbox whose cgroup is empty.
pub(super) const CONTAINER: &str = "s";

/// `sun_path` without its final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The directories of the engine.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    run_dir: PathBuf,
}

impl Layout {
    pub(super) fn new(run_dir: PathBuf) -> Self {
        Self { run_dir }
    }

    pub(super) fn slots(&self) -> PathBuf {
        self.run_dir.join("slots")
    }

    pub(super) fn runners(&self) -> PathBuf {
        self.run_dir.join("runners")
    }

    /// Bundle (`config.json`) and state of one slot.
    pub(super) fn slot(&self, slot: SlotId) -> PathBuf {
        self.slots().join(slot.to_string())
    }

    /// `--root` of one slot.
    pub(super) fn state(&self, slot: SlotId) -> PathBuf {
        state_in(&self.slot(slot))
    }

    /// runsc binds `<root>/runsc-<id>.sock`. Where that name is too long for a socket it silently falls back to
    /// /var/run, where all slots would meet: such a `run_dir` is refused.
    pub(super) fn problem(&self) -> Option<String> {
        let name = self.state(SlotId(uuid::Uuid::nil())).join(format!("runsc-{CONTAINER}.sock"));
        let excess = name.as_os_str().len().checked_sub(SOCKET_PATH_MAX).filter(|&excess| excess > 0)?;
        Some(format!(
            "the run directory {} is {excess} characters too long for the sandboxes' control sockets: choose a shorter one",
            self.run_dir.display()
        ))
    }
}

/// The state directory inside a slot's directory.
pub(super) fn state_in(slot_dir: &Path) -> PathBuf {
    slot_dir.join("state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_too_long_for_a_socket_is_named() {
        assert_eq!(Layout::new("/run/cloister".into()).problem(), None);
        let long = Layout::new(format!("/{}", "x".repeat(60)).into());
        assert!(long.problem().is_some_and(|text| text.contains("too long")));
    }
}
