//! On the real kernel, whichever version it offers. They need root and a writable cgroup filesystem, and say so.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::sys::children::Child;
use crate::sys::pidfd::Exit;
use crate::sys::spawn::{Order, Output, spawn};
use crate::sys::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;

/// A subtree of its own for a test, removed at its end.
struct Tree {
    cgroups: HostCgroups,
    parent: String,
}

impl Tree {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = format!("cloister-test-{}-{number}", std::process::id());
        let cgroups = HostCgroups::detect(Some(&parent), "a")
            .unwrap_or_else(|error| panic!("this test needs root and a writable cgroup filesystem: {error:?}"));
        Self { cgroups, parent }
    }

    async fn cgroup(&self, name: &str, limits: CgroupLimits) -> Arc<dyn Cgroup> {
        let cgroup = self.cgroups.create(name).await.expect("create");
        cgroup.set_limits(&limits).expect("limits in force");
        cgroup
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for path in self.cgroups.base.paths() {
            for directory in files::with_descendants(&path).expect("list").iter().rev() {
                let removed = std::fs::remove_dir(directory);
                assert!(removed.is_ok() || std::thread::panicking(), "{} is left", directory.display());
            }
            let parent = path.parent().expect("parent");
            assert!(parent.ends_with(&self.parent));
            let _ = std::fs::remove_dir(parent);
        }
    }
}

async fn start(cgroup: &dyn Cgroup, script: &str) -> Child {
    let order = Order {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))],
        cwd: "/".into(),
        descriptors: Vec::new(),
        cgroup_entry: cgroup.entry_files(),
        private: false,
        batch: false,
        output: Output::Null,
    };
    spawn(order).await.expect("starts").child
}

#[tokio::test]
async fn a_child_enters_is_counted_and_is_gone_with_the_cgroup() {
    let tree = Tree::new();
    let limits = CgroupLimits { memory_bytes: Some(64 * MIB), cpu_quota_us: Some(50_000), pids: Some(20) };
    let cgroup = tree.cgroup("one", limits).await;
    assert_eq!(tree.cgroups.list().await.expect("list"), ["one"]);
    assert_eq!(cgroup.processes().expect("processes"), Vec::<i32>::new());

    let child = start(&*cgroup, "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; exec sleep 600").await;
    assert_eq!(cgroup.processes().expect("processes"), [child.pid()]);
    let mut usage = cgroup.usage().expect("usage");
    // It runs, so this ends.
    while usage.cpu == Duration::ZERO {
        tokio::task::yield_now().await;
        usage = cgroup.usage().expect("usage");
    }
    assert!(usage.peak_memory_bytes >= usage.memory_bytes.min(1) && usage.peak_memory_bytes <= 64 * MIB, "{usage:?}");
    assert_eq!((usage.oom_kills, usage.pids_refused), (0, 0));

    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
    assert_eq!(tree.cgroups.list().await.expect("list"), Vec::<String>::new());
    cgroup.kill_and_remove(PATIENCE).await.expect("again is no error");
    assert!(matches!(cgroup.usage(), Err(CgroupError::File { .. })));
}

#[tokio::test]
async fn limits_can_be_raised_lowered_and_taken_off() {
    let tree = Tree::new();
    let cgroup = tree.cgroups.create("one").await.expect("create");
    for (memory, quota, pids) in
        [(64, 50_000, 100), (512, 200_000, 1000), (32, 10_000, 5), (32, 10_000, 5)].map(|(m, q, p)| (m * MIB, q, p))
    {
        let limits = CgroupLimits { memory_bytes: Some(memory + 1), cpu_quota_us: Some(quota), pids: Some(pids) };
        cgroup.set_limits(&limits).expect("in force");
        cgroup.set_limits(&CgroupLimits::default()).expect("taken off");
        cgroup.set_limits(&limits).expect("in force");
    }
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
}

