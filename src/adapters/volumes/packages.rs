//! Sets of dependencies in a directory of this host (`ports::packages`), beside the volumes and made like them.
//!
//!     <root>/<kind>-<sha256 of the set's identity>.<when it was resolved>/    files as in a volume
//!     …/lock/<kind>.json        what was asked for, and the digest of the rest
//!
//! Environments have hard links to all of it: the number of links of that record is the number of its users, counted by
//! the file system, so that no crash can make it wrong. The tree's own time is when it was last used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use slog::{Logger, warn};

use super::{blocking, failed, list, making, remove};
use crate::domain::package_set::{KeepSets, KeptFacts, KeptSet, PackageSet, SetKind};
use crate::domain::quota::bytes_on_disk;
use crate::domain::time::WallTime;
use crate::ports::packages::{HeldSet, Packages};
use crate::ports::volumes::VolumeError;
use crate::telemetry::error_chain;

/// The sets beneath one directory. It is made, with its parents, when the first set is.
#[derive(Clone)]
pub struct HostPackages {
    pub(super) root: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) log: Logger,
}

#[derive(Default)]
pub(super) struct Shared {
    /// By name. Locked while a set is removed, so that none is found and removed at once.
    held: Mutex<HashMap<String, Weak<()>>>,
    /// Made, or compared with their digest, in this life: what they take on disk, by name.
    known_good: Mutex<HashMap<String, u64>>,
    /// What sets take on disk, by name, as far as that is known; those that are being made as well.
    pub(super) sizes: Mutex<HashMap<String, u64>>,
    /// Locked while room is counted and made.
    pub(super) room: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    /// The set's identity.
    wanted: Vec<String>,
    /// Of all files but this one.
    digest: String,
}

impl HostPackages {
    /// `root` belongs to the daemon alone, and lies on the volumes' file system.
    pub fn new(root: PathBuf, log: Logger) -> Self {
        Self { root, shared: Arc::default(), log }
    }

    /// None when a set of this name is not whole.
    pub(super) fn facts(&self, name: &str) -> Option<KeptFacts> {
        let tree = self.root.join(name);
        let (key, resolved_at) = parse(name)?;
        let users = tree.join(record_in(key)?).metadata().ok()?.nlink().saturating_sub(1);
        let used_at = tree.metadata().ok()?.mtime();
        Some(KeptFacts { resolved_at, used_at: WallTime(used_at.saturating_mul(1000)), users })
    }

    fn hold(&self, name: &str, bytes: u64) -> HeldSet {
        let mut held = lock(&self.shared.held);
        held.retain(|_, hold| hold.strong_count() > 0);
        let hold = held.get(name).and_then(Weak::upgrade).unwrap_or_default();
        held.insert(name.to_owned(), Arc::downgrade(&hold));
        HeldSet::new(self.root.join(name), bytes, hold)
    }

    pub(super) fn is_held(&self, name: &str) -> bool {
        lock(&self.shared.held).get(name).is_some_and(|hold| hold.strong_count() > 0)
    }

    fn newest(&self, key: &str, keep: KeepSets, now: WallTime) -> Result<Option<String>, VolumeError> {
        let names = list(&self.root)?.into_iter();
        let fresh = names.filter_map(|name| {
            let (of, resolved_at) = parse(&name)?;
            (of == key && keep.is_fresh(resolved_at, now)).then_some((resolved_at, name))
        });
        Ok(fresh.max().map(|(_, name)| name))
    }

    fn find_now(&self, key: &str, keep: KeepSets, now: WallTime) -> Result<Option<HeldSet>, VolumeError> {
        let Some(name) = self.newest(key, keep, now)? else { return Ok(None) };
        let mut held = self.hold(&name, 0);
        // Gone between the look and the hold, or what a crash left of it.
        if self.facts(&name).is_none() {
            return Ok(None);
        }
        let known = lock(&self.shared.known_good).get(&name).copied();
        held.bytes = match known.map_or_else(|| compare(&held.tree, key), Ok) {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(self.log, "packages.damaged"; "set" => &name, "error" => error_chain(&error));
                drop(held);
                self.remove_now(&name)?;
                return Ok(None);
            }
        };
        lock(&self.shared.known_good).insert(name, held.bytes);
        touch(&held.tree, now)?;
        Ok(Some(held))
    }

    pub(super) fn remove_now(&self, name: &str) -> Result<bool, VolumeError> {
        let held = lock(&self.shared.held);
        if held.get(name).is_some_and(|hold| hold.strong_count() > 0) {
            return Ok(false);
        }
        lock(&self.shared.known_good).remove(name);
        lock(&self.shared.sizes).remove(name);
        remove(&self.root, name).map(|()| true)
    }
}

