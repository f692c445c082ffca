//! Starting children, all from one thread that lives as long as the process.
//!
//! A child asks to be killed with its parent (PR_SET_PDEATHSIG), and for the kernel the parent is the *thread* that
//! forked it: from a pool's thread, an idle pool would kill healthy children. So one thread, never joined, forks them all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};

use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use tokio::sync::oneshot;

use super::children::{Child, register};
use super::scheduling::{self, Policy};

/// What to start. The child gets exactly this environment and these descriptors, stdin from /dev/null, a process
/// group of its own, default signal dispositions, and SIGKILL when this process ends.
#[derive(Debug)]
pub struct Order {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    /// Each with its number in the child. They override `output`.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
    /// `cgroup.procs` files that the child enters before it executes.
    pub cgroup_entry: Vec<PathBuf>,
    /// Umask 077, no core dump, and where the host's memory runs out, ended before this process is.
    pub private: bool,
    /// When it wakes it takes the processor from nobody (`SCHED_BATCH`); inherited.
    pub batch: bool,
    pub output: Output,
}

/// Where a child's stdout and stderr go when no descriptor was named for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Null,
    Piped,
}

/// A child that runs.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    /// The reading ends, with `Output::Piped`.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A cgroup could not be opened for the child.
#[derive(Debug, thiserror::Error)]
#[error("cannot enter cgroup {path}")]
struct EntryError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// By how much a private child's badness is above this process's, of 1000.
const SOONER: i32 = 500;
/// A process's own badness, as the kernel chooses whom to end when memory runs out.
const BADNESS: &str = "/proc/self/oom_score_adj";

type Request = (Order, oneshot::Sender<io::Result<Unclaimed>>);

/// A child on its way to whoever asked for it. If they have left, also after it was sent, its group is killed.
struct Unclaimed(Option<Started>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(started) = &self.0 {
            started.child.kill_group();
        }
    }
}

static THREAD: Mutex<Option<mpsc::Sender<Request>>> = Mutex::new(None);

/// Starts a child. When the caller stops waiting for the answer, the child is killed.
///
/// # Errors
/// What fork, the cgroup entry or exec said.
pub async fn spawn(order: Order) -> io::Result<Started> {
    let (answer, answered) = oneshot::channel();
    thread()?.send((order, answer)).map_err(|_gone| thread_gone())?;
    let mut unclaimed = answered.await.map_err(|_gone| thread_gone())??;
    unclaimed.0.take().ok_or_else(thread_gone)
}

fn thread_gone() -> io::Error {
    io::Error::other("the spawning thread is gone")
}

fn thread() -> io::Result<mpsc::Sender<Request>> {
    let mut slot = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = slot.as_ref() {
        return Ok(sender.clone());
    }
    let (sender, requests) = mpsc::channel();
    std::thread::Builder::new().name("spawn".to_owned()).spawn(move || serve(&requests))?;
    Ok(slot.insert(sender).clone())
}

fn serve(requests: &mpsc::Receiver<Request>) {
    // Never ends: `THREAD` keeps a sender for good.
    while let Ok((order, answer)) = requests.recv() {
        // A panic must not end this thread, which would kill every child.
        let started = catch_unwind(AssertUnwindSafe(|| start(order)))
            .unwrap_or_else(|_panic| Err(io::Error::other("spawning panicked")));
        // Refused when the caller has left.
        drop(answer.send(started.map(|started| Unclaimed(Some(started)))));
    }
}

