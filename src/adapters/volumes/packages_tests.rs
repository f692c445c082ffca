//! On the real file system, beside volumes that share a set's files.

use std::os::unix::fs::PermissionsExt;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::adapters::volumes::HostVolumes;
use crate::ports::volumes::Volumes;

const KEEP: KeepSets = KeepSets { fresh: Duration::from_secs(100), unused: Duration::from_secs(10), bytes: 1 << 20 };
const MAIN: &str = "workspace/main.js";
const INDEX: &str = "workspace/node_modules/pad/lib/index.js";

fn start(folder: &TempDir) -> (HostPackages, HostVolumes) {
    (again(folder), HostVolumes::new(folder.path().join("volumes")))
}

/// As a daemon's next life finds them.
fn again(folder: &TempDir) -> HostPackages {
    HostPackages::new(folder.path().join("packages"), Logger::root(slog::Discard, slog::o!()))
}

fn wanted() -> PackageSet {
    pad("1")
}

fn pad(range: &str) -> PackageSet {
    let packages = BTreeMap::from([("pad".to_owned(), range.to_owned())]);
    PackageSet::Npm { packages, registry: "https://registry.example/".into() }
}

fn installed() -> BTreeMap<String, Vec<u8>> {
    [(INDEX, "index"), ("workspace/node_modules/pad/package.json", "{}"), ("lock/bun.lock", "lock")]
        .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
        .into()
}

async fn volume(volumes: &HostVolumes, name: &str, held: &HeldSet) -> PathBuf {
    let main = BTreeMap::from([(MAIN.to_owned(), b"main".to_vec())]);
    volumes.make_with(name, main, vec![held.tree.clone()]).await.unwrap();
    volumes.path(name)
}

async fn facts(packages: &HostPackages) -> Vec<Option<KeptFacts>> {
    packages.list().await.unwrap().into_iter().map(|set| set.facts).collect()
}

fn inode(path: &Path) -> u64 {
    path.metadata().unwrap().ino()
}

