//! Cgroups of this host (`ports::cgroup`), version 2 or 1 (hybrid mounts included).
//!
//!     <the daemon's own cgroup, or the configured parent>
//!     ├── cloister-daemon          v2: the daemon itself, since only leaves may hold processes
//!     └── cloister-<instance>      the subtree
//!         ├── <name>               one for each sandbox, made and removed here
//!         └── …
//!
//! On v1 the same tree stands in each of five hierarchies: memory, pids, cpu, cpuacct and freezer.

mod detect;
mod files;
mod freeze;
mod kill;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::detect::Found;
use self::files::failed;
use crate::ports::cgroup::{Cgroup, CgroupError, CgroupLimits, CgroupUsage, Cgroups};
use crate::sys::mounts;

/// The subtree of one daemon.
#[derive(Debug)]
pub struct HostCgroups {
    base: Directories,
}

/// The directory, or directories, that make up one cgroup.
#[derive(Debug, Clone)]
enum Directories {
    V1(v1::Directories),
    V2(v2::Directory),
}

impl HostCgroups {
    /// Finds the host's hierarchy and makes the subtree `cloister-<instance>` in it: beneath `parent`, a path from
    /// the hierarchy's root such as `/cloister.slice`, or beneath the daemon's own cgroup. On v2 without a parent the
    /// daemon moves itself into a leaf of its own cgroup.
    ///
    /// # Errors
    /// `Unusable` with the remedy when the host offers no hierarchy that can be written; `File` for the rest.
    pub fn detect(parent: Option<&str>, instance: &str) -> Result<Self, CgroupError> {
        let own = files::read(Path::new("/proc/self/cgroup"))?;
        let table = mounts::list().map_err(failed("read", Path::new("/proc/self/mountinfo")))?;
        Self::within(detect::find(&own, &table)?, parent, instance)
    }

    fn within(found: Found, parent: Option<&str>, instance: &str) -> Result<Self, CgroupError> {
        let subtree = format!("cloister-{instance}");
        if !is_segment(&subtree) {
            return Err(not_a_name(&subtree));
        }
        let base = match found {
            Found::V1(spots) => Directories::V1(v1::Directories::prepare(&spots, parent, &subtree)?),
            Found::V2(spot) => Directories::V2(v2::Directory::prepare(&spot, parent, &subtree)?),
        };
        Ok(Self { base })
    }
}

#[async_trait]
impl Cgroups for HostCgroups {
    fn version(&self) -> &'static str {
        match self.base {
            Directories::V1(_) => "v1",
            Directories::V2(_) => "v2",
        }
    }

    async fn create(&self, name: &str) -> Result<Arc<dyn Cgroup>, CgroupError> {
        if !is_segment(name) {
            return Err(not_a_name(name));
        }
        let directories = self.base.child(name);
        let mut made: Vec<PathBuf> = Vec::new();
        for path in directories.paths() {
            if let Err(source) = std::fs::create_dir(&path) {
                // A cgroup stands in all hierarchies or in none.
                for half in made.iter().rev() {
                    let _ = std::fs::remove_dir(half);
                }
                return Err(failed("create", &path)(source));
            }
            made.push(path);
        }
        Ok(Arc::new(HostCgroup { name: name.to_owned(), directories }))
    }

    fn open(&self, name: &str) -> Arc<dyn Cgroup> {
        // A name that `create` refuses is turned into one that never exists, so that it cannot lead out of the subtree.
        let segment = if is_segment(name) { name.to_owned() } else { format!("-{}", name.replace(['/', '\0'], "-")) };
        Arc::new(HostCgroup { name: name.to_owned(), directories: self.base.child(&segment) })
    }

    async fn list(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for path in self.base.paths() {
            let children = files::children(&path)?;
            names.extend(children.iter().filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())));
        }
        Ok(names.into_iter().collect())
    }

    fn dissolve(&self) {
        for path in self.base.paths() {
            // Not empty means that a slot is wedged in it; the next start finds it.
            let _ = std::fs::remove_dir(path);
        }
    }
}

impl Directories {
    fn child(&self, name: &str) -> Self {
        match self {
            Directories::V1(base) => Directories::V1(base.child(name)),
            Directories::V2(base) => Directories::V2(base.child(name)),
        }
    }

    /// Each directory once, also where two controllers share a hierarchy.
    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Directories::V1(directories) => directories.paths(),
            Directories::V2(directory) => vec![directory.path().to_owned()],
        }
    }
}

struct HostCgroup {
    name: String,
    directories: Directories,
}

#[async_trait]
impl Cgroup for HostCgroup {
    fn entry_files(&self) -> Vec<PathBuf> {
        self.directories.paths().into_iter().map(|path| path.join("cgroup.procs")).collect()
    }

    fn set_limits(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        match &self.directories {
            Directories::V1(directories) => directories.set_limits(limits),
            Directories::V2(directory) => directory.set_limits(limits),
        }
    }

    fn usage(&self) -> Result<CgroupUsage, CgroupError> {
        match &self.directories {
            Directories::V1(directories) => directories.usage(),
            Directories::V2(directory) => directory.usage(),
        }
    }

    fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        Ok(files::processes(&self.directories.paths())?.into_iter().collect())
    }

    async fn out_of_memory(&self) -> Result<(), CgroupError> {
        match &self.directories {
            Directories::V1(directories) => directories.out_of_memory().await,
            Directories::V2(directory) => directory.out_of_memory().await,
        }
    }

    async fn freeze(&self) -> Result<(), CgroupError> {
        freeze::freeze(&self.directories).await
    }

    fn thaw(&self) -> Result<(), CgroupError> {
        freeze::thaw(&self.directories)
    }

    async fn kill_and_remove(&self, patience: Duration) -> Result<(), CgroupError> {
        kill::kill_and_remove(&self.name, &self.directories, patience).await
    }
}

/// One path segment that names nothing else: not hidden, not `..`, not a control file (those hold a dot).
fn is_segment(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn not_a_name(name: &str) -> CgroupError {
    failed("create", Path::new(name))(io::ErrorKind::InvalidInput.into())
}
