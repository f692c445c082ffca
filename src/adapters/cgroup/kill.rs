//! Emptying a cgroup and removing it. Everything here may vanish at any moment, and may have been half done before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Directories;
use super::files::{failed, is_gone, processes, unless_gone, with_descendants, write};
use super::freeze::thaw_v1;
use crate::ports::cgroup::CgroupError;
use crate::sys::pidfd::PidFd;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Rounds of killing and removing with growing pauses between them, until both are done or `patience` has passed.
pub(super) async fn kill_and_remove(
    name: &str,
    directories: &Directories,
    patience: Duration,
) -> Result<(), CgroupError> {
    let paths = directories.paths();
    let mut waited = Duration::ZERO;
    let mut pause = FIRST_PAUSE;
    loop {
        strike(directories, &paths)?;
        let left = processes(&paths)?.len();
        // A cgroup may stay busy for a moment after its last process has left.
        let busy = if left == 0 { remove(&paths)? } else { None };
        if left == 0 && busy.is_none() {
            return Ok(());
        }
        if waited >= patience {
            let not_empty = CgroupError::NotEmpty { name: name.to_owned(), processes: left, waited };
            return Err(busy.filter(|_| left == 0).unwrap_or(not_empty));
        }
        let next = pause.min(patience - waited);
        tokio::time::sleep(next).await;
        waited += next;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// SIGKILL to everything in the cgroup. What forks meanwhile is caught by the next round.
fn strike(directories: &Directories, paths: &[PathBuf]) -> Result<(), CgroupError> {
    match directories {
        Directories::V2(directory) => {
            if directory.kill_all()? {
                return Ok(());
            }
            strike_listed(directory.path())
        }
        Directories::V1(directories) => {
            if processes(paths)?.is_empty() {
                return Ok(());
            }
            // Children inherit the freezing, so that a fork bomb stands still while it is listed. The signal acts at
            // the thaw, which also ends a freeze that was there before.
            unless_gone(write(&directories.freezer().join("freezer.state"), "FROZEN"))?;
            kill_listed(paths)?;
            thaw_v1(directories.freezer())
        }
    }
}

/// v2 before Linux 5.14. A frozen process cannot fork, and dies of SIGKILL all the same.
pub(super) fn strike_listed(directory: &Path) -> Result<(), CgroupError> {
    let freeze = directory.join("cgroup.freeze");
    unless_gone(write(&freeze, "1"))?;
    kill_listed(&[directory.to_owned()])?;
    unless_gone(write(&freeze, "0"))
}

/// Kills by pidfd, and only pids that are listed before and after their descriptor was opened: a pid that went to a
/// stranger in between is not listed any more.
fn kill_listed(paths: &[PathBuf]) -> Result<(), CgroupError> {
    let opened: Vec<(i32, PidFd)> =
        processes(paths)?.into_iter().filter_map(|pid| Some((pid, PidFd::open(pid).ok()?))).collect();
    let listed = processes(paths)?;
    for (_, process) in opened.iter().filter(|(pid, _)| listed.contains(pid)) {
        // A process that may not be killed shows up as NotEmpty.
        let _ = process.kill();
    }
    Ok(())
}

/// Removes the directories, children first. Answers with the error of one that is still busy.
fn remove(paths: &[PathBuf]) -> Result<Option<CgroupError>, CgroupError> {
    let mut busy = None;
    for path in paths {
        for cgroup in with_descendants(path)?.iter().rev() {
            match std::fs::remove_dir(cgroup) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
                    busy = Some(failed("remove", cgroup)(error));
                }
                Err(error) => return Err(failed("remove", cgroup)(error)),
            }
        }
    }
    Ok(busy)
}
