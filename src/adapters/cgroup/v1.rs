//! Cgroup v1 (Documentation/admin-guide/cgroup-v1): one directory in each of five hierarchies.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::time::timeout;

use super::detect::{Spot, V1Spots};
use super::files::{check_bytes, failed, make_directory, not_in_force, read, read_field, read_number, set, write};
use crate::ports::cgroup::{CgroupError, CgroupLimits, CgroupUsage};
use crate::sys::watch::Watch;

const PERIOD_US: u64 = 100_000;

/// "No limit" reads back as the largest number of whole pages in 63 bits.
const UNLIMITED: u64 = i64::MAX as u64 - 64 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Directories {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    cpuacct: PathBuf,
    freezer: PathBuf,
}

impl Directories {
    /// Makes the subtree in each hierarchy.
    pub(super) fn prepare(spots: &V1Spots, parent: Option<&str>, subtree: &str) -> Result<Self, CgroupError> {
        let place = |spot: &Spot| {
            let mut path = match parent {
                None => spot.own.clone(),
                Some(_) => spot.mount.clone(),
            };
            let segments =
                parent.unwrap_or_default().split('/').filter(|segment| !segment.is_empty() && *segment != "..");
            for segment in segments.chain([subtree]) {
                path.push(segment);
                make_directory(&path)?;
            }
            Ok::<_, CgroupError>(path)
        };
        Ok(Self {
            memory: place(&spots.memory)?,
            pids: place(&spots.pids)?,
            cpu: place(&spots.cpu)?,
            cpuacct: place(&spots.cpuacct)?,
            freezer: place(&spots.freezer)?,
        })
    }

    pub(super) fn child(&self, name: &str) -> Self {
        Self {
            memory: self.memory.join(name),
            pids: self.pids.join(name),
            cpu: self.cpu.join(name),
            cpuacct: self.cpuacct.join(name),
            freezer: self.freezer.join(name),
        }
    }

    /// The freezer first, so that a child whose entry fails half-way can be frozen.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = Vec::with_capacity(5);
        for path in [&self.freezer, &self.memory, &self.pids, &self.cpu, &self.cpuacct] {
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        paths
    }

    pub(super) fn freezer(&self) -> &Path {
        &self.freezer
    }

    pub(super) fn set_limits(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        self.set_memory(limits.memory_bytes)?;
        match limits.cpu_quota_us {
            Some(quota) => {
                set(&self.cpu.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                set(&self.cpu.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
            None => set(&self.cpu.join("cpu.cfs_quota_us"), "-1")?,
        }
        set(&self.pids.join("pids.max"), &limits.pids.map_or_else(|| "max".to_owned(), |pids| pids.to_string()))
    }

    fn set_memory(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        let memory = self.memory.join("memory.limit_in_bytes");
        // Memory and swap together; the kernel keeps it at or above the memory limit. Absent without swap accounting.
        let both = Some(self.memory.join("memory.memsw.limit_in_bytes")).filter(|path| path.exists());
        let Some(bytes) = bytes else {
            for path in both.iter().chain([&memory]) {
                write(path, "-1")?;
                let found = read_number(path)?;
                if found < UNLIMITED {
                    return Err(not_in_force(path, "-1", &found.to_string()));
                }
            }
            return Ok(());
        };
        let text = bytes.to_string();
        let Some(both) = both else {
            write(&memory, &text)?;
            return check_bytes(&memory, bytes);
        };
        // Raising goes through the outer limit first, lowering through the inner one.
        if read_number(&both)? < bytes {
            write(&both, &text)?;
        }
        write(&memory, &text)?;
        write(&both, &text)?;
        check_bytes(&memory, bytes)?;
        check_bytes(&both, bytes)
    }

    pub(super) fn usage(&self) -> Result<CgroupUsage, CgroupError> {
        Ok(CgroupUsage {
            memory_bytes: read_number(&self.memory.join("memory.usage_in_bytes"))?,
            peak_memory_bytes: read_number(&self.memory.join("memory.max_usage_in_bytes"))?,
            cpu: Duration::from_nanos(read_number(&self.cpuacct.join("cpuacct.usage"))?),
            oom_kills: self.oom_kills()?,
            pids_refused: read_field(&self.pids.join("pids.events"), "max")?,
        })
    }

    fn oom_kills(&self) -> Result<u64, CgroupError> {
        read_field(&self.memory.join("memory.oom_control"), "oom_kill")
    }

    /// An eventfd, registered with `memory.oom_control`, is signalled at each out-of-memory event, before the kill is
    /// counted, and when the cgroup is removed.
    pub(super) async fn out_of_memory(&self) -> Result<(), CgroupError> {
        /// Later than the count of a kill whose event came before the registration.
        const SECOND_LOOK: Duration = Duration::from_millis(100);

        let watch = self.register()?;
        let control = self.memory.join("memory.oom_control");
        if self.oom_kills()? > 0 {
            return Ok(());
        }
        let signalled = match timeout(SECOND_LOOK, watch.next()).await {
            Ok(signalled) => signalled,
            Err(_elapsed) if self.oom_kills()? > 0 => return Ok(()),
            Err(_elapsed) => watch.next().await,
        };
        signalled.map_err(failed("watch", &control))?;
        // Fails when the signal was the cgroup's removal.
        read(&control).map(drop)
    }

    fn register(&self) -> Result<Watch, CgroupError> {
        let control = self.memory.join("memory.oom_control");
        let watching = failed("watch", &control);
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|error| failed("watch", &control)(error.into()))?;
        let file = std::fs::File::open(&control).map_err(failed("open", &control))?;
        let registration = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
        write(&self.memory.join("cgroup.event_control"), &registration)?;
        Watch::readable(OwnedFd::from(event)).map_err(watching)
    }
}
