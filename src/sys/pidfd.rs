//! Descriptors of processes: signals and waiting that cannot hit a later process with the same pid.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::Signal;

/// How a child ended, from waitid(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// The signal's number; realtime signals included.
    Signal(i32),
}

/// A process, held by descriptor (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// # Errors
    /// `ESRCH` when there is no such process (an unreaped zombie still is one).
    #[expect(unsafe_code, reason = "neither libc nor nix wraps pidfd_open")]
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let number = RawFd::try_from(checked(answer)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec) and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Sends a signal. No error when the process is gone.
    ///
    /// # Errors
    /// What pidfd_send_signal(2) said, `ESRCH` excepted.
    #[expect(unsafe_code, reason = "neither libc nor nix wraps pidfd_send_signal")]
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open for the length of the call, and a null siginfo is allowed.
        let answer =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, no_info, 0) };
        match checked(answer) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map(drop),
        }
    }

    /// SIGKILL. No error when the process is gone.
    ///
    /// # Errors
    /// As [`PidFd::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Takes the end of a child off the kernel's hands; `None` while it still runs.
    ///
    /// # Errors
    /// `ECHILD` when it is not a child of this process, or was reaped before.
    pub fn reap(&self) -> io::Result<Option<Exit>> {
        let id = libc::id_t::try_from(self.0.as_raw_fd()).map_err(io::Error::other)?;
        waitid(libc::P_PIDFD, id, libc::WEXITED | libc::WNOHANG)
    }

    /// Another descriptor of the same process, for a poller of its own.
    ///
    /// # Errors
    /// `EMFILE` at the limit of open descriptors.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// True when some child of this process has ended and waits to be reaped. Reaps nothing (`WNOWAIT`).
pub(super) fn any_child_ended() -> bool {
    matches!(waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT), Ok(Some(_)))
}

/// waitid(2) by hand, since nix fails on a child that a realtime signal ended, after having reaped it.
#[expect(unsafe_code, reason = "siginfo_t is a union that only libc reads")]
fn waitid(kind: libc::idtype_t, id: libc::id_t, options: i32) -> io::Result<Option<Exit>> {
    // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writes for the length of the call.
    checked(i64::from(unsafe { libc::waitid(kind, id, &raw mut info, options) }))?;
    // SAFETY: waitid has filled the SIGCHLD fields, or left the zeroes that mean "nothing ended".
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

fn checked(answer: i64) -> io::Result<i64> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
