//! What may be collected: a pure comparison of what the store knows, what the host holds and what is in use.
//!
//! The order in which the facts are gathered is part of the proof (see [`Inventory`]): a thing that is being made
//! while the Reaper looks around is never taken for an orphan.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::environment::EnvironmentStatus;
use crate::domain::id::{EnvironmentId, SlotId};
use crate::domain::time::WallTime;

/// What the store knows of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEnvironment {
    pub id: EnvironmentId,
    /// Of its newest revision.
    pub volume_name: String,
    pub status: EnvironmentStatus,
    pub created_at: WallTime,
    pub last_executed_at: Option<WallTime>,
    pub ttl_seconds: u64,
}

/// Facts, gathered in the order of the fields: a volume is made after its record and removed before it, a slot is
/// held before anything of it exists.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Slots of which the host holds something.
    pub host_slots: BTreeSet<SlotId>,
    /// Volumes before the store was read.
    pub volumes_before: BTreeSet<String>,
    pub environments: Vec<KnownEnvironment>,
    /// Volumes after the store was read.
    pub volumes_after: BTreeSet<String>,
    pub held_slots: BTreeSet<SlotId>,
    pub held_environments: BTreeSet<EnvironmentId>,
}

/// Something to collect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// Its time is over.
    Expired(EnvironmentId),
    /// A record whose set-up or deletion was cut off, or whose volume is gone; its volume goes, too.
    BrokenRecord(EnvironmentId),
    /// A volume without a record.
    Volume(String),
    /// A volume of an environment that has another one: an older revision, or one that was never switched to. The pool
    /// decides, for it alone knows whether that has changed since.
    Superseded(EnvironmentId, String),
    /// A slot that nobody holds.
    Slot(SlotId),
}

/// When an environment's time is over, counted from its creation and, where `idle_ttl_seconds` is not 0, also from
/// its last execution.
pub fn expires_at(environment: &KnownEnvironment, idle_ttl_seconds: u64) -> WallTime {
    let by_age = environment.created_at.plus_seconds(environment.ttl_seconds);
    if idle_ttl_seconds == 0 {
        return by_age;
    }
    let last_used = environment.last_executed_at.unwrap_or(environment.created_at).max(environment.created_at);
    by_age.min(last_used.plus_seconds(idle_ttl_seconds))
}

