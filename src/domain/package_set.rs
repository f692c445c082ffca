//! Sets of dependencies that environments share: what makes two the same, how long one is good for further environments, and
//! when nobody needs it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::egress::{Policy, Rule};
use crate::domain::environment::{Dependencies, Runtime, SetUpInvalid};
use crate::domain::module_specifier::Specifiers;
use crate::domain::package;
use crate::domain::time::WallTime;

/// Where dependencies may come from on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The address of npm's registry.
    pub registry: Option<String>,
    /// The address of JSR.
    pub jsr: Option<String>,
    /// Hosts of modules that are named by address.
    pub hosts: Vec<Rule>,
}

/// Dependencies as an environment names them, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageSet {
    /// Packages of npm: ranges of versions by name.
    Npm { packages: BTreeMap<String, String>, registry: String },
    /// Deno's modules by specifier; packages of npm that they import are looked up, too.
    Modules { specifiers: BTreeSet<String>, sources: Sources },
}

/// What sort of set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    Npm,
    Modules,
}

impl SetKind {
    pub const ALL: [SetKind; 2] = [SetKind::Npm, SetKind::Modules];

    /// Begins the set's name.
    pub fn as_str(self) -> &'static str {
        match self {
            SetKind::Npm => "npm",
            SetKind::Modules => "modules",
        }
    }

    /// Whose installer makes it.
    pub fn installer(self) -> Runtime {
        match self {
            SetKind::Npm => Runtime::Bun,
            SetKind::Modules => Runtime::Deno,
        }
    }

    /// Where a file that was installed lies in a volume; None where an installer has no business.
    pub fn place(self, path: &str) -> Option<String> {
        let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        match self {
            SetKind::Npm if path == "bun.lock" => Some("lock/bun.lock".to_owned()),
            SetKind::Npm => below(&["node_modules/"]).then(|| format!("workspace/{path}")),
            SetKind::Modules if path == "deno.lock" => Some("lock/deno.lock".to_owned()),
            SetKind::Modules if below(&["remote/http/", "remote/https/"]) => Some(path.to_owned()),
            SetKind::Modules => {
                let emitted = path.strip_prefix("gen/").filter(|_| below(&["gen/http/", "gen/https/"]))?;
                Some(format!("emitted/{emitted}"))
            }
        }
    }

    /// Where the set's own record lies in a volume.
    pub fn record(self) -> String {
        format!("lock/{}.json", self.as_str())
    }
}

impl PackageSet {
    /// The sets that an environment needs.
    ///
    /// # Errors
    /// What is no dependency, is named twice, or comes from where this host installs nothing from.
    pub fn of(named: &Dependencies, sources: &Sources) -> Result<Vec<Self>, SetUpInvalid> {
        let specifiers = Specifiers::read(&named.deno)?;
        let entries: Vec<String> = named.npm.iter().chain(&specifiers.npm).cloned().collect();
        let packages = package::packages(&entries)?;
        let mut sets = Vec::new();
        if !packages.is_empty() {
            let registry = sources.registry.clone().ok_or(SetUpInvalid::DependenciesNotEnabled)?;
            sets.push(Self::Npm { packages, registry });
        }
        if !specifiers.jsr.is_empty() && sources.jsr.is_none() {
            return Err(SetUpInvalid::JsrNotEnabled);
        }
        // No rule admits nothing.
        let listed = Policy::Only(sources.hosts.clone());
        if let Some((_, to)) = specifiers.urls.iter().find(|(_, to)| listed.judge(to).is_err()) {
            return Err(SetUpInvalid::HostNotListed(to.to_string()));
        }
        let specifiers: BTreeSet<String> =
            specifiers.jsr.into_iter().chain(specifiers.urls.into_iter().map(|(url, _)| url)).collect();
        if !specifiers.is_empty() {
            sets.push(Self::Modules { specifiers, sources: sources.clone() });
        }
        Ok(sets)
    }

    pub fn kind(&self) -> SetKind {
        match self {
            PackageSet::Npm { .. } => SetKind::Npm,
            PackageSet::Modules { .. } => SetKind::Modules,
        }
    }

    /// How many are named.
    pub fn len(&self) -> usize {
        match self {
            PackageSet::Npm { packages, .. } => packages.len(),
            PackageSet::Modules { specifiers, .. } => specifiers.len(),
        }
    }

