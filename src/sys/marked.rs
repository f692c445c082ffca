//! Processes that carry a mark in their environment: what a tree of processes leaves behind on a host without cgroups.
//!
//! A child inherits the mark, also one that left its parent's process group and session. One that empties its
//! environment escapes; only a cgroup holds that one.

use std::io;

use procfs::process::all_processes;

use super::pidfd::PidFd;

/// Sends SIGKILL to every process whose environment has exactly this entry (`NAME=value`), and says how many there
/// were. Zombies have no environment and do not count. Reads all of `/proc`: call it off the actors' threads.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn kill(entry: &str) -> io::Result<usize> {
    let processes = all_processes().map_err(io::Error::other)?;
    let mut found = 0;
    for pid in processes.filter_map(|process| Some(process.ok()?.pid)) {
        if !carries(pid, entry) {
            continue;
        }
        // Held by descriptor, and looked at again: the pid may have become another's in between.
        let Ok(held) = PidFd::open(pid) else { continue };
        if carries(pid, entry) {
            held.kill()?;
            found += 1;
        }
    }
    Ok(found)
}

fn carries(pid: i32, entry: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == entry.as_bytes())
}
