//! Room for a set: all sets together take no more than they may, and what nobody uses gives way.

use std::collections::BTreeMap;
use std::path::Path;

use slog::info;

use super::packages::{HostPackages, lock};
use super::{MAKING, REMOVING, VolumeError, list, sharing};
use crate::domain::package_set::{KeepSets, KeptSet, NoRoom, StoredSet};
use crate::domain::time::WallTime;

impl HostPackages {
    /// Whether one byte more would find room.
    pub(super) fn look_for_room_now(&self, keep: KeepSets, now: WallTime) -> Result<(), VolumeError> {
        let _alone = lock(&self.shared.room);
        keep.giving_way(&self.stored()?, 1, now).map(drop).map_err(full(keep))
    }

    /// Makes room for the set of this name, which is held, and counts its bytes from now on.
    pub(super) fn reserve(&self, name: &str, bytes: u64, keep: KeepSets, now: WallTime) -> Result<(), VolumeError> {
        let _alone = lock(&self.shared.room);
        loop {
            let gone = keep.giving_way(&self.stored()?, bytes, now).map_err(full(keep))?;
            if gone.is_empty() {
                lock(&self.shared.sizes).insert(name.to_owned(), bytes);
                return Ok(());
            }
            for set in gone {
                // One that a set-up has found meanwhile stays, and does not give way the next time either.
                if self.remove_now(&set)? {
                    info!(self.log, "packages.gave_way"; "set" => &set);
                }
            }
        }
    }

    /// All sets, and those that are about to be written.
    fn stored(&self) -> Result<Vec<StoredSet>, VolumeError> {
        let mut stored = BTreeMap::new();
        for name in list(&self.root)? {
            let known = lock(&self.shared.sizes).get(&name).copied();
            let bytes = known.map_or_else(|| self.measure(&name), Ok)?;
            let set = KeptSet { facts: self.facts(&name), name: name.clone() };
            stored.insert(name.clone(), StoredSet { set, bytes, held: self.is_held(&name) });
        }
        let sizes = lock(&self.shared.sizes).clone();
        for (name, bytes) in sizes {
            if self.is_held(&name) && !stored.contains_key(&name) {
                let set = KeptSet { name: name.clone(), facts: None };
                stored.insert(name, StoredSet { set, bytes, held: true });
            }
        }
        Ok(stored.into_values().collect())
    }

    /// What a set of an earlier life takes, or what is left of one. A whole one never changes: it is measured once.
    fn measure(&self, name: &str) -> Result<u64, VolumeError> {
        let mut bytes = 0_u64;
        for prefix in ["", MAKING, REMOVING] {
            let tree = self.root.join(format!("{prefix}{name}"));
            bytes = bytes.saturating_add(size(&tree)?);
        }
        if self.facts(name).is_some() {
            lock(&self.shared.sizes).insert(name.to_owned(), bytes);
        }
        Ok(bytes)
    }
}

/// Of a tree that may go meanwhile.
fn size(tree: &Path) -> Result<u64, VolumeError> {
    if !tree.exists() {
        return Ok(0);
    }
    sharing::bytes(&BTreeMap::new(), &sharing::listed(tree, &["."])?)
}

fn full(keep: KeepSets) -> impl FnOnce(NoRoom) -> VolumeError {
    move |NoRoom { used }| VolumeError::NoRoom { used, most: keep.bytes }
}
