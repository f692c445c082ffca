//! Cgroup v2 (Documentation/admin-guide/cgroup-v2): one directory, one file for each limit.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::detect::Spot;
use super::files::{check_bytes, failed, field, is_gone, make_directory, read, read_field, read_number, set, write};
use crate::ports::cgroup::{CgroupError, CgroupLimits, CgroupUsage};
use crate::sys::watch::Watch;

/// The leaf in which the daemon itself lives: a cgroup that hands out controllers may hold no process.
const DAEMON_LEAF: &str = "cloister-daemon";

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

#[derive(Debug, Clone)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// Makes the subtree and hands the controllers down to it.
    pub(super) fn prepare(spot: &Spot, parent: Option<&str>, subtree: &str) -> Result<Self, CgroupError> {
        let mut path = match parent {
            None => leave_inner_node(&spot.own)?,
            Some(_) => spot.mount.clone(),
        };
        enable_controllers(&path)?;
        let segments = parent.unwrap_or_default().split('/').filter(|segment| !segment.is_empty() && *segment != "..");
        for segment in segments.chain([subtree]) {
            path.push(segment);
            make_directory(&path)?;
            enable_controllers(&path)?;
        }
        Ok(Self(path))
    }

    pub(super) fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn set_limits(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        let max = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |number| number.to_string());
        let swap = self.0.join("memory.swap.max");
        if swap.exists() {
            set(&swap, if limits.memory_bytes.is_some() { "0" } else { "max" })?;
        }
        // One process of a sandbox killed alone leaves the rest hanging.
        set(&self.0.join("memory.oom.group"), "1")?;
        let memory = self.0.join("memory.max");
        match limits.memory_bytes {
            Some(bytes) => {
                write(&memory, &bytes.to_string())?;
                check_bytes(&memory, bytes)?;
            }
            None => set(&memory, "max")?,
        }
        set(&self.0.join("cpu.max"), &format!("{} 100000", max(limits.cpu_quota_us)))?;
        set(&self.0.join("pids.max"), &max(limits.pids))
    }

    pub(super) fn usage(&self) -> Result<CgroupUsage, CgroupError> {
        let memory_bytes = read_number(&self.0.join("memory.current"))?;
        Ok(CgroupUsage {
            memory_bytes,
            // Linux 5.19.
            peak_memory_bytes: read_number(&self.0.join("memory.peak")).unwrap_or(memory_bytes),
            cpu: Duration::from_micros(read_field(&self.0.join("cpu.stat"), "usage_usec")?),
            oom_kills: read_field(&self.0.join("memory.events"), "oom_kill")?,
            pids_refused: read_field(&self.0.join("pids.events"), "max")?,
        })
    }

    /// `memory.events` reports a change by EPOLLPRI, measured from the last read of the same open file.
    pub(super) async fn out_of_memory(&self) -> Result<(), CgroupError> {
        let path = self.0.join("memory.events");
        let file = File::open(&path).map_err(failed("open", &path))?;
        let watch = Watch::priority(OwnedFd::from(file)).map_err(failed("watch", &path))?;
        while !killed(&read_anew(&watch).map_err(failed("read", &path))?) {
            watch.next().await.map_err(failed("watch", &path))?;
        }
        Ok(())
    }
}

/// Reads the watched file from its start, through a duplicate, which shares position and change mark with it.
fn read_anew(watch: &Watch) -> std::io::Result<String> {
    let mut file = File::from(watch.as_fd().try_clone_to_owned()?);
    std::io::Seek::rewind(&mut file)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn killed(events: &str) -> bool {
    field(events, "oom_kill").is_some_and(|count| count > 0)
}

/// The cgroup that shall hand out controllers. The daemon goes to a leaf beneath it, unless it is the root of all,
/// which may hold processes (and has no `cgroup.type`), or the daemon is in its leaf already.
fn leave_inner_node(own: &Path) -> Result<PathBuf, CgroupError> {
    if own.file_name().is_some_and(|name| name == DAEMON_LEAF) {
        return Ok(own.parent().unwrap_or(own).to_owned());
    }
    if own.join("cgroup.type").exists() {
        let leaf = own.join(DAEMON_LEAF);
        make_directory(&leaf)?;
        write(&leaf.join("cgroup.procs"), "0")?;
    }
    Ok(own.to_owned())
}

fn enable_controllers(directory: &Path) -> Result<(), CgroupError> {
    const NOT_DELEGATED: &str = "the memory, pids and cpu controllers are not handed down to the daemon's cgroup: start \
        it as a systemd service with Delegate=yes, or name a parent cgroup that has them";
    const OCCUPIED: &str = "other processes live in the cgroup that shall hold the sandboxes' limits: start the daemon \
        as a systemd service of its own with Delegate=yes, or name an empty parent cgroup";
    const READ_ONLY: &str = "cgroup.subtree_control cannot be written: run the daemon as root with a writable \
        /sys/fs/cgroup, or as a systemd service with Delegate=yes";

    let has_all = |list: &str| CONTROLLERS.iter().all(|wanted| list.split_whitespace().any(|found| found == *wanted));
    let control = directory.join("cgroup.subtree_control");
    if has_all(&read(&control)?) {
        return Ok(());
    }
    if !has_all(&read(&directory.join("cgroup.controllers"))?) {
        return Err(CgroupError::Unusable(NOT_DELEGATED));
    }
    match write(&control, "+memory +pids +cpu") {
        Err(CgroupError::File { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            Err(CgroupError::Unusable(OCCUPIED))
        }
        Err(CgroupError::File { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) =>
        {
            Err(CgroupError::Unusable(READ_ONLY))
        }
        other => other,
    }
}

impl Directory {
    /// Kills all beneath at once (`cgroup.kill`, Linux 5.14). False where the kernel has no such file.
    pub(super) fn kill_all(&self) -> Result<bool, CgroupError> {
        let path = self.0.join("cgroup.kill");
        match write(&path, "1") {
            Ok(()) => Ok(true),
            Err(CgroupError::File { source, .. }) if is_gone(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
