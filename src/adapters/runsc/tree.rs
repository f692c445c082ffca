//! The tree of a sandbox that is made before its environment is known. What is mounted beneath its root later shows up in
//! the running sandbox, at the very paths that any other sandbox has it:
//!
//! ```text
//!   <slot>/root            the image, bound and shared: the sandbox's root
//!   <slot>/root/workspace  ◄── the environment's modules, mounted when the slot is claimed
//!   <slot>/emitted         bound over itself and shared: Deno's emitted files, in its cache
//!   <slot>/emitted/…       ◄── the environment's, by scheme
//!   <slot>/remote          the same for modules from elsewhere
//! ```
//!
//! runsc makes its own copies of these mounts slaves of them, so that nothing of the sandbox comes back.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::spec::{EMITTED_AT, REMOTE_AT, WORKSPACE};
use super::{host, mount_points};
use crate::ports::sandbox::SandboxError;
use crate::sys::mounts;

const ROOT: &str = "root";
const EMITTED: &str = "emitted";
const REMOTE: &str = "remote";
/// The directories that Deno's cache has in each of its parts: the schemes of the modules' addresses.
const SCHEMES: [&str; 3] = ["file", "http", "https"];

/// A tree that something can be mounted on.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: PathBuf,
    pub emitted: PathBuf,
    pub remote: PathBuf,
}

/// Makes the tree in a slot's directory, over the image `rootfs`. Blocks.
///
/// # Errors
/// What mkdir(2) and mount(2) said.
pub(super) fn plant(slot_dir: &Path, rootfs: &Path) -> Result<Tree, SandboxError> {
    // The engine would make them itself, but not in a root that is sealed.
    mount_points::make(rootfs, &[WORKSPACE, EMITTED_AT, REMOTE_AT])?;
    mount(slot_dir, rootfs).map_err(host("mounting the sandbox's root"))
}

fn mount(slot_dir: &Path, rootfs: &Path) -> io::Result<Tree> {
    let [root, emitted, remote] = [ROOT, EMITTED, REMOTE].map(|name| slot_dir.join(name));
    let slots = slot_dir.parent().unwrap_or(slot_dir);
    let by_scheme = [&emitted, &remote].into_iter().flat_map(|part| SCHEMES.map(|scheme| part.join(scheme)));
    let directories = [slots, slot_dir, &root, &emitted, &remote].map(Path::to_owned).into_iter().chain(by_scheme);
    // The sandbox's own user must get through, whatever the daemon's umask is.
    for directory in directories {
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o711))?;
    }
    mounts::bind_shared(rootfs, &root)?;
    for part in [&emitted, &remote] {
        mounts::bind_shared(part, part)?;
    }
    Ok(Tree { root, emitted, remote })
}

/// Mounts an environment's files on the tree of a slot. Blocks.
///
/// # Errors
/// What mount(2) said.
pub(super) fn graft(
    slot_dir: &Path,
    workspace: &Path,
    emitted: Option<&Path>,
    remote: Option<&Path>,
) -> io::Result<()> {
    for (name, part) in [(EMITTED, emitted), (REMOTE, remote)] {
        let Some(part) = part else { continue };
        for scheme in SCHEMES {
            let files = part.join(scheme);
            if files.is_dir() {
                mounts::bind_sealed(&files, &slot_dir.join(name).join(scheme))?;
            }
        }
    }
    mounts::bind_sealed(workspace, &within(&slot_dir.join(ROOT), WORKSPACE))
}

/// Takes off all that is mounted in a slot's directory, and removes the places. The image must not be below any more when
/// the directory is removed: an error here keeps it. Blocks; no error when there is no tree.
///
/// # Errors
/// What umount(2) and rmdir(2) said.
pub(super) fn fell(slot_dir: &Path) -> io::Result<()> {
    let real = match slot_dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        real => real?,
    };
    for point in mounts::points_under(&real)? {
        mounts::detach(&point)?;
    }
    if let Some(point) = mounts::points_under(&real)?.first() {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{} is still mounted", point.display())));
    }
    match fs::remove_dir(real.join(ROOT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn within(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_an_environment_and_leaves_image_and_environment_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let [image, slot, volume] = ["image", "slot", "volume"].map(|name| folder.path().join(name));
        for directory in ["emitted/file/workspace", "remote/https/host", "workspace"] {
            fs::create_dir_all(volume.join(directory)).unwrap();
        }
        fs::create_dir_all(image.join("workspace")).unwrap();
        fs::write(volume.join("workspace/main.js"), "1").unwrap();
        let tree = plant(&slot, &image).unwrap();
        let [workspace, emitted, remote] = ["workspace", "emitted", "remote"].map(|name| volume.join(name));
        graft(&slot, &workspace, Some(&emitted), Some(&remote)).unwrap();
        assert!(tree.root.join("workspace/main.js").exists());
        assert!(tree.emitted.join("file/workspace").exists() && tree.remote.join("https/host").exists());
        assert!(fs::remove_dir(&tree.root).is_err(), "a mounted root cannot be removed");
        fell(&slot).unwrap();
        fell(&slot).unwrap();
        fs::remove_dir_all(&slot).unwrap();
        assert!(image.join("workspace").exists() && volume.join("workspace/main.js").exists());
    }
}
