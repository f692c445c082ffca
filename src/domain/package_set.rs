//! Sets of packages that environments share: what makes two the same, how long one is good for further environments, and
//! when nobody needs it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::package::{self, PackageError};
use crate::domain::time::WallTime;

/// Packages as an environment names them, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageSet {
    /// Ranges of versions by name.
    pub packages: BTreeMap<String, String>,
    /// The address of the registry.
    pub registry: String,
}

impl PackageSet {
    /// None where nothing is named.
    ///
    /// # Errors
    /// The first entry that is no package, or one that is named twice.
    pub fn of(entries: &[String], registry: &str) -> Result<Option<Self>, PackageError> {
        let packages = package::packages(entries)?;
        Ok((!packages.is_empty()).then(|| Self { packages, registry: registry.to_owned() }))
    }

    /// A text that two sets share only when they are the same, whatever runtime they are for.
    pub fn identity(&self) -> String {
        // No name, range or address has a line's end in it.
        let mut text = format!("packages 1\n{}\n", self.registry);
        for (name, range) in &self.packages {
            text.extend([name, "@", range, "\n"]);
        }
        text
    }
}

/// What the host knows of a set that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSet {
    pub name: String,
    /// None: it is not whole.
    pub facts: Option<KeptFacts>,
}

/// Of a whole set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFacts {
    /// When its ranges became versions.
    pub resolved_at: WallTime,
    /// When an environment was last made with it.
    pub used_at: WallTime,
    /// Environments that share its files.
    pub users: u64,
}

/// How long sets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepSets {
    /// For further environments, from its resolution on.
    pub fresh: Duration,
    /// Without any environment that uses it.
    pub unused: Duration,
}

impl KeepSets {
    /// Whether a set that was resolved then is still good for further environments. One from the future is not: the clock
    /// was set back, and its age is not known.
    pub fn is_fresh(&self, resolved_at: WallTime, now: WallTime) -> bool {
        age(resolved_at, now).is_some_and(|age| age < self.fresh.as_millis())
    }

    /// Whether nobody needs it any more. Environments that were made with it have its files as their own.
    pub fn is_over(&self, set: &KeptSet, now: WallTime) -> bool {
        let Some(facts) = set.facts else { return true };
        let unused = facts.users == 0 && age(facts.used_at, now).is_none_or(|age| age >= self.unused.as_millis());
        unused || !self.is_fresh(facts.resolved_at, now)
    }
}

/// Milliseconds; None when it lies ahead.
fn age(at: WallTime, now: WallTime) -> Option<u128> {
    u128::try_from(now.0.checked_sub(at.0)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP: KeepSets = KeepSets { fresh: Duration::from_secs(100), unused: Duration::from_secs(10) };

    fn set(entries: &[&str], registry: &str) -> PackageSet {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        PackageSet::of(&entries, registry).unwrap().unwrap()
    }

    fn kept(resolved_at: i64, used_at: i64, users: u64) -> KeptSet {
        let facts = KeptFacts { resolved_at: WallTime(resolved_at), used_at: WallTime(used_at), users };
        KeptSet { name: "set".into(), facts: Some(facts) }
    }

    #[test]
    fn the_same_packages_of_the_same_registry_are_the_same_set() {
        let identity = set(&["b@1", "a"], "https://r/").identity();
        assert_eq!(identity, set(&["a@latest", "b@1"], "https://r/").identity());
        for other in [set(&["a", "b@2"], "https://r/"), set(&["a", "b@1"], "https://s/"), set(&["a"], "https://r/")] {
            assert_ne!(identity, other.identity());
        }
        assert_eq!(PackageSet::of(&[], "https://r/"), Ok(None));
    }

    #[test]
    fn a_set_is_over_when_it_is_half_stale_or_long_unused() {
        assert!(KEEP.is_over(&KeptSet { name: "half".into(), facts: None }, WallTime(0)));
        assert!(!KEEP.is_over(&kept(0, 0, 0), WallTime(9_999)));
        assert!(KEEP.is_over(&kept(0, 0, 0), WallTime(10_000)));
        assert!(!KEEP.is_over(&kept(0, 0, 1), WallTime(99_999)));
        assert!(KEEP.is_over(&kept(0, 99_000, 1), WallTime(100_000)));
        assert!(KEEP.is_over(&kept(5, 5, 1), WallTime(0)), "from the future");
    }

    proptest! {
        #[test]
        fn what_an_environment_uses_is_over_exactly_when_no_set_up_may_find_it(
            resolved in 0..1_000_000_i64, age in 0..200_000_i64, used in 0..1_000_000_i64, users in 1..9_u64,
        ) {
            let now = WallTime(resolved + age);
            prop_assert_eq!(KEEP.is_over(&kept(resolved, used, users), now), !KEEP.is_fresh(WallTime(resolved), now));
        }
    }
}
