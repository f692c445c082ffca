//! Opening files as a process would whose root directory is another one: openat2(2) with `RESOLVE_IN_ROOT`, Linux 5.6.
//!
//! Links are followed, since images are full of them (`/bin` to `usr/bin`), and none leads out: a leading slash and `..` stay
//! inside the root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::NixPath;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens a directory inside `root` for reading.
///
/// # Errors
/// What openat2(2) said: `EXDEV` at a mount point.
pub fn open_directory<P: ?Sized + NixPath>(root: impl AsFd, path: &P) -> io::Result<OwnedFd> {
    open(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Opens a file inside `root` for reading; what is no plain file is not waited for.
///
/// # Errors
/// What openat2(2) said: `EXDEV` at a mount point.
pub fn open_file<P: ?Sized + NixPath>(root: impl AsFd, path: &P) -> io::Result<File> {
    open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).map(File::from)
}

fn open<P: ?Sized + NixPath>(root: impl AsFd, path: &P, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(root, path, how) {
        Err(nix::Error::ENOSYS) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "openat2 is missing: Linux 5.6 or newer is needed"))
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_none_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(root.join("usr/bin/deno"), "inside").unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("/usr/bin", root.join("bin")).unwrap();
        symlink("../../../usr/bin/deno", root.join("up")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        let opened = File::open(&root).unwrap();
        for path in ["bin/deno", "/bin/deno", "up", "../../usr/bin/deno"] {
            let mut text = String::new();
            open_file(&opened, path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        for path in ["out", "../secret"] {
            assert_eq!(open_file(&opened, path).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
        }
    }
}
