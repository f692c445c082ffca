//! The module trees on disk, one volume for each environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;

/// Why a volume cannot be made, listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0:?} is not a volume's name")]
    Name(String),
    #[error("{0} does not hold what was written there")]
    Damaged(PathBuf),
    #[error(
        "the packages that environments use take {} MiB of the {} MiB for all of them (sandbox.packages_mib): \
         delete environments, or raise that",
        used.div_ceil(1 << 20), most >> 20
    )]
    NoRoom { used: u64, most: u64 },
    #[error("volume {0} is gone")]
    Gone(String),
    #[error("volume task was interrupted")]
    Interrupted,
}

/// Keeps volumes. A volume appears whole or not at all, and is sealed read-only.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Writes a new volume: file contents by path relative to its root (`workspace/main.js`, …).
    async fn make(&self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError>;
    /// The same, with all files of other sealed trees at the paths that they have there. They are shared where the file
    /// system can do that; a tree may be removed later without any harm to the volume.
    async fn make_with(
        &self,
        name: &str,
        files: BTreeMap<String, Vec<u8>>,
        trees: Vec<PathBuf>,
    ) -> Result<(), VolumeError>;
    /// Writes a new volume of what lies below `folders` of the volume `from`, and of further files. What is taken over
    /// takes no further room where the file system lets two volumes share a file: both are sealed. Answers with the bytes that it would
    /// take by itself.
    ///
    /// # Errors
    /// [`VolumeError::Gone`] when `from` is not there, or was removed meanwhile: then nothing is made of what was left of it.
    async fn derive(
        &self,
        name: &str,
        from: &str,
        folders: &[&'static str],
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<u64, VolumeError>;
    /// Removes a volume without ever following a link out of it. No error when it is gone. Resumable.
    async fn remove(&self, name: &str) -> Result<(), VolumeError>;
    /// Names of all volumes, half-made and half-removed ones included.
    async fn list(&self) -> Result<Vec<String>, VolumeError>;
    /// Where a volume lies, for the sandbox's mounts.
    fn path(&self, name: &str) -> PathBuf;
}
