//! What boot tells the engine once.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::domain::egress::{HostHeader, Rule};
use crate::domain::package::Registry;

/// Which program makes the sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// gVisor. `None` looks for `runsc` in the system's program directories.
    Gvisor { runsc: Option<PathBuf> },
    /// `DISABLE_GVISOR`: a plain container by `crun` or `runc`, the first that is found. For development only.
    PlainContainer,
}

/// The engine's settings, each a key of the config file.
#[derive(Debug, Clone)]
pub struct Settings {
    pub choice: Choice,
    /// `CLOISTER_RUN_DIR`: bundles, runtime state and the runners' files. May be a tmpfs; should be short (see
    /// `layout::Layout::problem`).
    pub run_dir: PathBuf,
    /// `CLOISTER_STATE_DIR`: only the probe's memory is kept there.
    pub state_dir: PathBuf,
    /// From the spawn of a sandbox to its runner's `ready`.
    pub ready_deadline: Duration,
    /// CPU time per 100 ms of wall time during a call, in microseconds. `None`: no quota.
    pub cpu_quota_us: Option<u64>,
    /// Tasks that a call may have above the sandbox's own.
    pub pids: u64,
    /// Size of /tmp. It counts towards the call's memory as well.
    pub tmp_mb: u64,
    pub output: OutputLimits,
    /// Where packages of npm come from; archives may lie at any of them.
    pub registries: Vec<Registry>,
    /// Where Deno's modules come from, beside packages that they import.
    pub jsr: Option<Registry>,
    pub module_hosts: Vec<Rule>,
    /// What the proxy puts on an installer's requests to some of these.
    pub tokens: Vec<HostHeader>,
    pub installs: InstallLimits,
    pub out: OutLimits,
}

/// How much the files may be that come out of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OutLimits {
    pub bytes: usize,
    pub files: usize,
}

/// How large what is installed may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstallLimits {
    pub bytes: usize,
    pub files: usize,
}

/// How much a call may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes kept of stdout, and as many of stderr.
    pub keep: usize,
    /// Bytes thrown away beyond them before the call is ended.
    pub discard: u64,
    pub log_kib: usize,
    pub result_kib: usize,
    /// Of one log message, and of each text of an error.
    pub message_kib: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { keep: 1 << 20, discard: 64 << 20, log_kib: 1024, result_kib: 4096, message_kib: 64 }
    }
}
