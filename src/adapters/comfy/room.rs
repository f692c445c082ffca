//! The RAM directory of one instance: all that its process may write, on a tmpfs, and nothing of it left afterwards.
//!
//! ```text
//!   <ram_dir>/cloister-<mark>-<instance>/
//!   ├── out, tmp/temp, in    a job's outputs, previews and inputs: swept after each job
//!   ├── scratch              TMPDIR: what a job adds is swept
//!   ├── home, user, cache    as long as the process
//!   └── nodes, paths.yaml    the companion pack, and where models lie
//! ```

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::dir::Dir;

use crate::sys::{beneath, mounts, tree};

/// The folders that are made at the start.
const FOLDERS: [&str; 9] = ["out", "tmp", "tmp/temp", "in", "scratch", "home", "user", "cache", "nodes"];

/// A made room.
pub(super) struct Room {
    path: PathBuf,
    root: OwnedFd,
    /// What lay in `scratch` when the process was ready.
    kept: OnceLock<BTreeSet<OsString>>,
    /// Whether it is a tmpfs of its own.
    pub(super) mounted: bool,
}

/// Where an output lies, as ComfyUI says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    Output,
    Temporary,
    Input,
}

impl Shelf {
    fn folder(self) -> &'static str {
        match self {
            Shelf::Output => "out",
            Shelf::Temporary => "tmp/temp",
            Shelf::Input => "in",
        }
    }
}

impl Room {
    /// Makes the directory and its folders. A tmpfs of `bytes` where the daemon may mount one; else a plain directory,
    /// whose size nothing but its file system bounds.
    ///
    /// # Errors
    /// When a directory cannot be made; `EEXIST` when an earlier life's was not removed.
    pub(super) fn make(path: PathBuf, bytes: u64) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private.create(&path)?;
        let mounted = mounts::tmpfs(&path, bytes).is_ok();
        for folder in FOLDERS {
            private.create(path.join(folder))?;
        }
        let root = File::open(&path)?.into();
        Ok(Self { path, root, kept: OnceLock::new(), mounted })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers what lies in `scratch`: the process's own, not a job's.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(super) fn remember(&self) -> io::Result<()> {
        let names = names(self.open("scratch")?)?;
        let _ = self.kept.set(names.into_iter().collect());
        Ok(())
    }

    /// Lays an input beneath `in`.
    ///
    /// # Errors
    /// `EEXIST` when there is one of this name; what else openat2(2) and write(2) said.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        beneath::create_file(self.open("in")?, name)?.write_all(bytes)
    }

    /// Reads an output of at most `most` bytes.
    ///
    /// # Errors
    /// `FileTooLarge`; `InvalidInput` for what is no plain file; what openat2(2) said, also at a way out.
    pub(super) fn take(&self, shelf: Shelf, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let file = beneath::open_file(self.open(shelf.folder())?, path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if metadata.len() > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        // It may still grow.
        if file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// Removes all that a job may have written. The folders stay, but for a job's own.
    ///
    /// # Errors
    /// The first failure, after all was tried.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let nothing = BTreeSet::new();
        let temp = BTreeSet::from([OsString::from("temp")]);
        let swept = [
            self.sweep_folder("out", &nothing),
            self.sweep_folder("in", &nothing),
            self.sweep_folder("tmp/temp", &nothing),
            self.sweep_folder("tmp", &temp),
            self.sweep_folder("scratch", self.kept.get().unwrap_or(&nothing)),
        ];
        swept.into_iter().collect()
    }

    fn sweep_folder(&self, folder: &str, kept: &BTreeSet<OsString>) -> io::Result<()> {
        let open = match self.open(folder) {
            // A job may have removed it, and ComfyUI makes it anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            open => open?,
        };
        let mut swept = Ok(());
        for name in names(open.try_clone()?)? {
            if !kept.contains(&name) {
                swept = swept.and(tree::remove(&open, &name));
            }
        }
        swept
    }

    fn open(&self, folder: &str) -> io::Result<OwnedFd> {
        beneath::open_directory(&self.root, folder)
    }
}

fn names(folder: OwnedFd) -> io::Result<Vec<OsString>> {
    let mut folder = Dir::from_fd(folder)?;
    let mut found = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Removes a room, whichever life made it. No error when there is none.
///
/// # Errors
/// What umount2(2) or the removal said; it can be tried again.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    for point in mounts::points_under(path)? {
        // A mount that is detached lives on while a process has it open: what is in it goes at once.
        if let Ok(mounted) = File::open(&point) {
            for inner in names(mounted.as_fd().try_clone_to_owned()?)? {
                tree::remove(&mounted, &inner)?;
            }
        }
        mounts::detach(&point)?;
    }
    tree::remove(&parent, name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn room() -> (tempfile::TempDir, Room) {
        let folder = tempfile::tempdir_in("/dev/shm").expect("folder");
        let room = Room::make(folder.path().join("room"), 8 << 20).expect("room");
        (folder, room)
    }

    fn close(room: Room) {
        let path = room.path.clone();
        drop(room);
        remove(&path).expect("removed");
        assert!(!path.exists());
        remove(&path).expect("gone already");
    }

    #[test]
    fn a_jobs_files_are_swept_and_the_processes_own_are_kept() {
        let (_folder, room) = room();
        let at = |path: &str| room.path.join(path);
        assert!(room.mounted, "this test mounts a tmpfs and needs root");
        assert_eq!(std::fs::metadata(&room.path).expect("room").permissions().mode() & 0o777, 0o700);
        std::fs::write(at("scratch/own"), "x").expect("file");
        room.remember().expect("remember");
        std::fs::create_dir(at("out/sub")).expect("sub");
        for path in ["out/sub/a", "out/partial.tmp", "in/b", "tmp/temp/c", "tmp/d", "scratch/e", "cache/f"] {
            std::fs::write(at(path), "x").expect(path);
        }
        room.sweep().expect("swept");
        for folder in ["out", "in", "tmp/temp"] {
            assert!(std::fs::read_dir(at(folder)).expect("list").next().is_none(), "{folder}");
        }
        assert!(!at("tmp/d").exists() && !at("scratch/e").exists());
        assert!(at("scratch/own").exists() && at("cache/f").exists());
        std::fs::remove_dir(at("out")).expect("removed by a job");
        room.sweep().expect("swept all the same");
        close(room);
    }

    #[test]
    fn only_plain_files_beneath_a_shelf_are_read_and_no_more_than_allowed() {
        let (folder, room) = room();
        let at = |path: &str| room.path.join(path);
        std::fs::write(folder.path().join("secret"), "x").expect("file");
        std::fs::write(at("home/secret"), "x").expect("file");
        symlink(folder.path().join("secret"), at("out/link")).expect("link");
        std::fs::create_dir(at("out/folder")).expect("folder");
        nix::unistd::mkfifo(&at("out/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        std::fs::write(at("out/folder/a"), "12345").expect("file");
        let take = |path: &str, most| room.take(Shelf::Output, path, most);
        assert_eq!(take("folder/a", 5).expect("reads"), b"12345");
        assert_eq!(take("folder/a", 4).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
        for path in ["../home/secret", "link", "folder", "fifo", "/etc/passwd", "absent", "folder/../../home/secret"] {
            assert!(take(path, 100).is_err(), "{path}");
        }
        room.put("a.png", b"x").expect("laid");
        assert_eq!(room.put("a.png", b"x").expect_err("twice").kind(), io::ErrorKind::AlreadyExists);
        assert!(room.put("../a.png", b"x").is_err());
        assert_eq!(room.take(Shelf::Input, "a.png", 1).expect("reads"), b"x");
        close(room);
    }
}
