//! Writing a volume so that it appears whole, sealed and durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, mkdirat};

use super::linking::{link_all, share};
use super::{MAKING, failed, opened};
use crate::ports::volumes::VolumeError;
use crate::sys::beneath::{create_file, open_directory};
use crate::sys::tree;

pub(super) const SEALED_FILE: u32 = 0o444;
const SEALED_DIRECTORY: u32 = 0o555;

/// Up to so many files and directories are flushed one by one, which other writers of the disk hardly slow down; more by one syncfs(2),
/// which waits for those too. Measured on ext4 with 10 files: 5–8 ms one by one (at most 40), 1.5 ms by syncfs (at most 70).
const FLUSHED_SINGLY: usize = 64;

/// Writes the files under a staging name, seals them, flushes them and renames the whole into place.
///
/// `trees` are sealed trees whose files come along; `shared` are files of another volume, by their path in this one.
pub(super) fn make(
    root: &Path,
    name: &str,
    files: &BTreeMap<String, Vec<u8>>,
    trees: &[PathBuf],
    shared: &BTreeMap<String, PathBuf>,
) -> Result<(), VolumeError> {
    if let Some(path) = files.keys().chain(shared.keys()).find(|path| !is_plain(path)) {
        return Err(VolumeError::Name(path.clone()));
    }
    let directory = match opened(root)? {
        Some(directory) => directory,
        None => {
            DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(failed("create", root))?;
            File::open(root).map_err(failed("open", root))?
        }
    };
    let staging = format!("{MAKING}{name}");
    let path = root.join(&staging);
    mkdirat(&directory, staging.as_str(), Mode::S_IRWXU).map_err(|error| failed("create", &path)(error.into()))?;
    let made = fill(&directory, &staging, &path, files, (trees, shared)).and_then(|()| {
        renameat2(&directory, staging.as_str(), &directory, name, RenameFlags::RENAME_NOREPLACE)
            .map_err(|error| failed("create", &root.join(name))(error.into()))?;
        directory.sync_all().map_err(failed("flush", root))
    });
    if made.is_err() {
        // The first error counts; what cannot be removed now is listed and can be removed later.
        let _ = tree::remove(&directory, OsStr::new(&staging));
    }
    made
}

fn fill(
    root: &File,
    staging: &str,
    path: &Path,
    files: &BTreeMap<String, Vec<u8>>,
    (trees, shared): (&[PathBuf], &BTreeMap<String, PathBuf>),
) -> Result<(), VolumeError> {
    let top = open_directory(root, staging).map_err(failed("open", path))?;
    let mut directories = make_directories(&top, path, files.keys().chain(shared.keys()))?;
    let mut copied = share(&top, path, shared)?;
    for tree in trees {
        let linked = link_all(tree, &top, path)?;
        directories.extend(linked.directories);
        copied |= linked.copied;
    }
    // A linked file is on the disk already; its directories are not.
    let singly = files.len() + directories.len() + shared.len() <= FLUSHED_SINGLY && !copied;
    let mut unflushed: Vec<(File, PathBuf)> = Vec::new();
    for (name, content) in files {
        let full = path.join(name);
        let mut file = create_file(&top, name.as_str()).map_err(failed("create", &full))?;
        file.write_all(content).map_err(failed("write", &full))?;
        file.set_permissions(Permissions::from_mode(SEALED_FILE)).map_err(failed("seal", &full))?;
        if singly {
            unflushed.push((file, full));
        }
    }
    // All are written before the first is flushed, so that one commit of the journal takes most of them.
    for (file, full) in unflushed {
        file.sync_all().map_err(failed("flush", &full))?;
    }
    // Children before their parents, the volume's own directory last.
    for name in directories.iter().rev() {
        let full = path.join(name);
        let directory = File::from(open_directory(&top, name.as_str()).map_err(failed("open", &full))?);
        seal(&directory, &full, singly)?;
    }
    let top = File::from(top);
    seal(&top, path, singly)?;
    if singly { Ok(()) } else { nix::unistd::syncfs(&top).map_err(|error| failed("flush", path)(error.into())) }
}

fn seal(directory: &File, path: &Path, flush: bool) -> Result<(), VolumeError> {
    directory.set_permissions(Permissions::from_mode(SEALED_DIRECTORY)).map_err(failed("seal", path))?;
    if flush { directory.sync_all().map_err(failed("flush", path)) } else { Ok(()) }
}

/// Makes each directory that a file lies in, parents first.
fn make_directories<'a>(
    top: &OwnedFd,
    path: &Path,
    names: impl Iterator<Item = &'a String>,
) -> Result<BTreeSet<String>, VolumeError> {
    let mut wanted = BTreeSet::new();
    for name in names {
        wanted.extend(name.match_indices('/').filter_map(|(end, _)| Some(name.get(..end)?.to_owned())));
    }
    for name in &wanted {
        let full = path.join(name);
        // A prefix sorts before what it is a prefix of, so the parent is there, made by the line above and no link.
        let made = match name.rsplit_once('/') {
            None => mkdirat(top, name.as_str(), Mode::S_IRWXU).map_err(io::Error::from),
            Some((parent, last)) => {
                open_directory(top, parent).and_then(|parent| Ok(mkdirat(parent, last, Mode::S_IRWXU)?))
            }
        };
        made.map_err(failed("create", &full))?;
    }
    Ok(wanted)
}

/// A relative path of plain segments.
fn is_plain(path: &str) -> bool {
    path.split('/').all(|segment| !matches!(segment, "" | "." | "..") && !segment.contains('\0'))
}
