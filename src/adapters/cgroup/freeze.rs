//! Stopping a cgroup and letting it go on: `freezer.state` of v1, `cgroup.freeze` of v2 (Linux 5.2).

use std::path::Path;
use std::time::Duration;

use super::Directories;
use super::files::{read, read_field, unless_gone, with_descendants, write};
use crate::ports::cgroup::CgroupError;

/// How long a process may take to come to a stop: one that is in the middle of a long system call cannot at once.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn freeze(directories: &Directories) -> Result<(), CgroupError> {
    let path = match directories {
        Directories::V1(directories) => directories.freezer(),
        Directories::V2(directory) => directory.path(),
    };
    let mut waited = Duration::ZERO;
    let mut pause = FIRST_PAUSE;
    loop {
        // On v1 writing it again also makes the kernel try again.
        let frozen = match directories {
            Directories::V1(_) => {
                let state = path.join("freezer.state");
                write(&state, "FROZEN")?;
                read(&state)?.trim() == "FROZEN"
            }
            Directories::V2(_) => {
                write(&path.join("cgroup.freeze"), "1")?;
                read_field(&path.join("cgroup.events"), "frozen")? == 1
            }
        };
        if frozen {
            return Ok(());
        }
        if waited >= PATIENCE {
            thaw(directories)?;
            return Err(CgroupError::NotFrozen { path: path.to_owned(), waited });
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

pub(super) fn thaw(directories: &Directories) -> Result<(), CgroupError> {
    match directories {
        Directories::V1(directories) => thaw_v1(directories.freezer()),
        Directories::V2(directory) => write(&directory.path().join("cgroup.freeze"), "0"),
    }
}

/// On v1 each cgroup beneath has a state of its own.
pub(super) fn thaw_v1(freezer: &Path) -> Result<(), CgroupError> {
    for cgroup in with_descendants(freezer)? {
        unless_gone(write(&cgroup.join("freezer.state"), "THAWED"))?;
    }
    Ok(())
}
