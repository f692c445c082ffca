//! Sealed files in a volume that is being made, a whole tree's or single ones: by hard links, so that they are on the disk
//! once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::linkat;

use super::failed;
use super::making::SEALED_FILE;
use crate::ports::volumes::VolumeError;
use crate::sys::beneath::{create_file, open_directory, open_file};

/// What came into the volume.
#[derive(Default)]
pub(super) struct Linked {
    /// Relative paths; their parents are among them.
    pub directories: BTreeSet<String>,
    /// True when files had to be copied: a file can have only so many links, and only on its own file system.
    pub copied: bool,
}

/// Brings all files of `tree` beneath `top`, which lies at `path`. Directories that are there already are filled; a file
/// that is there already is an error.
pub(super) fn link_all(tree: &Path, top: &OwnedFd, path: &Path) -> Result<Linked, VolumeError> {
    let source = File::open(tree).map_err(failed("open", tree))?;
    let mut linked = Linked::default();
    let mut pending = VecDeque::from([String::new()]);
    while let Some(folder) = pending.pop_front() {
        let from = descend(source.as_fd(), &folder).map_err(failed("open", &tree.join(&folder)))?;
        let into = descend(top.as_fd(), &folder).map_err(failed("open", &path.join(&folder)))?;
        let mut listed = Dir::from_fd(from).map_err(|error| failed("list", &tree.join(&folder))(error.into()))?;
        // A directory is read by a descriptor of its own position; the links are made by another.
        let from = descend(source.as_fd(), &folder).map_err(failed("open", &tree.join(&folder)))?;
        for entry in listed.iter() {
            let entry = entry.map_err(|error| failed("list", &tree.join(&folder))(error.into()))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let text = name.to_string_lossy();
            let below = if folder.is_empty() { text.into_owned() } else { format!("{folder}/{text}") };
            let full = path.join(&below);
            if entry.file_type() == Some(Type::Directory) {
                match mkdirat(&into, name, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(failed("create", &full)(error.into())),
                }
                linked.directories.insert(below.clone());
                pending.push_back(below);
            } else {
                linked.copied |= bring(from.as_fd(), into.as_fd(), name).map_err(failed("link", &full))?;
            }
        }
    }
    Ok(linked)
}

/// Puts each of these files into its place beneath `top`, under the name that it has. True when one had to be copied.
pub(super) fn share(top: &OwnedFd, path: &Path, shared: &BTreeMap<String, PathBuf>) -> Result<bool, VolumeError> {
    let mut copied = false;
    for (name, from) in shared {
        let full = path.join(name);
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let last = CString::new(last).map_err(|_| VolumeError::Name(name.clone()))?;
        let source = File::open(from.parent().unwrap_or(from)).map_err(failed("open", from))?;
        let into = descend(top.as_fd(), folder).map_err(failed("open", &full))?;
        copied |= bring(source.as_fd(), into.as_fd(), &last).map_err(failed("link", &full))?;
    }
    Ok(copied)
}

fn descend(top: BorrowedFd<'_>, folder: &str) -> io::Result<OwnedFd> {
    open_directory(top, if folder.is_empty() { "." } else { folder })
}

/// True when it was copied.
fn bring(from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match linkat(from, name, into, name, AtFlags::empty()) {
        Ok(()) => Ok(false),
        Err(Errno::EMLINK | Errno::EXDEV | Errno::EPERM | Errno::EOPNOTSUPP) => {
            let mut content = open_file(from, name)?;
            let mut file = create_file(into, name)?;
            io::copy(&mut content, &mut file)?;
            file.set_permissions(Permissions::from_mode(SEALED_FILE))?;
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}
