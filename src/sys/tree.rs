//! Removing a directory tree that somebody else filled: no link is followed, no mount is entered, and neither depth
//! nor width needs more than a bounded number of descriptors and names at a time.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::beneath::{make_accessible, open_directory};

/// Directories open at a time. What lies deeper is moved up to the top first.
const DEEPEST: usize = 48;
/// Names held of one directory at a time.
const BATCH: usize = 1024;
/// Listings of one directory in which nothing could be removed and nothing failed, before that is an error.
const FRUITLESS: u32 = 8;

/// Removes what has this name in `parent`: a file, a link, or a directory with all that is in it. No error when it is
/// gone already, or goes meanwhile. What an error leaves can be removed by another call.
///
/// # Errors
/// `EXDEV` at a mount point; `ENOTEMPTY` when the tree is filled faster than it is emptied; else what the failed call
/// said. `Unsupported` before Linux 5.6.
pub fn remove(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    let parent = parent.as_fd();
    if unlinked(parent, &name)? {
        return Ok(());
    }
    let mut levels: Vec<Level> = Vec::new();
    levels.extend(Level::open(parent, name)?);
    let mut moved_up: u64 = 0;
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.next()? else {
            step_out(parent, &mut levels)?;
            continue;
        };
        if !entry.is_directory && unlinked(level.dir.as_fd(), &entry.name)? {
            level.fruitless = 0;
            continue;
        }
        let Some(below) = Level::open(level.dir.as_fd(), entry.name)? else { continue };
        level.fruitless = 0;
        if levels.len() < DEEPEST {
            levels.push(below);
        } else {
            move_up(&levels, &below.name, &mut moved_up)?;
        }
    }
    Ok(())
}

/// An open directory that is being emptied.
struct Level {
    dir: Dir,
    name: CString,
    pending: Vec<Entry>,
    fruitless: u32,
}

struct Entry {
    name: CString,
    is_directory: bool,
}

impl Level {
    /// None when it is gone.
    fn open(parent: BorrowedFd<'_>, name: CString) -> io::Result<Option<Self>> {
        let mut opened = open_directory(parent, name.as_c_str());
        if opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)) {
            // Without CAP_DAC_OVERRIDE the owner's own bits count.
            make_accessible(parent, &name)?;
            opened = open_directory(parent, name.as_c_str());
        }
        let descriptor = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let owner = Mode::from_bits_truncate(fstat(&descriptor)?.st_mode) & Mode::S_IRWXU;
        if owner != Mode::S_IRWXU {
            // Whether it was needed shows in what follows.
            let _ = fchmod(&descriptor, Mode::S_IRWXU);
        }
        Ok(Some(Self { dir: Dir::from_fd(descriptor)?, name, pending: Vec::new(), fruitless: 0 }))
    }

    /// The next entry, from a new listing when the last one is used up; None when that is empty.
    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.pending.is_empty() {
            // Dropping the iterator rewinds: each listing starts anew and shows what is still there.
            for entry in self.dir.iter() {
                let entry = entry?;
                if entry.file_name() == c"." || entry.file_name() == c".." {
                    continue;
                }
                let is_directory = entry.file_type() == Some(Type::Directory);
                self.pending.push(Entry { name: entry.file_name().to_owned(), is_directory });
                if self.pending.len() == BATCH {
                    break;
                }
            }
            self.fruitless += 1;
            if self.fruitless > FRUITLESS {
                return Err(Errno::ENOTEMPTY.into());
            }
        }
        Ok(self.pending.pop())
    }
}

