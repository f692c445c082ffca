//! Limits and accounting, the same on cgroup v2 and on v1.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

/// What a cgroup is held to. `None` leaves that limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupLimits {
    pub memory_bytes: Option<u64>,
    /// CPU time per 100 ms of wall time, in microseconds.
    pub cpu_quota_us: Option<u64>,
    pub pids: Option<u64>,
}

/// What a cgroup has used and refused so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupUsage {
    pub memory_bytes: u64,
    /// Highest `memory_bytes` so far.
    pub peak_memory_bytes: u64,
    pub cpu: Duration,
    pub oom_kills: u64,
    pub pids_refused: u64,
}

/// Why a cgroup cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} was set to {wanted} and reads back {found}: the limit is not in force")]
    NotInForce { path: PathBuf, wanted: String, found: String },
    #[error("{path} holds {found:?}, which is not the expected format")]
    Format { path: PathBuf, found: String },
    #[error("no usable cgroup hierarchy: {0}")]
    Unusable(&'static str),
    #[error("cgroup {path} still runs {waited:?} after it was frozen")]
    NotFrozen { path: PathBuf, waited: Duration },
    #[error("cgroup {name} still has {processes} processes {waited:?} after they were killed")]
    NotEmpty { name: String, processes: usize, waited: Duration },
}

/// One cgroup (on v1: one directory in each hierarchy). Its methods touch only kernel files and do not block for long.
#[async_trait]
pub trait Cgroup: Send + Sync {
    /// Files a child writes itself into before it executes (see `SpawnRequest::cgroup_entry`).
    fn entry_files(&self) -> Vec<PathBuf>;
    /// Writes the limits and reads them back.
    ///
    /// # Errors
    /// `NotInForce` when the kernel shows another value than was written.
    fn set_limits(&self, limits: &CgroupLimits) -> Result<(), CgroupError>;
    fn usage(&self) -> Result<CgroupUsage, CgroupError>;
    /// Pids in the cgroup and below it.
    fn processes(&self) -> Result<Vec<i32>, CgroupError>;
    /// Returns at the next out-of-memory event of this cgroup; at once if there was one already.
    async fn out_of_memory(&self) -> Result<(), CgroupError>;
    /// Stops all that is in it, until `thaw` or a kill. Returns once all of it stands still.
    ///
    /// # Errors
    /// `NotFrozen` when something in it runs on all the same.
    async fn freeze(&self) -> Result<(), CgroupError>;
    /// Lets all that is in it go on.
    fn thaw(&self) -> Result<(), CgroupError>;
    /// Kills all that is in it until it is empty, then removes it. Idempotent, resumable.
    ///
    /// # Errors
    /// `NotEmpty` when a process survives SIGKILL for the whole `patience`.
    async fn kill_and_remove(&self, patience: Duration) -> Result<(), CgroupError>;
}

/// The daemon's own subtree. Names in it are single path segments chosen by the daemon.
#[async_trait]
pub trait Cgroups: Send + Sync {
    /// "v2" or "v1".
    fn version(&self) -> &'static str;
    async fn create(&self, name: &str) -> Result<Arc<dyn Cgroup>, CgroupError>;
    /// A cgroup that exists already, left by an earlier life of this daemon.
    fn open(&self, name: &str) -> Arc<dyn Cgroup>;
    /// Names of all cgroups in the subtree that `create` made.
    async fn list(&self) -> Result<Vec<String>, CgroupError>;
    /// Removes the subtree itself when nothing is in it any more. For the end of the daemon; what fails stays.
    fn dissolve(&self);
}
