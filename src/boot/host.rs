//! What the process needs of its host before anything else: directories, sole ownership of them, limits.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slog::{Logger, warn};
use uuid::Uuid;

use super::exit::Exit;
use crate::config::Daemon;
use crate::sys::{children, wipe};

/// Why the daemon cannot live here.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot use {path}: give another one with {variable}, or run as a user who may write there")]
    Directory {
        path: PathBuf,
        variable: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("another daemon uses {0}: stop it, or give this one its own state directory (CLOISTER_STATE_DIR)")]
    Taken(PathBuf),
    #[error("{0} does not hold eight hexadecimal digits: remove it while no daemon runs")]
    Instance(PathBuf),
}

impl HostError {
    /// The exit code it leads to.
    pub fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

/// A state directory that is ours alone while this lives.
pub struct Home {
    /// Eight hexadecimal digits that mark this state directory's cgroups.
    pub instance: String,
    _lock: Flock<File>,
}

/// Makes the directories, takes the lock, reads or makes the instance's mark, and sets the process up.
///
/// # Errors
/// A directory that cannot be used, or one that another daemon uses.
pub fn prepare(daemon: &Daemon, log: &Logger) -> Result<Home, HostError> {
    // Open to pass through: sandboxes have host ids of their own and must reach runtimes and volumes below it.
    make_directory(&daemon.state_dir, 0o711, "CLOISTER_STATE_DIR")?;
    make_directory(&daemon.run_dir, 0o755, "CLOISTER_RUN_DIR")?;
    let lock = lock(&daemon.state_dir.join("lock"))?;
    let instance = instance(&daemon.state_dir.join("instance"))?;
    // Processes that lose their parent come to us, and the Reaper ends them.
    if let Err(source) = children::become_subreaper() {
        warn!(log, "host.no_subreaper"; "error" => %source);
    }
    wipe::bound_free_memory();
    if let Err(source) = set_limits() {
        warn!(log, "host.limits"; "error" => %source);
    }
    Ok(Home { instance, _lock: lock })
}

fn make_directory(path: &Path, mode: u32, variable: &'static str) -> Result<(), HostError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| HostError::Directory { path: path.to_owned(), variable, source })
}

fn lock(path: &Path) -> Result<Flock<File>, HostError> {
    let unusable = |source| HostError::Directory { path: path.to_owned(), variable: "CLOISTER_STATE_DIR", source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(unusable)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => HostError::Taken(path.parent().unwrap_or(path).to_owned()),
        other => unusable(other.into()),
    })
}

fn instance(path: &Path) -> Result<String, HostError> {
    let unusable = |source| HostError::Directory { path: path.to_owned(), variable: "CLOISTER_STATE_DIR", source };
    match fs::read_to_string(path) {
        Ok(text) => {
            let mark = text.trim();
            let well_formed = mark.len() == 8 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
            if well_formed { Ok(mark.to_owned()) } else { Err(HostError::Instance(path.to_owned())) }
        }
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
            let mark: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
            // Under a name of its own first: a crash must not leave half a mark.
            let fresh = path.with_extension("new");
            let mut file = File::create(&fresh).map_err(unusable)?;
            writeln!(file, "{mark}").and_then(|()| file.sync_all()).map_err(unusable)?;
            fs::rename(&fresh, path).map_err(unusable)?;
            Ok(mark)
        }
        Err(source) => Err(unusable(source)),
    }
}

/// No core dumps and no debugger, for they would see user data; as many descriptors as the host allows.
fn set_limits() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // What is started inherits this: where the kernel hands cores to a program, theirs have no memory in them. Not every
    // kernel has it, and where it cannot be written the limit still holds.
    drop(fs::write("/proc/self/coredump_filter", "0"));
    // A limit of zero does not keep the kernel from handing a core to a program; this does. It holds for this process
    // only: what it starts is as it would be.
    prctl::set_dumpable(false)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}
