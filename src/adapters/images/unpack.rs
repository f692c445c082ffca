//! Layers, one upon the other, into a directory that becomes a sandbox's root.
//!
//! Nothing is written outside: each path is resolved inside the new root by the kernel, as by a process that had it for its
//! root, and the last segment is never followed. What is of no use in a sandbox is left out: owners, setuid bits, extended
//! attributes, devices.

use std::ffi::{CString, OsStr};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{linkat, symlinkat};
use tar::EntryType;

use super::entries::{Item, walk};
use super::layer::Unpacked;
use super::saved::SavedError;
use crate::domain::image::{Digest, EntryError, Name, link_target, plain_path};
use crate::sys::beneath::create_file;
use crate::sys::{in_root, tree};

/// Files, directories and links of one image.
const MOST_FILES: u64 = 200_000;
/// Where sandboxes mount something: a directory, or made to be one.
const MOUNT_POINTS: [&str; 6] = ["dev", "proc", "runtime", "sys", "tmp", "workspace"];
/// What is left of a file's mode.
const KEPT: u32 = 0o755;

/// Why layers make no root file system.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("a layer cannot be read")]
    Read(#[source] io::Error),
    #[error("a layer is refused")]
    Entry(#[from] EntryError),
    #[error("a layer has an entry whose sizes contradict each other, or whose name has no end")]
    Header,
    #[error("a layer has an entry of the type {0:?}, which is not known")]
    Kind(char),
    #[error("the layers have more than {MOST_FILES} files")]
    Files,
    #[error("a layer unpacks to {is}, and the image's config says {told}")]
    Content { told: Digest, is: Digest },
    #[error("/{0} of a layer cannot be written")]
    Write(String, #[source] io::Error),
    #[error("the archive holds no image: make one with `docker save`, or `skopeo copy … oci-archive:FILE`")]
    NoImage,
    #[error("the archive looks like one of `docker save`, and is refused")]
    Saved(#[from] SavedError),
    #[error("/{0} must be a directory in a runtime's image, or not be there: something is mounted on it")]
    MountPoint(&'static str),
}

impl UnpackError {
    /// What is wrong with this host, when it is this host.
    pub(super) fn of_host(self) -> Result<io::Error, Self> {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            UnpackError::Write(_, source) | UnpackError::Saved(SavedError::Disk(source)) if full(&source) => Ok(source),
            other => Err(other),
        }
    }
}

/// Unpacks `layers`, the lowest first, each with the digest that it has unpacked, into the empty directory `into`. `most`:
/// bytes of all of them.
///
/// # Errors
/// The first thing that is wrong. What was written stays for whoever made the directory to remove.
pub(super) fn unpack(layers: Vec<(File, Digest)>, into: &Path, most: u64) -> Result<(), UnpackError> {
    let root = File::open(into).map_err(|source| UnpackError::Write(String::new(), source))?;
    let mut tree = Tree { root: root.into(), left: MOST_FILES };
    let mut left = most;
    for (depth, (file, told)) in layers.into_iter().enumerate() {
        if depth > 0 {
            // What a layer takes away is below it, wherever in the archive it says so: this comes first.
            let again = file.try_clone().map_err(UnpackError::Read)?;
            walk(opened(again, left)?, |item, _| match item.name {
                Name::Whiteout(path) => tree.remove(&path),
                Name::Opaque(path) => tree.clear(&path),
                Name::Root | Name::Path(_) => Ok(()),
            })?;
        }
        let (is, after) = walk(opened(file, left)?, |item, content| tree.write(item, content))?;
        if is != told {
            return Err(UnpackError::Content { told, is });
        }
        left = after;
    }
    tree.make_mount_points()
}

fn opened(mut file: File, most: u64) -> Result<Unpacked, UnpackError> {
    io::Seek::rewind(&mut file).and_then(|()| Unpacked::open(file, most)).map_err(UnpackError::Read)
}

/// The root that is being filled.
struct Tree {
    root: OwnedFd,
    /// Files that may still come.
    left: u64,
}

impl Tree {
    fn write(&mut self, item: Item, content: &mut dyn Read) -> Result<(), UnpackError> {
        let path = match item.name {
            Name::Path(path) => path,
            Name::Root | Name::Whiteout(_) | Name::Opaque(_) => return Ok(()),
        };
        self.left = self.left.checked_sub(1).ok_or(UnpackError::Files)?;
        let failed = |source: io::Error| UnpackError::Write(shown(&path), source);
        match item.kind {
            EntryType::Regular | EntryType::Continuous => {
                let (parent, name) = self.place(&path).map_err(failed)?;
                vacate(&parent, &name).map_err(failed)?;
                let mut file = create_file(&parent, name.as_c_str()).map_err(failed)?;
                copy(content, &mut file, &path)?;
                file.set_permissions(Permissions::from_mode(item.mode & KEPT)).map_err(failed)
            }
            EntryType::Directory => self.directory(&path).map_err(failed),
            EntryType::Symlink => {
                let target = link_target(&item.link)?;
                let (parent, name) = self.place(&path).map_err(failed)?;
                vacate(&parent, &name).map_err(failed)?;
                symlinkat(OsStr::from_bytes(target), &parent, name.as_c_str()).map_err(|errno| failed(errno.into()))
            }
            EntryType::Link => {
                let target = plain_path(&item.link)?;
                let (from, old) = self.place(&target).map_err(failed)?;
                let (parent, name) = self.place(&path).map_err(failed)?;
                if target != path {
                    vacate(&parent, &name).map_err(failed)?;
                }
                // Without AT_SYMLINK_FOLLOW: a link to a link is one more name of that link.
                linkat(&from, old.as_c_str(), &parent, name.as_c_str(), AtFlags::empty())
                    .map_err(|errno| failed(errno.into()))
            }
            // A sandbox has a /dev of its own, and nothing to talk through.
            EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(()),
            other => Err(UnpackError::Kind(char::from(other.as_byte()))),
        }
    }

    /// The directory that `path` lies in, made where it is missing, and its last segment.
    fn place(&self, path: &[u8]) -> io::Result<(OwnedFd, CString)> {
        let (folder, name) = split(path);
        let name = CString::new(name)?;
        if name.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return Ok((opened?, name)),
        }
        let ends = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([folder.len()]) {
            let prefix = folder.get(..end).unwrap_or_default();
            if self.open(prefix).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                let (above, last) = split(prefix);
                mkdirat(self.open(above)?, OsStr::from_bytes(last), Mode::from_bits_truncate(KEPT))?;
            }
        }
        Ok((self.open(folder)?, name))
    }

    /// A directory by its path, its links followed inside the root.
    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        in_root::open_directory(&self.root, if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) })
    }

    fn directory(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        if kind_of(&parent, &name)? != Some(SFlag::S_IFDIR) {
            vacate(&parent, &name)?;
            mkdirat(&parent, name.as_c_str(), Mode::S_IRWXU)?;
        }
        let made = crate::sys::beneath::open_directory(&parent, name.as_c_str())?;
        // Open to pass through: whoever runs in the sandbox is nobody's owner.
        Ok(fchmod(&made, Mode::from_bits_truncate(KEPT))?)
    }

    fn remove(&self, path: &[u8]) -> Result<(), UnpackError> {
        let (folder, name) = split(path);
        match self.open(folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            opened => opened
                .and_then(|parent| tree::remove(&parent, OsStr::from_bytes(name)))
                .map_err(|source| UnpackError::Write(shown(path), source)),
        }
    }

    fn clear(&self, path: &[u8]) -> Result<(), UnpackError> {
        let failed = |source: io::Error| UnpackError::Write(shown(path), source);
        let folder = match self.open(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            opened => opened.map_err(failed)?,
        };
        let again = folder.try_clone().map_err(failed)?;
        let mut listing = Dir::from_fd(again).map_err(|errno| failed(errno.into()))?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(|errno| failed(errno.into()))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.iter().try_for_each(|name| tree::remove(&folder, OsStr::from_bytes(name))).map_err(failed)
    }

    fn make_mount_points(&self) -> Result<(), UnpackError> {
        for name in MOUNT_POINTS {
            let failed = |source: io::Error| UnpackError::Write(name.to_owned(), source);
            let known = CString::new(name).map_err(|error| failed(error.into()))?;
            match kind_of(&self.root, &known).map_err(failed)? {
                Some(SFlag::S_IFDIR) => {}
                Some(_) => return Err(UnpackError::MountPoint(name)),
                None => self.directory(name.as_bytes()).map_err(failed)?,
            }
        }
        Ok(())
    }
}

/// An error of the layer is told from one of the disk.
pub(super) fn copy(content: &mut dyn Read, file: &mut File, path: &[u8]) -> Result<(), UnpackError> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = content.read(&mut chunk).map_err(UnpackError::Read)?;
        if length == 0 {
            return Ok(());
        }
        let written = io::Write::write_all(file, chunk.get(..length).unwrap_or_default());
        written.map_err(|source| UnpackError::Write(shown(path), source))?;
    }
}

/// What is there, itself and not what it leads to. None: nothing.
fn kind_of(parent: impl AsFd, name: &CString) -> io::Result<Option<SFlag>> {
    match fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What a layer below has there makes way.
fn vacate(parent: impl AsFd, name: &CString) -> io::Result<()> {
    tree::remove(parent, OsStr::from_bytes(name.to_bytes()))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

/// For a message: one line, not too long.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().map(|c| if c.is_control() { '?' } else { c }).take(120).collect()
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
