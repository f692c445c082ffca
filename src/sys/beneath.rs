//! Opening files beneath a directory, with no way out of it: openat2(2), Linux 5.6.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::NixPath;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// Opens a directory beneath `parent` for reading. No component may be a link, a mount point or `..`.
///
/// # Errors
/// What openat2(2) said: `ELOOP` at a link, `EXDEV` at a mount point.
pub fn open_directory<P: ?Sized + NixPath>(parent: impl AsFd, path: &P) -> io::Result<OwnedFd> {
    open(parent, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// Opens a file beneath `parent` for reading. No component may be a link, a mount point or `..`, and what is no plain
/// file is not waited for.
///
/// # Errors
/// What openat2(2) said: `ELOOP` at a link, `EXDEV` at a mount point or a way out.
pub fn open_file<P: ?Sized + NixPath>(parent: impl AsFd, path: &P) -> io::Result<File> {
    open(parent, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty()).map(File::from)
}

/// Creates a file beneath `parent` that did not exist, for writing.
///
/// # Errors
/// What openat2(2) said: `EEXIST` when anything has that name already.
pub fn create_file<P: ?Sized + NixPath>(parent: impl AsFd, path: &P) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    open(parent, path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
}

/// Gives the owner of a directory all rights on it, also where they lack the right to open it.
pub(super) fn make_accessible(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let handle = open(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    std::fs::set_permissions(Path::new(&path), std::fs::Permissions::from_mode(0o700))
}

fn open<P: ?Sized + NixPath>(parent: impl AsFd, path: &P, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    match openat2(parent, path, how) {
        Err(nix::Error::ENOSYS) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "openat2 is missing: Linux 5.6 or newer is needed"))
        }
        other => Ok(other?),
    }
}
