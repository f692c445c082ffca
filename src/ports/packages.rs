//! Sets of installed packages, each kept once for all environments that name the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::volumes::VolumeError;
use crate::domain::package_set::{KeepSets, KeptSet, PackageSet};
use crate::domain::time::WallTime;

/// A whole set. As long as one of these lives, the set is not removed.
#[derive(Debug, Clone)]
pub struct HeldSet {
    /// A tree for [`Volumes::make_with`](super::volumes::Volumes::make_with).
    pub tree: PathBuf,
    /// What its files take on disk.
    pub bytes: u64,
    #[expect(dead_code, reason = "whoever removes counts it; nobody reads it")]
    hold: Arc<()>,
}

impl HeldSet {
    /// `hold` is shared by all that hold the set.
    pub fn new(tree: PathBuf, bytes: u64, hold: Arc<()>) -> Self {
        Self { tree, bytes, hold }
    }
}

/// Keeps sets. One appears whole or not at all, is sealed, and is never changed: a newer resolution is another set.
#[async_trait]
pub trait Packages: Send + Sync {
    /// The newest set for `wanted` that is fresh. It counts as used now. One whose files are not those that were kept is
    /// as good as none.
    async fn find(&self, wanted: &PackageSet, keep: KeepSets, now: WallTime) -> Result<Option<HeldSet>, VolumeError>;
    /// Whether there could be room for another set, however small; before the work of an installation.
    ///
    /// # Errors
    /// [`VolumeError::NoRoom`] where those that are in use take all that sets may take together.
    async fn look_for_room(&self, keep: KeepSets, now: WallTime) -> Result<(), VolumeError>;
    /// Keeps what was installed for `wanted`: file contents by path, as in a volume. Sets that nobody uses give way, so that
    /// all of them never take more than they may.
    ///
    /// # Errors
    /// [`VolumeError::NoRoom`], and nothing of it is kept.
    async fn keep(
        &self,
        wanted: &PackageSet,
        files: BTreeMap<String, Vec<u8>>,
        keep: KeepSets,
        now: WallTime,
    ) -> Result<HeldSet, VolumeError>;
    /// All sets, half-made and half-removed ones included.
    async fn list(&self) -> Result<Vec<KeptSet>, VolumeError>;
    /// Removes a set by its name; false when it is held, or being made. Environments that share its files keep them.
    async fn remove(&self, name: &str) -> Result<bool, VolumeError>;
}
