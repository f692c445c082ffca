//! The host's view: what of a daemon's calls is still there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::daemon::Home;

/// The daemon's mark in the names of its cgroups.
fn instance(home: &Home) -> Option<String> {
    let text = fs::read_to_string(home.state().join("instance")).ok()?;
    Some(text.trim().to_owned())
}

/// The daemon's own cgroup subtree, in every hierarchy.
pub fn subtrees(home: &Home) -> Vec<PathBuf> {
    let Some(instance) = instance(home) else { return Vec::new() };
    let mut found = Vec::new();
    find_named(Path::new("/sys/fs/cgroup"), &format!("cloister-{instance}"), 6, &mut found);
    found
}

/// Every directory that is a slot's cgroup, in any hierarchy.
pub fn slot_cgroups(home: &Home) -> Vec<PathBuf> {
    subtrees(home).into_iter().flat_map(|parent| directories(&parent)).collect()
}

fn find_named(folder: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for path in directories(folder) {
        if path.file_name().is_some_and(|own| own == name) {
            found.push(path);
        } else if depth > 0 {
            find_named(&path, name, depth - 1, found);
        }
    }
}

fn directories(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let kept = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    kept.map(|entry| entry.path()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Pids in the daemon's slots.
pub fn slot_processes(home: &Home) -> BTreeSet<i32> {
    let read = |cgroup: PathBuf| fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let texts: Vec<String> = slot_cgroups(home).into_iter().map(read).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
}

/// Pids whose command line names the daemon's run directory: every `runsc` of its slots does.
pub fn processes_by_name(home: &Home) -> BTreeSet<i32> {
    let mark = home.run().to_string_lossy().into_owned();
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let is_daemon = program.ends_with(b"/cloister");
        !is_daemon && String::from_utf8_lossy(&line).contains(&mark)
    })
    .collect()
}

/// Mounts below the daemon's directories.
pub fn mounts(home: &Home) -> Vec<String> {
    let root = home.root.path().to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
}

/// Says what is left of calls: processes, cgroups, bundles, runtime state, sockets, mounts.
pub fn leftovers(home: &Home) -> Result<(), String> {
    let processes = processes_by_name(home);
    let cgroups = slot_cgroups(home);
    let bundles = entries(&home.run().join("slots"));
    let state = entries(&home.run().join("runsc"));
    let mounts = mounts(home);
    let files = [bundles, state, entries(&home.run().join("egress"))].concat();
    if processes.is_empty() && cgroups.is_empty() && files.is_empty() && mounts.is_empty() {
        return Ok(());
    }
    Err(format!("processes {processes:?}, cgroups {cgroups:?}, files {files:?}, mounts {mounts:?}"))
}

/// What must stay flat over many rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
    pub resident_kib: usize,
}

/// The daemon's own footprint.
pub fn footprint(pid: i32) -> Footprint {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    Footprint {
        descriptors: entries(Path::new(&format!("/proc/{pid}/fd"))).len(),
        threads: number("Threads:"),
        resident_kib: number("VmRSS:"),
    }
}

/// Takes away whatever a killed daemon left, so that one failing test does not disturb the next.
pub fn clean_up(home: &Home) {
    for pid in slot_processes(home).into_iter().chain(processes_by_name(home)) {
        // It may be gone already.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // A daemon that was killed in the middle of a destruction leaves its slot frozen, and what is frozen does not die.
    for cgroup in slot_cgroups(home) {
        drop(fs::write(cgroup.join("freezer.state"), "THAWED"));
    }
    for parent in subtrees(home) {
        for slot in directories(&parent) {
            drop(fs::remove_dir(slot));
        }
        drop(fs::remove_dir(parent));
    }
}
