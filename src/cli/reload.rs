//! `cloister reload`: has the daemon behind a health socket read its private keys anew and look for images.
//!
//! The kernel tells whose socket it is, and lets root and the daemon's own user alone send the signal.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;

use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::cli::streams::Streams;
use crate::cli::variables::Variables;

/// Whom to tell.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cloister keygen --out /etc/cloister/worker.key --force && cloister reload

It sends SIGHUP to the daemon that answers on the health socket, as root or as the daemon's own user. What came of it is
in the daemon's log: crypto.keys with the kids, or crypto.reload_failed, and what begins with image.; `cloister status`
shows it as well.
Exit codes: 0 told, 1 not allowed or still starting, 64 wrong usage, 69 the daemon cannot be reached.")]
pub struct ReloadFlags {
    /// The daemon's health socket [default: $CLOISTER_RUN_DIR/health.sock, else /run/cloister/health.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Finds the daemon and tells it.
pub async fn run(flags: &ReloadFlags, variables: &Variables, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    let path = flags.socket.clone().unwrap_or_else(|| variables.health_socket());
    // While somebody listens there, its number is nobody else's.
    let pid = listener(&path).await?;
    if !hears_hangup(pid)? {
        bail!("the daemon (pid {pid}) does not listen to SIGHUP yet: it is starting, try again");
    }
    match kill(Pid::from_raw(pid), Signal::SIGHUP) {
        Ok(()) => writeln!(
            streams.out,
            "the daemon (pid {pid}) reads its private keys anew and looks for images; its log says what it found"
        )?,
        Err(Errno::EPERM) => bail!("the daemon (pid {pid}) is another user's: be root, or that user"),
        Err(errno) => return Err(errno).with_context(|| format!("cannot signal the daemon (pid {pid})")),
    }
    Ok(exit::OK)
}

/// The process that listens on a socket.
async fn listener(path: &Path) -> anyhow::Result<i32> {
    let unreachable =
        |error: std::io::Error| ClientError::Unreachable { at: path.display().to_string(), cause: error.to_string() };
    let peer = UnixStream::connect(path).await.and_then(|stream| stream.peer_cred()).map_err(unreachable)?;
    let pid = peer.pid().filter(|pid| *pid > 0);
    pid.context("the daemon's process cannot be seen from here: is it in a container? run this inside of it")
}

/// Whether a process catches SIGHUP. One that does not would be ended by it.
fn hears_hangup(pid: i32) -> anyhow::Result<bool> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(caught & 1 << (Signal::SIGHUP as i32 - 1) != 0)
}
