//! The host's view: what of a daemon's calls is still there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

/// Pids in a cgroup.
pub fn processes_in(cgroup: &Path) -> BTreeSet<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Pids in the daemon's slots.
pub fn slot_processes(home: &Home) -> BTreeSet<i32> {
    slot_cgroups(home).iter().flat_map(|cgroup| processes_in(cgroup)).collect()
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

/// The names of the slots that are frozen: nothing in them runs.
pub fn frozen_slots(home: &Home) -> BTreeSet<String> {
    let is_frozen = |cgroup: &PathBuf| {
        let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default();
        read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
    };
    let name = |cgroup: PathBuf| Some(cgroup.file_name()?.to_str()?.to_owned());
    slot_cgroups(home).into_iter().filter(is_frozen).filter_map(name).collect()
}

/// Kills the processes of all slots, which rest.
pub fn kill_frozen(home: &Home) {
    for pid in processes_by_name(home) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    for cgroup in slot_cgroups(home) {
        // On v1 what is frozen dies when it is thawed; on v2 it is dead by now.
        drop(std::fs::write(cgroup.join("freezer.state"), "THAWED"));
    }
}

/// Says what is left of calls, but for what belongs to these slots: processes, cgroups, bundles, runtime state, sockets,
/// mounts.
pub fn leftovers_beside(home: &Home, slots: &BTreeSet<String>) -> Result<(), String> {
    let is_theirs = |text: &str| slots.iter().any(|slot| text.contains(slot.as_str()));
    let other = |path: &PathBuf| !is_theirs(&path.to_string_lossy());
    let command_line = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let processes: Vec<i32> = processes_by_name(home)
        .into_iter()
        .filter(|pid| !is_theirs(&String::from_utf8_lossy(&command_line(pid))))
        .collect();
    let cgroups: Vec<PathBuf> = slot_cgroups(home).into_iter().filter(other).collect();
    let bundles = entries(&home.run().join("slots"));
    let state = entries(&home.run().join("runsc"));
    let mounts: Vec<String> = mounts(home).into_iter().filter(|line| !is_theirs(line)).collect();
    let files = [bundles, state, entries(&home.run().join("egress"))].concat();
    let files: Vec<PathBuf> = files.into_iter().filter(other).collect();
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
    // Below the run directory alone: what is mounted elsewhere in the home is a test's own.
    let run = home.run().to_string_lossy().into_owned();
    for mount in mounts(home).iter().rev() {
        if let Some(point) = mount.split_whitespace().nth(4).filter(|point| point.starts_with(&run)) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
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