#[tokio::test]
async fn an_out_of_memory_kill_is_told_and_counted() {
    let tree = Tree::new();
    let limits = CgroupLimits { memory_bytes: Some(32 * MIB), ..CgroupLimits::default() };
    let cgroup = tree.cgroup("one", limits).await;
    let eater = async {
        let child = start(&*cgroup, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done").await;
        child.wait().await.expect("end")
    };
    let (told, end) = tokio::join!(cgroup.out_of_memory(), eater);
    told.expect("told");
    assert_eq!(end, Exit::Signal(9));
    assert!(cgroup.usage().expect("usage").oom_kills >= 1);
    cgroup.out_of_memory().await.expect("at once, since there was one");
    assert!(tree.cgroups.open("one").usage().expect("usage").oom_kills >= 1);
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
}

#[tokio::test]
async fn refused_forks_are_counted() {
    let tree = Tree::new();
    let cgroup = tree.cgroup("one", CgroupLimits { pids: Some(3), ..CgroupLimits::default() }).await;
    let child = start(&*cgroup, "for i in 1 2 3 4 5; do sleep 600 & done; exit 0").await;
    child.wait().await.expect("end");
    assert!(cgroup.usage().expect("usage").pids_refused >= 1);
    cgroup.kill_and_remove(PATIENCE).await.expect("removed, the sleepers too");
}

#[tokio::test]
async fn what_is_frozen_uses_no_time_until_it_is_thawed() {
    let tree = Tree::new();
    let cgroup = tree.cgroup("one", CgroupLimits::default()).await;
    let child = start(&*cgroup, "while :; do :; done").await;
    cgroup.freeze().await.expect("frozen");
    let used = cgroup.usage().expect("usage").cpu;
    let mut sum = 0_u64;
    for n in 0..2_000_000_u64 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
    }
    assert_eq!(cgroup.usage().expect("usage").cpu, used);
    cgroup.freeze().await.expect("again is no error");
    cgroup.thaw().expect("thawed");
    while cgroup.usage().expect("usage").cpu == used {
        tokio::task::yield_now().await;
    }
    cgroup.freeze().await.expect("frozen");
    cgroup.kill_and_remove(PATIENCE).await.expect("removed, frozen as it is");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
}

#[tokio::test]
async fn a_fork_bomb_is_ended() {
    let tree = Tree::new();
    let limits = CgroupLimits { pids: Some(64), cpu_quota_us: Some(50_000), memory_bytes: Some(128 * MIB) };
    let cgroup = tree.cgroup("bomb", limits).await;
    let child = start(&*cgroup, "f() { while :; do f & done; }; trap '' TERM; f; f; f").await;
    while cgroup.usage().expect("usage").pids_refused == 0 {
        tokio::task::yield_now().await;
    }
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    child.wait().await.expect("end");
}

#[tokio::test]
async fn a_frozen_leftover_of_an_earlier_life_is_killed() {
    let tree = Tree::new();
    let child = start(&*tree.cgroup("old", CgroupLimits::default()).await, "exec sleep 600").await;
    match tree.cgroups.base.child("old") {
        Directories::V1(directories) => {
            let nested = directories.freezer().join("nested");
            std::fs::create_dir(&nested).expect("nested");
            files::write(&nested.join("cgroup.procs"), &child.pid().to_string()).expect("move");
            files::write(&nested.join("freezer.state"), "FROZEN").expect("freeze");
        }
        Directories::V2(directory) => files::write(&directory.path().join("cgroup.freeze"), "1").expect("freeze"),
    }
    tree.cgroups.open("old").kill_and_remove(PATIENCE).await.expect("removed");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
}

#[tokio::test]
async fn cgroups_within_it_go_too() {
    let tree = Tree::new();
    let cgroup = tree.cgroup("outer", CgroupLimits::default()).await;
    let child = start(&*cgroup, "exec sleep 600").await;
    for path in tree.cgroups.base.child("outer").paths() {
        let inner = path.join("inner").join("most");
        std::fs::create_dir_all(&inner).expect("inner");
        files::write(&inner.join("cgroup.procs"), &child.pid().to_string()).expect("move");
    }
    assert_eq!(cgroup.processes().expect("processes"), [child.pid()]);
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
}

