//! What a daemon's ComfyUIs leave on the host: processes, RAM directories, cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::daemon::Home;
use crate::support::host;

/// Takes away what is left of a home's ComfyUIs when it is dropped, so that one failing test does not disturb the next.
pub struct Leftovers(Arc<Home>);

impl Leftovers {
    pub fn of(home: Arc<Home>) -> Self {
        Self(home)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for pid in processes(&self.0) {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for room in rooms(&self.0) {
            let _ = umount2(&room, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir_all(&room);
        }
        host::clean_up(&self.0);
    }
}

/// The daemon's mark in the names of what it makes.
pub fn mark(home: &Home) -> Option<String> {
    let text = fs::read_to_string(home.state().join("instance")).ok()?;
    Some(text.trim().to_owned())
}

/// Every live process that carries the mark of an instance of this daemon's, children included.
pub fn processes(home: &Home) -> BTreeSet<i32> {
    let Some(mark) = mark(home) else { return BTreeSet::new() };
    let wanted = format!("CLOISTER_INSTANCE={mark}-");
    pids().filter(|pid| carries(*pid, &wanted)).collect()
}

/// The processes of one instance, by its number.
pub fn processes_of(home: &Home, number: usize) -> BTreeSet<i32> {
    let Some(mark) = mark(home) else { return BTreeSet::new() };
    let wanted = format!("CLOISTER_INSTANCE={mark}-comfy-{number}\0");
    pids().filter(|pid| carries(*pid, &wanted)).collect()
}

/// The process that was started as ComfyUI, of those of one instance.
pub fn main_process(home: &Home, number: usize) -> Option<i32> {
    let is_main = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("main.py")
    };
    processes_of(home, number).into_iter().find(is_main)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A zombie's environment is empty: it does not count.
fn carries(pid: i32, wanted: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

/// The RAM directories.
pub fn rooms(home: &Home) -> Vec<PathBuf> {
    let Some(mark) = mark(home) else { return Vec::new() };
    let entries = fs::read_dir(Path::new("/dev/shm")).into_iter().flatten().flatten();
    let is_own = |path: &PathBuf| path.to_string_lossy().contains(&format!("cloister-{mark}-"));
    entries.map(|entry| entry.path()).filter(is_own).collect()
}

/// The names of the cgroups; each may stand in several hierarchies.
pub fn cgroups(home: &Home) -> BTreeSet<String> {
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    host::slot_cgroups(home).into_iter().filter_map(name).collect()
}

/// Says what there is beyond one process tree, room and cgroup for each of so many instances; 0 of a daemon that ended.
pub fn beyond(home: &Home, instances: usize) -> Result<(), String> {
    let rooms = rooms(home);
    let cgroups = cgroups(home);
    let processes = processes(home);
    let mains = processes.iter().filter(|pid| (0..instances).any(|number| main_process(home, number) == Some(**pid)));
    let is_right = rooms.len() <= instances && cgroups.len() <= instances && mains.count() == processes.len();
    if is_right { Ok(()) } else { Err(format!("processes {processes:?}, rooms {rooms:?}, cgroups {cgroups:?}")) }
}
