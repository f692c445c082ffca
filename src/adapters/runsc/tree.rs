//! The tree of a sandbox that is made before its environment is known. What is mounted beneath its root later shows up in
//! the running sandbox, at the very paths that any other sandbox has it:
//!
//! ```text
//!   <slot>/root            the image, bound and shared: the sandbox's root
//!   <slot>/root/workspace  ◄── the environment's modules, mounted when the slot is claimed
//!   <slot>/emitted         bound over itself and shared: Deno's emitted files, in its cache
//!   <slot>/emitted/file    ◄── the environment's
//! ```
//!
//! runsc makes its own copies of these mounts slaves of them, so that nothing of the sandbox comes back.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::spec::{EMITTED_AT, WORKSPACE};
use crate::sys::mounts;

const ROOT: &str = "root";
const EMITTED: &str = "emitted";
/// The only directory of Deno's emitted files for modules of the workspace.
const EMITTED_FILES: &str = "file";

/// A tree that something can be mounted on.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: PathBuf,
    pub emitted: PathBuf,
}

/// Makes the tree in a slot's directory, over the image `rootfs`. Blocks.
///
/// # Errors
/// What mkdir(2) and mount(2) said; `NotADirectory` when something else is where the image must have a directory.
pub(super) fn plant(slot_dir: &Path, rootfs: &Path) -> io::Result<Tree> {
    // The engine would make them itself, but not in a root that is sealed.
    for place in [WORKSPACE, EMITTED_AT] {
        make_place(rootfs, place)?;
    }
    let tree = Tree { root: slot_dir.join(ROOT), emitted: slot_dir.join(EMITTED) };
    // The sandbox's own user must get through, whatever the daemon's umask is.
    let emitted_files = tree.emitted.join(EMITTED_FILES);
    let slots = slot_dir.parent().unwrap_or(slot_dir);
    for directory in [slots, slot_dir, &tree.root, &tree.emitted, &emitted_files] {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o711))?;
    }
    mounts::bind_shared(rootfs, &tree.root)?;
    mounts::bind_shared(&tree.emitted, &tree.emitted)?;
    Ok(tree)
}

/// Mounts an environment's files on the tree of a slot. Blocks.
///
/// # Errors
/// What mount(2) said.
pub(super) fn graft(slot_dir: &Path, workspace: &Path, emitted: Option<&Path>) -> io::Result<()> {
    if let Some(files) = emitted.map(|emitted| emitted.join(EMITTED_FILES)).filter(|files| files.is_dir()) {
        mounts::bind_sealed(&files, &slot_dir.join(EMITTED).join(EMITTED_FILES))?;
    }
    mounts::bind_sealed(workspace, &within(&slot_dir.join(ROOT), WORKSPACE))
}

/// Takes off all that is mounted in a slot's directory, and removes the places. The image must not be below any more when
/// the directory is removed: an error here keeps it. Blocks; no error when there is no tree.
///
/// # Errors
/// What umount(2) and rmdir(2) said.
pub(super) fn fell(slot_dir: &Path) -> io::Result<()> {
    let Ok(real) = slot_dir.canonicalize() else { return Ok(()) };
    for point in mounts::points_under(&real)? {
        mounts::detach(&point)?;
    }
    match fs::remove_dir(real.join(ROOT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An empty directory for something to be mounted on, made in the image where it is not there yet. Follows no link: it
/// might lead out of the image.
fn make_place(rootfs: &Path, path: &str) -> io::Result<()> {
    let mut place = rootfs.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        place.push(name);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let text = format!("{} must be a directory", place.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&place)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
        fs::create_dir_all(image.join("workspace")).unwrap();
        fs::create_dir_all(volume.join("emitted/file/workspace")).unwrap();
        fs::create_dir_all(volume.join("workspace")).unwrap();
        fs::write(volume.join("workspace/main.js"), "1").unwrap();
        let tree = plant(&slot, &image).unwrap();
        graft(&slot, &volume.join("workspace"), Some(&volume.join("emitted"))).unwrap();
        assert!(tree.root.join("workspace/main.js").exists() && tree.emitted.join("file/workspace").exists());
        assert!(fs::remove_dir(&tree.root).is_err(), "a mounted root cannot be removed");
        fell(&slot).unwrap();
        fell(&slot).unwrap();
        fs::remove_dir_all(&slot).unwrap();
        assert!(image.join("workspace").exists() && volume.join("workspace/main.js").exists());
    }

    #[test]
    fn no_link_of_an_image_is_followed_when_a_place_is_made_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let [image, elsewhere] = ["image", "elsewhere"].map(|name| folder.path().join(name));
        for directory in [&image, &elsewhere] {
            fs::create_dir(directory).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, image.join("tmp")).unwrap();
        let error = plant(&folder.path().join("slot"), &image).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