fn start(order: Order) -> io::Result<Started> {
    let entries = open_entries(order.cgroup_entry)?;
    let _held = hold_numbers(&order.descriptors)?;
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts processes")]
    let mut command = Command::new(&order.program);
    let output = || match order.output {
        Output::Null => Stdio::null(),
        Output::Piped => Stdio::piped(),
    };
    command.args(order.args).env_clear().envs(order.env).current_dir(order.cwd).process_group(0);
    command.stdin(Stdio::null()).stdout(output()).stderr(output());
    in_child(&mut command, entries, order.private, order.batch);
    // After ours: it takes the close-on-exec flag off the descriptors that the child shall have.
    let mappings = order.descriptors.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(mappings.collect())
        .map_err(|collision| io::Error::new(io::ErrorKind::InvalidInput, collision))?;

    let (child, mut spawned) = register(|| {
        let spawned = command.spawn()?;
        Ok((i32::try_from(spawned.id()).map_err(io::Error::other)?, spawned))
    })?;
    let stdout = spawned.stdout.take().map(OwnedFd::from);
    let stderr = spawned.stderr.take().map(OwnedFd::from);
    Ok(Started { child, stdout, stderr })
}

fn open_entries(paths: Vec<PathBuf>) -> io::Result<Vec<File>> {
    let open = |path: PathBuf| {
        OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|source| io::Error::new(source.kind(), EntryError { path, source }))
    };
    paths.into_iter().map(open).collect()
}

/// Occupies the numbers that descriptors will have in the child, where they are free, so that the pipe by which the
/// standard library learns of a failed exec gets none of them and is not overwritten.
fn hold_numbers(descriptors: &[(OwnedFd, RawFd)]) -> io::Result<Vec<OwnedFd>> {
    descriptors.iter().map(|(descriptor, number)| duplicate_from(descriptor, *number)).collect()
}

#[expect(unsafe_code, reason = "fcntl returns a bare number")]
fn duplicate_from(descriptor: &OwnedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Registers what the child does between fork and exec. Only async-signal-safe calls, no allocation.
#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
fn in_child(command: &mut Command, entries: Vec<File>, private: bool, batch: bool) {
    let parent = nix::unistd::getpid();
    let badness = sooner_ended();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The parent may have died before the request: nobody would send the signal any more.
        if nix::unistd::getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        for entry in &entries {
            nix::unistd::write(entry, b"0")?;
        }
        if private {
            nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
            // Where it cannot be said, the kernel chooses by size alone.
            if let Ok(file) = nix::fcntl::open(BADNESS, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                let _refused = nix::unistd::write(&file, badness.as_bytes());
            }
        }
        if batch {
            scheduling::set(0, Policy::Batch)?;
        }
        reset_signals();
        close_on_exec_from(3)
    };
    // SAFETY: `prepare` makes only plain system calls: no allocation, no lock, no Drop of a heap value.
    unsafe { command.pre_exec(prepare) };
}

/// A private child's badness, as text: made before the fork, for nothing may be allocated behind it.
fn sooner_ended() -> String {
    let own = std::fs::read_to_string(BADNESS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_i32);
    own.saturating_add(SOONER).min(1000).to_string()
}

/// Empty mask, default dispositions: exec keeps what is ignored and what is blocked.
#[expect(unsafe_code, reason = "the C library refuses to touch the two signals that it keeps for itself")]
fn reset_signals() {
    const LAST: libc::c_int = 64;
    const MASK_BYTES: usize = 8;
    // The kernel's own sigaction: handler (SIG_DFL = 0), flags, restorer, mask.
    let default = [0_u64; 4];
    let empty_mask = 0_u64;
    let nowhere = std::ptr::null_mut::<u64>();
    // SAFETY: both values live through the calls and have the kernel's layout for 64-bit Linux. KILL and STOP are
    // refused with EINVAL, which is fine.
    unsafe {
        for signal in 1..=LAST {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nowhere, MASK_BYTES);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty_mask, nowhere, MASK_BYTES);
    }
}

/// Marks all descriptors from `first` up close-on-exec, those too that this process was started with.
#[expect(unsafe_code, reason = "neither libc nor nix wraps close_range with flags")]
fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range takes three integers.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one.
    // SAFETY: sysconf and fcntl(F_SETFD) take integers; a number that is not open gives EBADF, which is fine.
    unsafe {
        let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 65_536);
        for number in i64::from(first)..limit {
            libc::fcntl(number as libc::c_int, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
    Ok(())
}
