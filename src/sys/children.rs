//! The children of this process: which of them somebody waits for, and reaping of the others.
//!
//! A daemon that is PID 1, or a subreaper, inherits orphans and must reap them. `waitpid(-1)` would also take the
//! children that an owner waits for, so each child that [`super::spawn`] starts is registered here, and
//! [`collect`] waits only for pids that nobody owns. The registry is one per process, as the children are.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use procfs::process::{ProcState, all_processes};

use super::pidfd::{Exit, PidFd, any_child_ended};
use super::watch::Watch;

/// Held while a child is forked and registered, and while zombies are collected: a child that ends between its fork
/// and its registration must not be taken for an orphan.
static GATE: Mutex<()> = Mutex::new(());

/// Owned pids, each with the number of its registration: a pid may be in use again before its old owner leaves.
static OWNED: Mutex<Owned> = Mutex::new(Owned { by_pid: BTreeMap::new(), next: 0 });

struct Owned {
    by_pid: BTreeMap<i32, u64>,
    next: u64,
}

/// A child that somebody waits for. Dropping it leaves it running, and leaves its zombie to [`collect`].
#[derive(Debug)]
pub struct Child {
    pid: i32,
    descriptor: PidFd,
    registration: u64,
    /// Set once, by whoever reaps it.
    exit: Mutex<Option<Exit>>,
}

impl Child {
    #[cfg(test)]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns when the child has ended, without reaping it: its pid and process group stay its own.
    ///
    /// # Errors
    /// When the descriptor cannot be polled.
    pub async fn ended(&self) -> io::Result<()> {
        if lock(&self.exit).is_some() {
            return Ok(());
        }
        // A duplicate for each waiter: the same descriptor cannot be registered twice, nor with another runtime.
        Watch::readable(self.descriptor.duplicate()?)?.next().await
    }

    /// Waits for the end and reaps it. May be asked again, and by several at once.
    ///
    /// # Errors
    /// When the descriptor cannot be polled, or somebody else reaped the child.
    pub async fn wait(&self) -> io::Result<Exit> {
        loop {
            self.ended().await?;
            if let Some(exit) = self.reap()? {
                return Ok(exit);
            }
        }
    }

    /// SIGKILL to the child alone.
    pub fn kill(&self) {
        // The one error left is EPERM, for a child that took another user's identity; its owner then sees it live on.
        let _ = self.descriptor.kill();
    }

    /// A signal to the child alone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let _ = self.descriptor.signal(signal);
    }

    /// SIGKILL to the child's process group, which has the child's pid for its number. Does nothing once the child
    /// is reaped, since the number may then be another's.
    pub fn kill_group(&self) {
        let exit = lock(&self.exit);
        if exit.is_none() {
            let _ = nix::sys::signal::killpg(Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    fn reap(&self) -> io::Result<Option<Exit>> {
        let mut exit = lock(&self.exit);
        if exit.is_none() {
            *exit = self.descriptor.reap()?;
            if exit.is_some() {
                self.disown();
            }
        }
        Ok(*exit)
    }

    fn disown(&self) {
        let mut owned = lock(&OWNED);
        if owned.by_pid.get(&self.pid) == Some(&self.registration) {
            owned.by_pid.remove(&self.pid);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Either it is reaped here, or it becomes nobody's and `collect` reaps it later.
        if !matches!(self.reap(), Ok(Some(_))) {
            self.disown();
        }
    }
}

/// Starts a child by `fork` and registers it, with no gap in which [`collect`] could take it.
///
/// `fork` returns the pid of a child that nobody has waited for, and what else belongs to it.
pub(super) fn register<T>(fork: impl FnOnce() -> io::Result<(i32, T)>) -> io::Result<(Child, T)> {
    let _gate = lock(&GATE);
    let (pid, rest) = fork()?;
    let registration = {
        let mut owned = lock(&OWNED);
        owned.next += 1;
        let number = owned.next;
        owned.by_pid.insert(pid, number);
        number
    };
    // The child cannot be reaped before this returns, so the pid is still its own.
    match PidFd::open(pid) {
        Ok(descriptor) => Ok((Child { pid, descriptor, registration, exit: Mutex::new(None) }, rest)),
        Err(error) => {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            lock(&OWNED).by_pid.remove(&pid);
            Err(error)
        }
    }
}

/// Makes this process the one that inherits its descendants' orphans (PR_SET_CHILD_SUBREAPER); PID 1 is that anyway.
///
/// # Errors
/// What prctl(2) said.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Reaps the zombie children that nobody owns, and says how many. Reads all of `/proc` when there is a zombie at all:
/// call it off the actors' threads.
pub fn collect() -> usize {
    if !any_child_ended() {
        return 0;
    }
    let zombies = zombie_children();
    let _gate = lock(&GATE);
    let owned = lock(&OWNED);
    let mut reaped = 0;
    for pid in zombies.into_iter().filter(|pid| !owned.by_pid.contains_key(pid)) {
        let ended = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        // An invalid status is a realtime signal's, which nix cannot name; the child is reaped all the same.
        if !matches!(ended, Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD)) {
            reaped += 1;
        }
    }
    reaped
}

fn zombie_children() -> Vec<i32> {
    let own = nix::unistd::getpid().as_raw();
    let Ok(processes) = all_processes() else {
        return Vec::new();
    };
    processes
        .filter_map(|process| process.and_then(|process| process.stat()).ok())
        .filter(|stat| stat.ppid == own && matches!(stat.state(), Ok(ProcState::Zombie)))
        .map(|stat| stat.pid)
        .collect()
}

/// A panic elsewhere leaves these values whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