#[async_trait]
impl Packages for HostPackages {
    async fn find(&self, wanted: &PackageSet, keep: KeepSets, now: WallTime) -> Result<Option<HeldSet>, VolumeError> {
        let (packages, key) = (self.clone(), key(wanted));
        blocking(move || packages.find_now(&key, keep, now)).await
    }

    async fn look_for_room(&self, keep: KeepSets, now: WallTime) -> Result<(), VolumeError> {
        let packages = self.clone();
        blocking(move || packages.look_for_room_now(keep, now)).await
    }

    async fn keep(
        &self,
        wanted: &PackageSet,
        mut files: BTreeMap<String, Vec<u8>>,
        keep: KeepSets,
        now: WallTime,
    ) -> Result<HeldSet, VolumeError> {
        let (packages, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let name = format!("{}.{}", key(&wanted), now.0);
            let mut digest = TreeDigest::default();
            for (path, content) in &files {
                digest.add(path, content);
            }
            let record = Record { wanted: wanted.identity(), digest: digest.finish() };
            let record = serde_json::to_vec_pretty(&record).map_err(io::Error::from);
            files.insert(wanted.kind().record(), record.map_err(failed("describe", &packages.root.join(&name)))?);
            let bytes = bytes_on_disk(files.values().map(Vec::len));
            let held = packages.hold(&name, bytes);
            packages.reserve(&name, bytes, keep, now)?;
            if let Err(error) = making::make(&packages.root, &name, &files, &[], &BTreeMap::new()) {
                // What is left of it is measured.
                lock(&packages.shared.sizes).remove(&name);
                return Err(error);
            }
            lock(&packages.shared.known_good).insert(name, bytes);
            touch(&held.tree, now)?;
            Ok(held)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<KeptSet>, VolumeError> {
        let packages = self.clone();
        let facts = move || {
            let names = list(&packages.root)?.into_iter();
            Ok(names.map(|name| KeptSet { facts: packages.facts(&name), name }).collect())
        };
        blocking(facts).await
    }

    async fn remove(&self, name: &str) -> Result<bool, VolumeError> {
        let (packages, name) = (self.clone(), super::checked(name)?);
        blocking(move || packages.remove_now(&name)).await
    }
}

fn key(set: &PackageSet) -> String {
    format!("{}-{}", set.kind().as_str(), hex(&Sha256::digest(set.identity().join("\n"))))
}

/// Where the record of a set with this key lies in it.
fn record_in(key: &str) -> Option<String> {
    let kind = SetKind::ALL.into_iter().find(|kind| key.starts_with(kind.as_str()))?;
    Some(kind.record())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of files in the order of their paths.
#[derive(Default)]
struct TreeDigest(Sha256);

impl TreeDigest {
    fn add(&mut self, path: &str, content: &[u8]) {
        for part in [path.as_bytes(), content] {
            self.0.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.0.update(part);
        }
    }

    fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Whether the files are still those that were kept, and what they take on disk.
fn compare(tree: &Path, key: &str) -> Result<u64, VolumeError> {
    let own = record_in(key).unwrap_or_default();
    let read = |path: &Path| std::fs::read(path).map_err(failed("read", path));
    let told = read(&tree.join(&own))?;
    let mut sizes = vec![told.len()];
    let record: Record =
        serde_json::from_slice(&told).map_err(|error| failed("read", &tree.join(&own))(error.into()))?;
    let mut paths = BTreeSet::new();
    let mut pending = vec![String::new()];
    while let Some(folder) = pending.pop() {
        let at = tree.join(&folder);
        for entry in std::fs::read_dir(&at).map_err(failed("list", &at))? {
            let entry = entry.map_err(failed("list", &at))?;
            let below = format!("{folder}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed("list", &at))?.is_dir() {
                pending.push(format!("{below}/"));
            } else if below != own {
                paths.insert(below);
            }
        }
    }
    let mut digest = TreeDigest::default();
    for path in &paths {
        let content = read(&tree.join(path))?;
        sizes.push(content.len());
        digest.add(path, &content);
    }
    if digest.finish() == record.digest { Ok(bytes_on_disk(sizes)) } else { Err(VolumeError::Damaged(tree.to_owned())) }
}

/// The key and the time in a set's name.
fn parse(name: &str) -> Option<(&str, WallTime)> {
    let (key, resolved_at) = name.split_once('.')?;
    Some((key, WallTime(resolved_at.parse().ok()?)))
}

fn touch(tree: &Path, now: WallTime) -> Result<(), VolumeError> {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let touched = File::open(tree).and_then(|directory| directory.set_modified(at));
    touched.map_err(failed("touch", tree))
}

/// No code of ours panics between a lock and its release, so that what is behind it is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "packages_tests.rs"]
mod tests;
