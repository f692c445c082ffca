//! Which hierarchies the host has and where this process stands in them. Pure: it reads texts.

use std::path::{Component, Path, PathBuf};

use crate::ports::cgroup::CgroupError;
use crate::sys::mounts::Mount;

/// A hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The directory of this process's own cgroup.
    pub(super) own: PathBuf,
}

/// The hierarchies of the controllers that limits need. Two may be the same (`cpu,cpuacct`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V1Spots {
    pub(super) memory: Spot,
    pub(super) pids: Spot,
    pub(super) cpu: Spot,
    pub(super) cpuacct: Spot,
    pub(super) freezer: Spot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    V1(V1Spots),
    V2(Spot),
}

const READ_ONLY: CgroupError = CgroupError::Unusable(
    "the cgroup filesystem is mounted read-only: run the daemon on the host, or give its container a writable \
     /sys/fs/cgroup",
);

/// Finds the hierarchies from the texts of `/proc/self/cgroup` (cgroups(7)) and the mount table.
///
/// A controller belongs to v1 or to v2, never to both, so the memory controller decides the version.
pub(super) fn find(own: &str, mounts: &[Mount]) -> Result<Found, CgroupError> {
    let v1 = |controller: &str, missing: &'static str| {
        let of_it = |mount: &&Mount| mount.filesystem == "cgroup" && has(&mount.super_options, controller);
        let path = own_path(own, |list| has(list, controller));
        spot(path, mounts.iter().filter(of_it), CgroupError::Unusable(missing))
    };
    if mounts.iter().any(|mount| mount.filesystem == "cgroup" && has(&mount.super_options, "memory")) {
        return Ok(Found::V1(V1Spots {
            memory: v1("memory", "this process has no memory cgroup")?,
            pids: v1("pids", "the memory controller is cgroup v1, but the pids controller is not mounted as v1")?,
            cpu: v1("cpu", "the memory controller is cgroup v1, but the cpu controller is not mounted as v1")?,
            cpuacct: v1("cpuacct", "the memory controller is cgroup v1, but cpuacct is not mounted")?,
            freezer: v1("freezer", "the memory controller is cgroup v1, but the freezer is not mounted")?,
        }));
    }
    let unified = mounts.iter().filter(|mount| mount.filesystem == "cgroup2");
    let missing = CgroupError::Unusable("no cgroup filesystem is mounted: mount cgroup2 on /sys/fs/cgroup");
    Ok(Found::V2(spot(own_path(own, str::is_empty), unified, missing)?))
}

fn has(list: &str, item: &str) -> bool {
    list.split(',').any(|entry| entry == item)
}

/// The path of this process in the hierarchy whose controller list matches: `4:memory:/path`, `0::/path`.
fn own_path(own: &str, matches: impl Fn(&str) -> bool) -> Option<&Path> {
    own.lines().find_map(|line| {
        let (_number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        if matches(controllers) { Some(Path::new(path)) } else { None }
    })
}

/// The first mount that shows the process's own cgroup and can be written.
fn spot<'a>(
    path: Option<&Path>,
    mounts: impl Iterator<Item = &'a Mount>,
    missing: CgroupError,
) -> Result<Spot, CgroupError> {
    let Some(path) = path else { return Err(missing) };
    let mut seen_read_only = false;
    for mount in mounts {
        // Outside the mounted part, or outside the cgroup namespace (`/../x`).
        let Ok(beneath) = path.strip_prefix(&mount.root) else { continue };
        if beneath.components().any(|part| part == Component::ParentDir) {
            continue;
        }
        if mount.read_only {
            seen_read_only = true;
            continue;
        }
        let own = if beneath.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(beneath) };
        return Ok(Spot { mount: mount.point.clone(), own });
    }
    Err(if seen_read_only { READ_ONLY } else { missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mounts::parse;

    fn at(mount: &str, own: &str) -> Spot {
        Spot { mount: mount.into(), own: own.into() }
    }

    #[test]
    fn a_unified_host_is_v2() {
        let table =
            parse(b"30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n");
        let found = find("0::/system.slice/cloister.service\n", &table).expect("found");
        assert_eq!(found, Found::V2(at("/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/cloister.service")));
    }

    #[test]
    fn a_container_with_a_namespace_of_its_own_sees_itself_at_the_root() {
        let table = parse(b"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert_eq!(find("0::/\n", &table).expect("found"), Found::V2(at("/sys/fs/cgroup", "/sys/fs/cgroup")));
    }

    #[test]
    fn a_read_only_mount_is_said_with_its_remedy() {
        let table = parse(b"30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n");
        let error = find("0::/\n", &table).expect_err("read-only");
        assert!(error.to_string().contains("read-only") && error.to_string().contains("writable"), "{error}");
    }

    #[test]
    fn a_hybrid_host_is_v1_with_shared_hierarchies_and_mounts_of_a_part() {
        let table = parse(
            b"31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
              32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
              33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
              34 31 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
              35 31 0:32 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
              36 31 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
              38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let own = "9:cpuset:/\n8:cpu,cpuacct:/a\n4:memory:/docker/abc/b\n3:pids:/\n2:freezer:/\n0::/\n";
        let Found::V1(spots) = find(own, &table).expect("found") else { panic!("v1 expected") };
        assert_eq!(spots.cpu, at("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a"));
        assert_eq!(spots.cpuacct, spots.cpu);
        assert_eq!(spots.memory, at("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/b"));
        assert_eq!(spots.pids, at("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(find("0::/\n", &[]).expect_err("no mounts").to_string().contains("mount cgroup2"));
        let table = parse(b"33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        assert!(find("4:memory:/\n", &table).expect_err("no pids").to_string().contains("pids"));
        let table = parse(b"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert!(find("0::/../other\n", &table).is_err(), "outside the namespace");
    }
}
