//! Starting processes and learning how they end.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::execution::ProcessEnd;

/// What to start. The child gets exactly this environment and these descriptors, stdin from /dev/null, a process
/// group of its own, and dies with the daemon.
pub struct SpawnRequest {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    /// Descriptors to hand over, each with its number in the child. Closed here once the child has them.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
    /// `cgroup.procs` (or v1 `tasks`-level `cgroup.procs`) files the child enters before it executes.
    pub cgroup_entry: Vec<PathBuf>,
    /// It handles plaintext and may be large: its files are its owner's alone (umask 077), it leaves no core dump, and where
    /// the host's memory runs out it is ended before this process is.
    pub private: bool,
    /// When it wakes it takes the processor from nobody (`SCHED_BATCH`), nor does what it starts.
    pub batch: bool,
}

/// A signal that a process may answer in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// SIGTERM: to end.
    End,
    /// SIGABRT: to print where it stands, and end.
    Abort,
}

/// A running child, known by its pidfd and never by its pid alone. Dropping it does not end it.
#[async_trait]
pub trait Process: Send + Sync {
    /// For tests, which look at it from outside.
    #[cfg(test)]
    fn pid(&self) -> i32;
    /// How it ended. May be asked again, also after the end.
    async fn wait(&self) -> ProcessEnd;
    /// SIGKILL to the process itself, by pidfd. No error when it is gone.
    fn kill(&self);
    /// Asks the process itself. No error when it is gone.
    fn ask(&self, ask: Ask);
    /// SIGKILL to all of its process group. Does nothing once the end was waited for: the group's number may then be
    /// another's.
    fn kill_group(&self);
}

/// A command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub end: ProcessEnd,
    /// Both cut at 64 KiB.
    pub stdout: String,
    pub stderr: String,
}

/// Why a process could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot start {program}")]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} did not end within {deadline:?} and was killed")]
    Deadline { program: PathBuf, deadline: Duration },
    #[error("cannot follow {program}")]
    Follow {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Starts processes.
#[async_trait]
pub trait Spawner: Send + Sync {
    /// Starts a child and returns while it runs.
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn Process>, SpawnError>;

    /// Runs a short command to its end with captured output; kills its process group at the deadline.
    /// `descriptors` of the request must not name 1 or 2.
    async fn run_to_end(&self, request: SpawnRequest, deadline: Duration) -> Result<Finished, SpawnError>;
}

/// The zombies that a PID 1, or a subreaper, inherits.
pub trait Zombies: Send + Sync {
    /// Reaps those that nobody waits for, and says how many. Reads `/proc`: call it off the actors' threads.
    fn collect(&self) -> usize;
}