/// Everything that may be collected now.
pub fn sort_out(inventory: &Inventory, idle_ttl_seconds: u64, now: WallTime) -> Vec<Garbage> {
    let mut garbage = Vec::new();
    for slot in inventory.host_slots.difference(&inventory.held_slots) {
        garbage.push(Garbage::Slot(*slot));
    }
    let (mut known, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for environment in &inventory.environments {
        known.insert(environment.volume_name.clone());
        ids.insert(environment.id);
        if inventory.held_environments.contains(&environment.id) {
            continue;
        }
        let whole = environment.status == EnvironmentStatus::Ready
            && inventory.volumes_after.contains(&environment.volume_name);
        if !whole {
            garbage.push(Garbage::BrokenRecord(environment.id));
        } else if expires_at(environment, idle_ttl_seconds) <= now {
            garbage.push(Garbage::Expired(environment.id));
        }
    }
    for volume in inventory.volumes_before.difference(&known) {
        let environment = EnvironmentId::from_volume_name(volume);
        if environment.is_some_and(|id| inventory.held_environments.contains(&id)) {
            continue;
        }
        match environment.filter(|id| ids.contains(id)) {
            Some(id) => garbage.push(Garbage::Superseded(id, volume.clone())),
            None => garbage.push(Garbage::Volume(volume.clone())),
        }
    }
    garbage
}

/// What the Reaper has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaperPicture {
    pub rounds: u64,
    pub expired_environments: u64,
    pub broken_records: u64,
    pub orphan_volumes: u64,
    pub orphan_slots: u64,
    /// Sets of packages that were too old, unused or half-made.
    #[serde(default)]
    pub package_sets: u64,
    pub reaped_zombies: u64,
    pub forgotten_executions: u64,
    /// What could not be looked at or removed in the last round, and why.
    pub last_failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn env(n: u128) -> EnvironmentId {
        EnvironmentId(Uuid::from_u128(n))
    }

    fn known(n: u128, status: EnvironmentStatus) -> KnownEnvironment {
        KnownEnvironment {
            id: env(n),
            volume_name: env(n).volume_name(),
            status,
            created_at: WallTime(0),
            last_executed_at: None,
            ttl_seconds: 100,
        }
    }

    fn whole(n: u128) -> Inventory {
        let volumes = BTreeSet::from([env(n).volume_name()]);
        Inventory {
            volumes_before: volumes.clone(),
            environments: vec![known(n, EnvironmentStatus::Ready)],
            volumes_after: volumes,
            ..Inventory::default()
        }
    }

    #[test]
    fn an_environment_expires_by_age_and_by_idleness_but_never_in_use() {
        let mut inventory = whole(1);
        assert_eq!(sort_out(&inventory, 0, WallTime(99_999)), []);
        assert_eq!(sort_out(&inventory, 0, WallTime(100_000)), [Garbage::Expired(env(1))]);
        assert_eq!(sort_out(&inventory, 10, WallTime(10_000)), [Garbage::Expired(env(1))]);
        inventory.environments[0].last_executed_at = Some(WallTime(5_000));
        assert_eq!(sort_out(&inventory, 10, WallTime(14_999)), []);
        inventory.held_environments.insert(env(1));
        assert_eq!(sort_out(&inventory, 10, WallTime(1_000_000)), []);
    }

    #[test]
    fn halves_of_either_kind_are_found() {
        let mut no_volume = whole(1);
        no_volume.volumes_after.clear();
        assert_eq!(sort_out(&no_volume, 0, WallTime(1)), [Garbage::BrokenRecord(env(1))]);
        let mut no_record = whole(2);
        no_record.environments.clear();
        assert_eq!(sort_out(&no_record, 0, WallTime(1)), [Garbage::Volume(env(2).volume_name())]);
        let mut cut_off = whole(3);
        cut_off.environments[0].status = EnvironmentStatus::SettingUp;
        assert_eq!(sort_out(&cut_off, 0, WallTime(1)), [Garbage::BrokenRecord(env(3))]);
    }

    #[test]
    fn volumes_of_other_revisions_are_superseded_unless_the_environment_is_held() {
        let mut inventory = whole(1);
        let (old, new) = (env(1).volume_name(), env(1).revised_volume_name(Uuid::from_u128(5)));
        inventory.environments[0].volume_name = new.clone();
        inventory.volumes_before.insert(new.clone());
        inventory.volumes_after.insert(new);
        assert_eq!(sort_out(&inventory, 0, WallTime(1)), [Garbage::Superseded(env(1), old)]);
        inventory.held_environments.insert(env(1));
        assert_eq!(sort_out(&inventory, 0, WallTime(1)), []);
    }

    #[test]
    fn a_set_up_under_way_is_left_alone_at_each_of_its_steps() {
        let mut recorded =
            Inventory { environments: vec![known(1, EnvironmentStatus::SettingUp)], ..Inventory::default() };
        recorded.held_environments.insert(env(1));
        assert_eq!(sort_out(&recorded, 0, WallTime(1)), []);
        let written = Inventory { held_environments: BTreeSet::from([env(2)]), ..whole(2) };
        assert_eq!(sort_out(&written, 0, WallTime(1)), []);
    }

    proptest! {
        #[test]
        fn nothing_held_is_ever_garbage(
            host in prop::collection::btree_set(0..8u128, 0..8),
            held in prop::collection::btree_set(0..8u128, 0..8),
            volumes in prop::collection::btree_set(0..8u128, 0..8),
            records in prop::collection::btree_set(0..8u128, 0..8),
            now in 0..1_000_000i64,
        ) {
            let inventory = Inventory {
                host_slots: host.iter().map(|n| SlotId(Uuid::from_u128(*n))).collect(),
                volumes_before: volumes.iter().map(|n| env(*n).volume_name()).collect(),
                environments: records.iter().map(|n| known(*n, EnvironmentStatus::Ready)).collect(),
                volumes_after: volumes.iter().map(|n| env(*n).volume_name()).collect(),
                held_slots: held.iter().map(|n| SlotId(Uuid::from_u128(*n))).collect(),
                held_environments: held.iter().map(|n| env(*n)).collect(),
            };
            for garbage in sort_out(&inventory, 0, WallTime(now)) {
                let number = match garbage {
                    Garbage::Expired(id) | Garbage::BrokenRecord(id) => id.0.as_u128(),
                    Garbage::Superseded(id, _) => id.0.as_u128(),
                    Garbage::Volume(name) => EnvironmentId::from_volume_name(&name).unwrap().0.as_u128(),
                    Garbage::Slot(slot) => slot.0.as_u128(),
                };
                prop_assert!(!held.contains(&number));
            }
        }
    }
}