#[tokio::test]
async fn names_do_not_lead_out_of_the_subtree_and_are_not_taken_twice() {
    let tree = Tree::new();
    for name in ["", ".", "..", "a/b", "../x", "cgroup.procs", "-x", "a\0b"] {
        assert!(tree.cgroups.create(name).await.is_err(), "{name:?}");
        let opened = tree.cgroups.open(name);
        assert_eq!(opened.processes().expect("absent"), Vec::<i32>::new());
        opened.kill_and_remove(Duration::ZERO).await.expect("absent");
    }
    let cgroup = tree.cgroups.create("one").await.expect("create");
    let again = tree.cgroups.create("one").await.err().expect("exists");
    assert!(matches!(again, CgroupError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    assert!(HostCgroups::detect(None, "../x").is_err());
}

/// In a process of its own, where nothing else opens descriptors.
#[tokio::test]
async fn watching_for_memory_ends_without_a_trace() {
    let path = format!("{}::a_watch_that_is_dropped", module_path!().split_once("::").expect("crate").1);
    let order = Order {
        program: std::env::current_exe().expect("own path"),
        args: [path.as_str(), "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec(),
        env: Vec::new(),
        cwd: "/".into(),
        descriptors: vec![(std::io::stderr().as_fd().try_clone_to_owned().expect("stderr"), 2)],
        cgroup_entry: Vec::new(),
        private: false,
        batch: false,
        output: Output::Null,
    };
    let child = spawn(order).await.expect("starts").child;
    assert_eq!(child.wait().await.expect("end"), Exit::Code(0));
}

#[tokio::test]
#[ignore = "run in a process of its own by watching_for_memory_ends_without_a_trace"]
async fn a_watch_that_is_dropped() {
    let tree = Tree::new();
    let cgroup = tree.cgroup("one", CgroupLimits { memory_bytes: Some(32 * MIB), ..CgroupLimits::default() }).await;
    let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    let before = open();
    for _ in 0..20 {
        tokio::select! {
            biased;
            told = cgroup.out_of_memory() => panic!("nothing happened: {told:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(open(), before);
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
}

#[tokio::test]
async fn on_v1_the_removal_ends_a_watch_with_an_error() {
    let tree = Tree::new();
    let cgroup = tree.cgroup("one", CgroupLimits { memory_bytes: Some(32 * MIB), ..CgroupLimits::default() }).await;
    if tree.cgroups.version() == "v1" {
        let (told, removed) = tokio::join!(cgroup.out_of_memory(), cgroup.kill_and_remove(PATIENCE));
        removed.expect("removed");
        told.expect_err("the cgroup is gone");
    } else {
        // v2 does not tell: whoever watches a sandbox stops when its process ends.
        cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    }
}

/// A hybrid host's v2 mount has no controllers, but kills and reports as any other does.
#[tokio::test]
async fn a_v2_directory_is_killed_with_and_without_the_kill_file_and_reports_by_priority() {
    let mount = mounts::list().expect("mounts").into_iter().find(|mount| mount.filesystem == "cgroup2");
    let Some(mount) = mount else { panic!("this test needs a cgroup2 mount") };
    let path = mount.point.join(format!("cloister-test-{}-v2", std::process::id()));
    std::fs::create_dir(&path).expect("this test needs root");
    let directories = Directories::V2(v2::Directory(path.clone()));
    let cgroup = HostCgroup { name: "v2".to_owned(), directories };
    let child = start(&cgroup, "exec sleep 600").await;
    let events = std::fs::File::open(path.join("cgroup.events")).expect("open");
    assert_eq!(files::read_field(&path.join("cgroup.events"), "populated").expect("field"), 1);
    let watch = Watch::priority(OwnedFd::from(events)).expect("watch");
    child.kill();
    while files::read_field(&path.join("cgroup.events"), "populated").expect("field") == 1 {
        watch.next().await.expect("told");
    }

    let child = start(&cgroup, "sleep 600 & exec sleep 600").await;
    files::write(&path.join("cgroup.freeze"), "1").expect("freeze");
    kill::strike_listed(&path).expect("killed without the kill file");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
    let child = start(&cgroup, "sleep 600 & exec sleep 600").await;
    cgroup.kill_and_remove(PATIENCE).await.expect("removed");
    assert_eq!(child.wait().await.expect("end"), Exit::Signal(9));
    assert!(!path.exists());
}

/// A directory of plain files that looks like a delegated v2 cgroup, for what cannot be had on a v1 host.
fn false_v2(controllers: &str) -> (tempfile::TempDir, Found) {
    let folder = tempfile::tempdir().expect("folder");
    let own = folder.path().join("cloister.service");
    for directory in [own.clone(), own.join("cloister-a"), own.join("cloister-a/one"), own.join("cloister-daemon")] {
        std::fs::create_dir(&directory).expect("directory");
        for (name, content) in [
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", ""),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", ""),
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("memory.oom.group", ""),
            ("cpu.max", ""),
            ("pids.max", ""),
            ("memory.current", "4096\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n"),
            ("pids.events", "max 7\n"),
        ] {
            std::fs::write(directory.join(name), content).expect("file");
        }
    }
    let spot = detect::Spot { mount: folder.path().to_owned(), own };
    (folder, Found::V2(spot))
}

#[test]
fn on_v2_the_daemon_goes_to_a_leaf_and_hands_the_controllers_down() {
    let (folder, found) = false_v2("cpuset cpu io memory pids\n");
    let own = folder.path().join("cloister.service");
    let cgroups = HostCgroups::within(found, None, "a").expect("usable");
    assert_eq!(cgroups.version(), "v2");
    let text = |path: &str| std::fs::read_to_string(own.join(path)).expect("read");
    assert_eq!(text("cloister-daemon/cgroup.procs"), "0");
    assert_eq!(text("cgroup.subtree_control"), "+memory +pids +cpu");
    assert_eq!(text("cloister-a/cgroup.subtree_control"), "+memory +pids +cpu");

    let cgroup = cgroups.open("one");
    let limits = CgroupLimits { memory_bytes: Some(64 * MIB), cpu_quota_us: Some(50_000), pids: Some(100) };
    cgroup.set_limits(&limits).expect("set");
    assert_eq!(text("cloister-a/one/memory.max"), "67108864");
    assert_eq!(text("cloister-a/one/memory.swap.max"), "0");
    assert_eq!(text("cloister-a/one/memory.oom.group"), "1");
    assert_eq!(text("cloister-a/one/cpu.max"), "50000 100000");
    assert_eq!(text("cloister-a/one/pids.max"), "100");
    let usage = cgroup.usage().expect("usage");
    let expected = CgroupUsage {
        memory_bytes: 4096,
        peak_memory_bytes: 4096,
        cpu: Duration::from_micros(1500),
        oom_kills: 3,
        pids_refused: 7,
    };
    assert_eq!(usage, expected);
}

#[test]
fn on_v2_a_missing_controller_is_said_with_its_remedy() {
    let (_folder, found) = false_v2("cpuset pids\n");
    let error = HostCgroups::within(found, None, "a").expect_err("no memory controller");
    assert!(error.to_string().contains("Delegate=yes"), "{error}");
}

#[test]
fn on_v1_the_subtree_lies_in_the_daemons_own_cgroup() {
    let own = files::read(Path::new("/proc/self/cgroup")).expect("own");
    let found = detect::find(&own, &mounts::list().expect("mounts")).expect("hierarchies");
    let Found::V1(spots) = &found else { return };
    let instance = format!("test-{}", std::process::id());
    let cgroups = HostCgroups::within(found.clone(), None, &instance).expect("usable as root");
    let expected = spots.memory.own.join(format!("cloister-{instance}"));
    assert!(cgroups.base.paths().contains(&expected));
    for path in cgroups.base.paths() {
        std::fs::remove_dir(path).expect("remove");
    }
}
