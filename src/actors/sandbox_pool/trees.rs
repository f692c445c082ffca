//! The volumes that slots hold, and what is known by them of their environments.

use std::collections::{HashMap, HashSet};

use crate::domain::environment::Environment;
use crate::domain::id::{EnvironmentId, SlotId};

/// A volume stays while a slot has it mounted, or while it is read for one.
///
/// The environment of a slot that stands or runs need not be read from the store for the next call. It may be older than the store's:
/// who changes it tells so (`forget`).
#[derive(Default)]
pub(super) struct Trees(HashMap<SlotId, Tree>);

struct Tree {
    volume: String,
    environment: Option<Environment>,
}

impl Trees {
    pub(super) fn hold(&mut self, slot: SlotId, volume: String) {
        self.0.insert(slot, Tree { volume, environment: None });
    }

    pub(super) fn hold_for(&mut self, slot: SlotId, environment: &Environment) {
        let volume = environment.volume_name.clone();
        self.0.insert(slot, Tree { volume, environment: Some(environment.clone()) });
    }

    /// The volume that the slot had.
    pub(super) fn release(&mut self, slot: SlotId) -> Option<String> {
        self.0.remove(&slot).map(|tree| tree.volume)
    }

    pub(super) fn holds(&self, volume: &str) -> bool {
        self.0.values().any(|tree| tree.volume == volume)
    }

    pub(super) fn volumes(&self) -> HashSet<&str> {
        self.0.values().map(|tree| tree.volume.as_str()).collect()
    }

    pub(super) fn known(&self, id: EnvironmentId) -> Option<&Environment> {
        self.0.values().filter_map(|tree| tree.environment.as_ref()).find(|environment| environment.id == id)
    }

    /// The next call of it reads the store.
    pub(super) fn forget(&mut self, id: EnvironmentId) {
        for tree in self.0.values_mut() {
            tree.environment.take_if(|environment| environment.id == id);
        }
    }
}