#[tokio::test]
async fn environments_share_a_sets_files_and_keep_them_when_it_goes() {
    let folder = tempdir().unwrap();
    let (packages, volumes) = start(&folder);
    assert!(packages.find(&wanted(), KEEP, WallTime(0)).await.unwrap().is_none());
    let held = packages.keep(&wanted(), installed(), KEEP, WallTime(1000)).await.unwrap();
    let first = volume(&volumes, "env-1", &held).await;
    let second = volume(&volumes, "env-2", &held).await;
    for path in [INDEX, "lock/bun.lock", "lock/npm.json"] {
        assert_eq!(inode(&first.join(path)), inode(&second.join(path)), "{path}");
        assert_eq!(first.join(path).metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    }
    for path in ["workspace", "workspace/node_modules", "workspace/node_modules/pad/lib", "lock"] {
        assert_eq!(first.join(path).metadata().unwrap().permissions().mode() & 0o7777, 0o555, "{path}");
    }
    assert_eq!(std::fs::read(first.join(MAIN)).unwrap(), b"main");
    let (resolved_at, used_at) = (WallTime(1000), WallTime(1000));
    assert_eq!(facts(&packages).await, [Some(KeptFacts { resolved_at, used_at, users: 2 })]);

    let name = packages.list().await.unwrap().remove(0).name;
    assert!(!packages.remove(&name).await.unwrap(), "it is held");
    drop(held);
    volumes.remove("env-2").await.unwrap();
    assert_eq!(facts(&packages).await[0].unwrap().users, 1);
    assert!(packages.remove(&name).await.unwrap());
    assert_eq!(facts(&packages).await, []);
    assert_eq!(std::fs::read(first.join(INDEX)).unwrap(), b"index");
}

#[tokio::test]
async fn the_newest_fresh_set_is_found_and_counts_as_used() {
    let folder = tempdir().unwrap();
    let (packages, _) = start(&folder);
    for at in [1000, 50_000] {
        packages.keep(&wanted(), installed(), KEEP, WallTime(at)).await.unwrap();
    }
    let found = packages.find(&wanted(), KEEP, WallTime(60_000)).await.unwrap().unwrap();
    assert!(found.tree.to_string_lossy().ends_with(".50000"));
    assert!(facts(&packages).await.into_iter().flatten().any(|facts| facts.used_at == WallTime(60_000)));
    assert!(packages.find(&wanted(), KEEP, WallTime(150_000)).await.unwrap().is_none(), "too old");
    assert!(packages.find(&pad("2"), KEEP, WallTime(60_000)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_set_whose_files_are_not_those_that_were_kept_is_removed_when_a_later_life_finds_it() {
    let folder = tempdir().unwrap();
    let (packages, _) = start(&folder);
    let tree = packages.keep(&wanted(), installed(), KEEP, WallTime(0)).await.unwrap().tree;
    assert!(again(&folder).find(&wanted(), KEEP, WallTime(1)).await.unwrap().is_some());
    std::fs::write(tree.join(INDEX), "other").unwrap();
    assert!(again(&folder).find(&wanted(), KEEP, WallTime(1)).await.unwrap().is_none());
    assert!(!tree.exists());
}

#[tokio::test]
async fn what_a_crash_left_of_a_set_is_listed_found_by_nobody_and_removed() {
    let folder = tempdir().unwrap();
    let (packages, _) = start(&folder);
    let name = format!("{}.7", key(&wanted()));
    let root = folder.path().join("packages");
    std::fs::create_dir_all(root.join(format!(".making-{name}")).join("workspace")).unwrap();
    assert!(packages.find(&wanted(), KEEP, WallTime(8)).await.unwrap().is_none());
    assert_eq!(packages.list().await.unwrap(), [KeptSet { name: name.clone(), facts: None }]);
    assert!(packages.remove(&name).await.unwrap());
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[tokio::test]
async fn across_file_systems_files_are_copied() {
    let folder = tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let (packages, volumes) = (again(&folder), HostVolumes::new(elsewhere.path().join("volumes")));
    let held = packages.keep(&wanted(), installed(), KEEP, WallTime(0)).await.unwrap();
    let volume = volume(&volumes, "env-1", &held).await;
    assert_eq!(std::fs::read(volume.join(INDEX)).unwrap(), b"index");
    assert_eq!(volume.join(INDEX).metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    assert_eq!(facts(&packages).await[0].unwrap().users, 0);
}

#[tokio::test]
async fn a_module_in_a_packages_place_is_an_error_and_leaves_nothing() {
    let folder = tempdir().unwrap();
    let (packages, volumes) = start(&folder);
    let held = packages.keep(&wanted(), installed(), KEEP, WallTime(0)).await.unwrap();
    let module = BTreeMap::from([(INDEX.to_owned(), b"own".to_vec())]);
    let made = volumes.make_with("env-1", module, vec![held.tree.clone()]).await;
    assert!(matches!(made, Err(VolumeError::File { action: "create", .. })), "{made:?}");
    assert_eq!(volumes.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(facts(&packages).await[0].unwrap().users, 0);
}

/// So much fits, to the byte: each set takes three files and its record, a block each.
fn room_for(sets: u64) -> KeepSets {
    KeepSets { bytes: sets * 4 * 4096, ..KEEP }
}

async fn names(packages: &HostPackages) -> Vec<String> {
    let mut found: Vec<(WallTime, String)> = Vec::new();
    for set in packages.list().await.unwrap() {
        found.push((set.facts.map_or(WallTime(-1), |facts| facts.resolved_at), set.name));
    }
    found.sort();
    found.into_iter().map(|(at, _)| at.0.to_string()).collect()
}

#[tokio::test]
async fn all_sets_together_stay_within_their_room_and_the_one_that_was_unused_longest_gives_way() {
    let folder = tempdir().unwrap();
    let (packages, _) = start(&folder);
    for at in [1, 2, 3] {
        packages.keep(&pad(&at.to_string()), installed(), room_for(3), WallTime(at * 1000)).await.unwrap();
    }
    packages.find(&pad("1"), KEEP, WallTime(4000)).await.unwrap().unwrap();
    packages.keep(&pad("4"), installed(), room_for(3), WallTime(5000)).await.unwrap();
    assert_eq!(names(&packages).await, ["1000", "3000", "5000"]);
    // A later life measures what it finds; what a crash left counts, and goes first.
    let root = folder.path().join("packages");
    let half = root.join(format!(".making-{}.5", key(&wanted())));
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("file"), vec![0; 4 * 4096]).unwrap();
    let packages = again(&folder);
    packages.keep(&pad("5"), installed(), room_for(4), WallTime(6000)).await.unwrap();
    assert_eq!(names(&packages).await, ["1000", "3000", "5000", "6000"]);
}

#[tokio::test]
async fn what_environments_or_set_ups_use_never_gives_way_and_what_finds_no_room_leaves_nothing() {
    let folder = tempdir().unwrap();
    let (packages, volumes) = start(&folder);
    let used = packages.keep(&pad("1"), installed(), room_for(2), WallTime(1)).await.unwrap();
    volume(&volumes, "env-1", &used).await;
    drop(used);
    let held = packages.keep(&pad("2"), installed(), room_for(2), WallTime(2)).await.unwrap();
    let refused = packages.keep(&pad("3"), installed(), room_for(2), WallTime(3)).await.unwrap_err();
    let expected = "the packages that environments use take 1 MiB of the 0 MiB for all of them (sandbox.packages_mib): \
                    delete environments, or raise that";
    assert_eq!(refused.to_string(), expected);
    assert!(packages.look_for_room(room_for(2), WallTime(3)).await.is_err());
    assert!(packages.look_for_room(room_for(3), WallTime(3)).await.is_ok());
    assert_eq!(names(&packages).await, ["1", "2"]);
    drop(held);
    assert!(packages.look_for_room(room_for(2), WallTime(3)).await.is_ok());
    packages.keep(&pad("3"), installed(), room_for(2), WallTime(4)).await.unwrap();
    volumes.remove("env-1").await.unwrap();
    assert_eq!(names(&packages).await, ["1", "4"]);
    let (fifth, sixth) = (pad("5"), pad("6"));
    let both = tokio::join!(
        packages.keep(&fifth, installed(), room_for(2), WallTime(5)),
        packages.keep(&sixth, installed(), room_for(2), WallTime(6)),
    );
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert_eq!(names(&packages).await, ["5", "6"]);
}