/// Removes what is no directory; false when it is one. Gone is as good as removed.
fn unlinked(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the innermost directory, which was listed empty; if it is not, it stays and is listed again.
fn step_out(parent: BorrowedFd<'_>, levels: &mut Vec<Level>) -> io::Result<()> {
    let Some(done) = levels.pop() else { return Ok(()) };
    let above = levels.last().map_or(parent, |level| level.dir.as_fd());
    match unlinkat(above, done.name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
            levels.push(done);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Moves a directory from the innermost level to the outermost, where a later listing finds it.
fn move_up(levels: &[Level], name: &CStr, moved_up: &mut u64) -> io::Result<()> {
    let (Some(top), Some(innermost)) = (levels.first(), levels.last()) else { return Ok(()) };
    loop {
        *moved_up += 1;
        let free = format!(".moved-up-{moved_up}");
        match renameat2(&innermost.dir, name, &top.dir, free.as_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use nix::sys::stat::mkdirat;
    use tempfile::{TempDir, tempdir_in};

    use super::*;

    /// In memory: beside builds that keep the disk's journal busy, ten thousand directories take half a minute.
    fn folder() -> (TempDir, File) {
        let folder = tempdir_in("/dev/shm").expect("folder");
        let handle = File::open(folder.path()).expect("open");
        (folder, handle)
    }

    fn is_empty(path: &Path) -> bool {
        std::fs::read_dir(path).expect("list").next().is_none()
    }

    fn fill(tree: &Path) {
        std::fs::create_dir_all(tree.join("a/b/c")).expect("directories");
        std::fs::create_dir_all(tree.join("closed/inner")).expect("directories");
        std::fs::write(tree.join("a/b/file"), "x").expect("file");
        std::fs::write(tree.join("closed/inner/file"), "x").expect("file");
        nix::unistd::mkfifo(&tree.join("a/fifo"), Mode::S_IRUSR).expect("fifo");
    }

    #[test]
    fn files_links_and_absent_names_are_removed_and_links_not_followed() {
        let (folder, handle) = folder();
        let (outside, _) = self::folder();
        std::fs::write(outside.path().join("kept"), "x").expect("file");
        let tree = folder.path().join("tree");
        fill(&tree);
        symlink(outside.path(), tree.join("a/link")).expect("link");
        symlink(outside.path().join("kept"), tree.join("a/b/link")).expect("link");
        symlink(outside.path(), folder.path().join("top-link")).expect("link");
        std::fs::write(folder.path().join("plain"), "x").expect("file");
        for name in ["tree", "top-link", "plain", "absent"] {
            remove(&handle, OsStr::new(name)).expect(name);
        }
        assert!(is_empty(folder.path()));
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn ten_thousand_levels_need_few_descriptors() {
        const LEVELS: usize = 10_000;
        let (folder, handle) = folder();
        mkdirat(&handle, "tree", Mode::S_IRWXU).expect("mkdir");
        let mut current = open_directory(&handle, "tree").expect("open");
        for level in 0..LEVELS {
            if level % 100 == 0 {
                drop(nix::fcntl::openat(&current, "file", nix::fcntl::OFlag::O_CREAT, Mode::S_IRUSR).expect("file"));
            }
            mkdirat(&current, ".moved-up-1", Mode::S_IRWXU).expect("mkdir");
            current = open_directory(&current, ".moved-up-1").expect("open");
        }
        drop(current);
        remove(&handle, OsStr::new("tree")).expect("removed");
        assert!(is_empty(folder.path()));
    }

    #[test]
    fn more_names_than_one_listing_holds() {
        let (folder, handle) = folder();
        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree).expect("tree");
        for number in 0..3 * BATCH {
            std::fs::write(tree.join(number.to_string()), "").expect("file");
        }
        remove(&handle, OsStr::new("tree")).expect("removed");
        assert!(is_empty(folder.path()));
    }

    #[test]
    fn a_mount_is_not_entered() {
        let (folder, handle) = folder();
        let mounted = folder.path().join("tree/a/mounted");
        std::fs::create_dir_all(&mounted).expect("directories");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &mounted, Some("tmpfs"), flags, Some("size=64k"))
            .expect("this test mounts a tmpfs and needs root");
        std::fs::write(mounted.join("kept"), "x").expect("file");
        let error = remove(&handle, OsStr::new("tree")).expect_err("a mount is in the way");
        let kept = mounted.join("kept").exists();
        crate::sys::mounts::detach(&mounted).expect("detach");
        assert!(kept);
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        remove(&handle, OsStr::new("tree")).expect("removed after all");
        assert!(is_empty(folder.path()));
    }

    /// As a daemon without CAP_DAC_OVERRIDE: a file-system uid other than root's takes that capability away from this
    /// thread alone.
    #[test]
    fn closed_directories_are_removed_by_their_owner_without_capabilities() {
        use nix::unistd::{Uid, setfsuid};
        let (folder, handle) = folder();
        let nobody = 65_534;
        std::os::unix::fs::chown(folder.path(), Some(nobody), None).expect("this test needs root");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("chmod");
        let tree = folder.path().join("tree");
        fill(&tree);
        for path in ["a/b/c", "a/b/file", "a/b", "a/fifo", "a", "closed/inner/file", "closed/inner", "closed", ""] {
            std::os::unix::fs::chown(tree.join(path), Some(nobody), None).expect("chown");
        }
        for (path, mode) in [("a/b", 0o555), ("a", 0o000), ("closed/inner", 0o000), ("closed", 0o100), ("", 0o500)] {
            std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let removed = std::thread::spawn(move || {
            setfsuid(Uid::from_raw(nobody));
            remove(&handle, OsStr::new("tree"))
        });
        removed.join().expect("joins").expect("removed");
        assert!(is_empty(folder.path()));
    }
}
