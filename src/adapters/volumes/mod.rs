//! Module trees in a directory of this host (`ports::volumes`).
//!
//!     <root>/<name>             a volume: whole, read-only, known to be on the disk
//!     <root>/.making-<name>     being written; a leftover of a crash if nobody writes
//!     <root>/.removing-<name>   being removed; a leftover of a crash if nobody removes
//!
//! A rename leads from one state to the next, so that no crash leaves a volume that looks whole and is not.

mod linking;
mod making;
mod packages;
mod room;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::renameat;

pub use self::packages::HostPackages;
use crate::ports::volumes::{VolumeError, Volumes};
use crate::sys::tree;

const MAKING: &str = ".making-";
const REMOVING: &str = ".removing-";

/// The volumes beneath one directory. It is made, with its parents, when the first volume is.
#[derive(Debug, Clone)]
pub struct HostVolumes {
    root: PathBuf,
}

impl HostVolumes {
    /// `root` belongs to the daemon alone; nothing else may write to it.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

#[async_trait]
impl Volumes for HostVolumes {
    async fn make(&self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError> {
        let (root, name) = (self.root.clone(), checked(name)?);
        blocking(move || making::make(&root, &name, &files, &[], &BTreeMap::new())).await
    }

    async fn make_with(
        &self,
        name: &str,
        files: BTreeMap<String, Vec<u8>>,
        trees: Vec<PathBuf>,
    ) -> Result<(), VolumeError> {
        let (root, name) = (self.root.clone(), checked(name)?);
        blocking(move || making::make(&root, &name, &files, &trees, &BTreeMap::new())).await
    }

    async fn derive(
        &self,
        name: &str,
        from: &str,
        folders: &[&'static str],
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<u64, VolumeError> {
        let (root, name, from) = (self.root.clone(), checked(name)?, checked(from)?);
        let folders = folders.to_vec();
        blocking(move || {
            let source = root.join(&from);
            let derived = derive(&root, &name, &source, &folders, &files);
            // Whatever went wrong then is no fault of this host.
            if derived.is_err() && source.try_exists().is_ok_and(|there| !there) {
                return Err(VolumeError::Gone(from));
            }
            derived
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let (root, name) = (self.root.clone(), checked(name)?);
        blocking(move || remove(&root, &name)).await
    }

    async fn list(&self) -> Result<Vec<String>, VolumeError> {
        let root = self.root.clone();
        blocking(move || list(&root)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| VolumeError::Interrupted)?
}

fn derive(
    root: &Path,
    name: &str,
    source: &Path,
    folders: &[&str],
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<u64, VolumeError> {
    let shared = sharing::listed(source, folders)?;
    // A removal begins with the name: as long as that stands, the list is whole. Each file on it is then linked, or there is an
    // error.
    source.metadata().map_err(failed("open", source))?;
    let bytes = sharing::bytes(files, &shared)?;
    making::make(root, name, files, &[], &shared)?;
    Ok(bytes)
}

fn remove(root: &Path, name: &str) -> Result<(), VolumeError> {
    let Some(directory) = opened(root)? else { return Ok(()) };
    let removing = format!("{REMOVING}{name}");
    let walk =
        |segment: &str| tree::remove(&directory, OsStr::new(segment)).map_err(failed("remove", &root.join(segment)));
    // What an earlier removal left would be in the way of the rename.
    walk(&removing)?;
    match renameat(&directory, name, &directory, removing.as_str()) {
        Ok(()) => walk(&removing)?,
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(failed("rename", &root.join(name))(error.into())),
    }
    walk(&format!("{MAKING}{name}"))
}

fn list(root: &Path) -> Result<Vec<String>, VolumeError> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("list", root))?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", root))?.file_name();
        let Some(entry) = entry.to_str() else { continue };
        let name = entry.strip_prefix(MAKING).or_else(|| entry.strip_prefix(REMOVING)).unwrap_or(entry);
        // Others, such as `lost+found`, are not ours to name.
        if is_name(name) {
            names.insert(name.to_owned());
        }
    }
    Ok(names.into_iter().collect())
}

/// The root, opened; None when it does not exist.
fn opened(root: &Path) -> Result<Option<File>, VolumeError> {
    match File::open(root) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("open", root)(source)),
    }
}

/// One path segment, not hidden, short enough to carry a prefix.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn checked(name: &str) -> Result<String, VolumeError> {
    if is_name(name) { Ok(name.to_owned()) } else { Err(VolumeError::Name(name.to_owned())) }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::File { action, path: path.to_owned(), source }
}