    /// Lines that two sets share only when they are the same, whatever runtime they are for. No name, range, address or
    /// specifier has a line's end in it.
    pub fn identity(&self) -> Vec<String> {
        match self {
            PackageSet::Npm { packages, registry } => {
                let named = packages.iter().map(|(name, range)| format!("{name}@{range}"));
                [format!("npm {registry}")].into_iter().chain(named).collect()
            }
            PackageSet::Modules { specifiers, sources } => {
                let from = |source: &Option<String>| source.clone().unwrap_or_default();
                let head = [format!("jsr {}", from(&sources.jsr)), format!("npm {}", from(&sources.registry))];
                head.into_iter().chain(specifiers.iter().cloned()).collect()
            }
        }
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

/// How long sets are kept, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepSets {
    /// For further environments, from its resolution on.
    pub fresh: Duration,
    /// Without any environment that uses it.
    pub unused: Duration,
    /// What all of them together may take on disk.
    pub bytes: u64,
}

/// A set on the disk, for whoever needs room beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSet {
    pub set: KeptSet,
    /// What it takes on disk.
    pub bytes: u64,
    /// A set-up uses it now, or it is being made.
    pub held: bool,
}

/// There is no room for another set: those that are in use take it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// What those take that cannot give way.
    pub used: u64,
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

    /// The names of those that give way to another set of so many bytes: first what is over, then what no environment uses,
    /// longest unused first, and no more than have to.
    ///
    /// # Errors
    /// When all of them together would not make room enough.
    pub fn giving_way(&self, stored: &[StoredSet], bytes: u64, now: WallTime) -> Result<Vec<String>, NoRoom> {
        let total = |sets: &[&StoredSet]| sets.iter().fold(0_u64, |sum, stored| sum.saturating_add(stored.bytes));
        let is_free = |stored: &&StoredSet| {
            let unused = stored.set.facts.is_none_or(|facts| facts.users == 0);
            !stored.held && (unused || self.is_over(&stored.set, now))
        };
        let (mut free, used): (Vec<&StoredSet>, Vec<&StoredSet>) = stored.iter().partition(is_free);
        let used = total(&used);
        if used.saturating_add(bytes) > self.bytes {
            return Err(NoRoom { used });
        }
        let used_at = |stored: &StoredSet| stored.set.facts.map(|facts| facts.used_at);
        free.sort_by_key(|stored| (!self.is_over(&stored.set, now), used_at(stored)));
        let mut left = total(&free);
        let mut gone = Vec::new();
        for stored in free {
            if used.saturating_add(left).saturating_add(bytes) <= self.bytes {
                break;
            }
            left = left.saturating_sub(stored.bytes);
            gone.push(stored.set.name.clone());
        }
        Ok(gone)
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

    const KEEP: KeepSets = KeepSets { fresh: Duration::from_secs(100), unused: Duration::from_secs(10), bytes: 1000 };

    fn sources() -> Sources {
        Sources {
            registry: Some("https://r/".into()),
            jsr: Some("https://j/".into()),
            hosts: vec!["*.m.example".parse().unwrap()],
        }
    }

    fn sets(npm: &[&str], deno: &[&str], sources: &Sources) -> Result<Vec<PackageSet>, SetUpInvalid> {
        let own = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect();
        PackageSet::of(&Dependencies { npm: own(npm), deno: own(deno) }, sources)
    }

    fn kept(resolved_at: i64, used_at: i64, users: u64) -> KeptSet {
        let facts = KeptFacts { resolved_at: WallTime(resolved_at), used_at: WallTime(used_at), users };
        KeptSet { name: "set".into(), facts: Some(facts) }
    }

    #[test]
    fn the_same_packages_of_the_same_registry_are_the_same_set() {
        let identity = |npm: &[&str], deno: &[&str], from: &Sources| sets(npm, deno, from).unwrap()[0].identity();
        let elsewhere = Sources { registry: Some("https://s/".into()), ..sources() };
        let one = identity(&["b@1", "a"], &[], &sources());
        assert_eq!(one, identity(&["a@latest", "b@1"], &[], &sources()));
        assert_eq!(one, identity(&["a"], &["npm:b@1"], &sources()));
        for other in [
            identity(&["a", "b@2"], &[], &sources()),
            identity(&["a", "b@1"], &[], &elsewhere),
            identity(&["a"], &[], &sources()),
            identity(&[], &["jsr:@a/b"], &sources()),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(sets(&[], &[], &Sources::default()), Ok(Vec::new()));
        assert_eq!(sets(&["a"], &["jsr:@a/b", "https://x.m.example/y.ts"], &sources()).unwrap().len(), 2);
    }

    #[test]
    fn what_comes_from_nowhere_on_this_host_is_refused_by_name() {
        let none = Sources::default();
        assert_eq!(sets(&["a"], &[], &none), Err(SetUpInvalid::DependenciesNotEnabled));
        assert_eq!(sets(&[], &["jsr:@a/b"], &none), Err(SetUpInvalid::JsrNotEnabled));
        let elsewhere = sets(&[], &["https://m.example/y.ts"], &sources());
        assert_eq!(elsewhere, Err(SetUpInvalid::HostNotListed("m.example:443".into())));
        assert!(matches!(sets(&["a"], &["npm:a@2"], &sources()), Err(SetUpInvalid::Package(_))));
    }

    #[test]
    fn an_installer_has_its_own_folders_and_no_others() {
        let place = |kind: SetKind, path: &str| kind.place(path).unwrap_or_default();
        assert_eq!(place(SetKind::Npm, "node_modules/a/b.js"), "workspace/node_modules/a/b.js");
        assert_eq!(place(SetKind::Modules, "gen/https/a/b.js"), "emitted/https/a/b.js");
        assert_eq!(place(SetKind::Modules, "remote/http/a/b"), "remote/http/a/b");
        for (kind, path) in [
            (SetKind::Npm, "main.js"),
            (SetKind::Npm, "remote/https/a"),
            (SetKind::Npm, "deno.lock"),
            (SetKind::Modules, "gen/file/workspace/main.ts.js"),
            (SetKind::Modules, "node_modules/a"),
            (SetKind::Modules, "npm/a"),
        ] {
            assert_eq!(kind.place(path), None, "{path}");
        }
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

    fn stored(name: &str, used_at: i64, users: u64, bytes: u64) -> StoredSet {
        let set = KeptSet { name: name.into(), ..kept(0, used_at, users) };
        StoredSet { set, bytes, held: false }
    }

    #[test]
    fn what_is_over_and_then_what_was_unused_longest_gives_way_and_no_more_than_has_to() {
        let half = StoredSet { set: KeptSet { name: "half".into(), facts: None }, bytes: 100, held: false };
        let being_made = StoredSet { held: true, set: KeptSet { name: "made".into(), facts: None }, bytes: 100 };
        let in_hand = StoredSet { held: true, ..stored("in hand", 1, 0, 100) };
        let sets = [
            stored("young", 9, 0, 100),
            stored("old", 2, 0, 100),
            stored("used", 1, 3, 300),
            half,
            being_made,
            in_hand,
        ];
        let gone = |bytes| KEEP.giving_way(&sets, bytes, WallTime(10));
        assert_eq!(gone(200), Ok(vec![]));
        assert_eq!(gone(201), Ok(vec!["half".to_owned()]));
        assert_eq!(gone(301), Ok(vec!["half".to_owned(), "old".to_owned()]));
        assert_eq!(gone(500), Ok(vec!["half".to_owned(), "old".to_owned(), "young".to_owned()]));
        assert_eq!(gone(501), Err(NoRoom { used: 500 }));
        let stale = KEEP.giving_way(&sets, 800, WallTime(100_000));
        assert!(
            stale.is_ok_and(|gone| gone.contains(&"used".to_owned())),
            "environments keep the files of a stale one"
        );
    }

    proptest! {
        #[test]
        fn what_is_in_use_never_gives_way_and_what_is_left_fits(
            sets in prop::collection::vec((0..20_i64, 0..2_u64, 0..400_u64, any::<bool>()), 0..12),
            bytes in 0..1200_u64,
        ) {
            let sets: Vec<StoredSet> = sets.into_iter().enumerate().map(|(n, (used_at, users, bytes, held))| {
                StoredSet { held, ..stored(&n.to_string(), used_at, users, bytes) }
            }).collect();
            let is_used = |stored: &StoredSet| stored.held || stored.set.facts.is_some_and(|facts| facts.users > 0);
            let used: u64 = sets.iter().filter(|stored| is_used(stored)).map(|stored| stored.bytes).sum();
            match KEEP.giving_way(&sets, bytes, WallTime(20)) {
                Err(NoRoom { used: told }) => prop_assert!(told == used && used + bytes > KEEP.bytes),
                Ok(gone) => {
                    let (gone, stay): (Vec<_>, Vec<_>) =
                        sets.iter().partition(|stored| gone.contains(&stored.set.name));
                    prop_assert!(!gone.iter().any(|stored| is_used(stored)));
                    let left: u64 = stay.iter().map(|stored| stored.bytes).sum();
                    prop_assert!(left + bytes <= KEEP.bytes);
                    let last = gone.iter().map(|stored| stored.set.facts.map(|facts| facts.used_at)).max();
                    let unused = stay.iter().filter(|stored| !is_used(stored));
                    prop_assert!(unused.map(|stored| stored.set.facts.map(|facts| facts.used_at)).all(|at| last.is_none_or(|last| at >= last)));
                }
            }
        }

        #[test]
        fn what_an_environment_uses_is_over_exactly_when_no_set_up_may_find_it(
            resolved in 0..1_000_000_i64, age in 0..200_000_i64, used in 0..1_000_000_i64, users in 1..9_u64,
        ) {
            let now = WallTime(resolved + age);
            prop_assert_eq!(KEEP.is_over(&kept(resolved, used, users), now), !KEEP.is_fresh(WallTime(resolved), now));
        }
    }
}
