//! A root file system that somebody else unpacked: the set-up step's directories, or a root file system itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::environment::Runtime;
use crate::ports::images::RuntimeRoot;

/// The root file system in `image`, or `image` itself where it is one. None: neither.
pub(super) fn root_of(image: &Path, runtime: Runtime) -> Option<RuntimeRoot> {
    let program = format!("/usr/bin/{runtime}");
    let has_program = |root: &PathBuf| is_program(&root.join(program.trim_start_matches('/')));
    let rootfs = [image.join("rootfs"), image.to_path_buf()].into_iter().find(has_program)?;
    let version = version_of(image).unwrap_or_else(|| "unknown".to_owned());
    Some(RuntimeRoot { rootfs, program, version })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn version_of(image: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Manifest {
        version: String,
    }
    let manifest: Manifest = serde_json::from_slice(&fs::read(image.join("manifest.json")).ok()?).ok()?;
    Some(manifest.version)
}
