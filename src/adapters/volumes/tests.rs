//! On the real file system.

use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::{TempDir, tempdir};

use super::*;

fn volumes() -> (TempDir, HostVolumes) {
    let folder = tempdir().expect("folder");
    let volumes = HostVolumes::new(folder.path().join("var").join("volumes"));
    (folder, volumes)
}

fn files(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    entries.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).expect("list");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_volume_appears_whole_and_sealed_and_goes_without_a_trace() {
    let (_folder, volumes) = volumes();
    assert_eq!(volumes.list().await.expect("list"), Vec::<String>::new());
    let content = files(&[
        ("workspace/main.js", "main"),
        ("workspace/lib/a-b/x.js", "x"),
        ("workspace/lib/a/y.js", "y"),
        ("top", ""),
    ]);
    volumes.make("env-1", content.clone()).await.expect("make");

    let path = volumes.path("env-1");
    for (name, bytes) in &content {
        assert_eq!(&std::fs::read(path.join(name)).expect("read"), bytes);
        assert_eq!(path.join(name).metadata().expect("metadata").mode() & 0o7777, 0o444);
    }
    for name in ["", "workspace", "workspace/lib", "workspace/lib/a", "workspace/lib/a-b"] {
        assert_eq!(path.join(name).metadata().expect("metadata").mode() & 0o7777, 0o555, "{name}");
    }
    assert_eq!(volumes.list().await.expect("list"), ["env-1"]);
    volumes.remove("env-1").await.expect("remove");
    volumes.remove("env-1").await.expect("again is no error");
    assert_eq!(names(&volumes.root), Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_is_not_replaced_and_a_failure_leaves_nothing() {
    let (_folder, volumes) = volumes();
    volumes.make("env-1", files(&[("a", "first")])).await.expect("make");
    let again = volumes.make("env-1", files(&[("a", "second")])).await.expect_err("exists");
    assert!(matches!(again, VolumeError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(volumes.path("env-1").join("a")).expect("read"), b"first");
    let conflict = volumes.make("env-2", files(&[("a", "file"), ("a/b", "below it")])).await.expect_err("conflict");
    assert!(matches!(conflict, VolumeError::File { .. }), "{conflict:?}");
    assert_eq!(names(&volumes.root), ["env-1"]);
}

#[tokio::test]
async fn names_and_paths_do_not_lead_out() {
    let (_folder, volumes) = volumes();
    for name in ["", ".", "..", "a/b", ".making-a", "a\0", "lost+found"] {
        assert!(matches!(volumes.make(name, BTreeMap::new()).await, Err(VolumeError::Name(_))), "{name:?}");
        assert!(matches!(volumes.remove(name).await, Err(VolumeError::Name(_))), "{name:?}");
    }
    for path in ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b"] {
        let made = volumes.make("env-1", files(&[(path, "")])).await;
        assert!(matches!(made, Err(VolumeError::Name(found)) if found == path), "{path:?}");
    }
}

#[tokio::test]
async fn what_a_crash_left_is_listed_once_and_removed_by_its_name() {
    let (folder, volumes) = volumes();
    volumes.make("env-1", files(&[("a/b", "x")])).await.expect("make");
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "kept").expect("write");
    for left in [".making-env-1", ".removing-env-1", ".making-env-2", ".removing-env-3"] {
        std::fs::create_dir_all(volumes.root.join(left).join("deep")).expect("leftover");
        symlink(&outside, volumes.root.join(left).join("deep/link")).expect("link");
    }
    std::fs::create_dir(volumes.root.join("lost+found")).expect("foreign");
    let left = volumes.list().await.expect("list");
    assert_eq!(left, ["env-1", "env-2", "env-3"]);
    for name in left {
        volumes.remove(&name).await.expect("remove");
    }
    assert_eq!(names(&volumes.root), ["lost+found"]);
    assert_eq!(std::fs::read(outside).expect("read"), b"kept");
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_leaves_nothing() {
    let (folder, _) = volumes();
    let mounted = folder.path().join("small");
    std::fs::create_dir(&mounted).expect("mount point");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &mounted, Some("tmpfs"), flags, Some("size=64k,nr_inodes=8"))
        .expect("this test mounts a tmpfs and needs root");
    let volumes = HostVolumes::new(mounted.clone());
    let large = volumes.make("env-1", files(&[("a", &"x".repeat(100_000))])).await;
    let many = (0..20).map(|number| (number.to_string(), Vec::new())).collect();
    let many = volumes.make("env-2", many).await;
    let left = names(&mounted);
    crate::sys::mounts::detach(&mounted).expect("detach");
    for made in [large, many] {
        assert!(
            matches!(&made, Err(VolumeError::File { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull),
            "{made:?}"
        );
    }
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn many_files_are_flushed_at_once() {
    let (_folder, volumes) = volumes();
    let content: BTreeMap<_, _> = (0..500).map(|number| (format!("d{}/{number}", number % 7), vec![b'x'])).collect();
    volumes.make("env-1", content).await.expect("make");
    assert_eq!(names(&volumes.path("env-1")).len(), 7);
    volumes.remove("env-1").await.expect("remove");
}

#[tokio::test]
async fn a_volume_is_derived_of_parts_of_another_and_shares_its_files() {
    let (folder, volumes) = volumes();
    let content = files(&[
        ("workspace/main.js", "old"),
        ("workspace/node_modules/a/i.js", "a"),
        ("lock/bun.lock", "l"),
        ("emitted/x", "e"),
    ]);
    volumes.make("env-1", content).await.expect("make");
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "secret").expect("write");
    symlink(&outside, volumes.path("env-1").join("workspace/node_modules/link")).expect("planted");
    let new = files(&[("workspace/main.js", "new"), ("workspace/lib/b.js", "b")]);
    let bytes = volumes.derive("env-2", "env-1", &["workspace/node_modules", "lock", "absent"], new).await;
    assert_eq!(bytes.expect("derive"), 4 * 4096, "as if nothing were shared");
    let at = |volume: &str, path: &str| std::fs::read_to_string(volumes.path(volume).join(path)).ok();
    assert_eq!(at("env-2", "workspace/main.js").as_deref(), Some("new"));
    assert_eq!(at("env-2", "workspace/node_modules/a/i.js").as_deref(), Some("a"));
    assert_eq!(at("env-2", "lock/bun.lock").as_deref(), Some("l"));
    assert_eq!((at("env-2", "emitted/x"), at("env-2", "workspace/node_modules/link")), (None, None));
    let inode = |volume: &str| volumes.path(volume).join("lock/bun.lock").metadata().expect("metadata").ino();
    assert_eq!(inode("env-1"), inode("env-2"));
    let seen = volumes.path("env-2").join("workspace/node_modules").metadata().expect("metadata");
    assert_eq!(seen.mode() & 0o7777, 0o555);
    volumes.remove("env-1").await.expect("remove");
    assert_eq!(at("env-2", "lock/bun.lock").as_deref(), Some("l"), "it lives as long as either of them");
    let late = volumes.derive("env-3", "env-1", &["workspace"], BTreeMap::new()).await;
    assert!(matches!(late, Err(VolumeError::Gone(name)) if name == "env-1"));
    volumes.remove("env-2").await.expect("remove");
    assert_eq!(names(&volumes.root), Vec::<String>::new());
}

#[tokio::test]
async fn of_a_volume_that_is_removed_meanwhile_all_is_derived_or_nothing() {
    let (_folder, volumes) = volumes();
    let content = files(&[("workspace/main.js", "m"), ("workspace/lib/a.js", "a"), ("lock/bun.lock", "l")]);
    let (mut derived, mut gone) = (0, 0);
    for round in 0..200 {
        let [from, to] = ["from", "to"].map(|name| format!("{name}-{round}"));
        volumes.make(&from, content.clone()).await.expect("make");
        let (made, removed) =
            tokio::join!(volumes.derive(&to, &from, &["workspace", "lock"], BTreeMap::new()), volumes.remove(&from));
        removed.expect("remove");
        match made {
            Ok(_) => {
                let is_there = |path: &String| volumes.path(&to).join(path).is_file();
                assert!(content.keys().all(is_there), "round {round}");
                volumes.remove(&to).await.expect("remove");
                derived += 1;
            }
            Err(error) => {
                assert!(matches!(&error, VolumeError::Gone(name) if *name == from), "{error:?}");
                gone += 1;
            }
        }
        assert_eq!(names(&volumes.root), Vec::<String>::new());
    }
    println!("{derived} were derived, {gone} were gone");
}
