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
    /// Keeps what was installed for `wanted`: file contents by path, as in a volume.
    async fn keep(
        &self,
        wanted: &PackageSet,
        files: BTreeMap<String, Vec<u8>>,
        now: WallTime,
    ) -> Result<HeldSet, VolumeError>;
    /// All sets, half-made and half-removed ones included.
    async fn list(&self) -> Result<Vec<KeptSet>, VolumeError>;
    /// Removes a set by its name; false when it is held, or being made. Environments that share its files keep them.
    async fn remove(&self, name: &str) -> Result<bool, VolumeError>;
}
