//! Where folders of the host are bound into an image. What is missing is made, since the engine's own helper, which would make
//! it, may write to the image or not.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};

use super::host;
use crate::ports::sandbox::SandboxError;
use crate::sys::beneath::open_directory;

/// Makes these folders of the image (absolute paths in it) where they are missing. No link in the image is followed. Blocks.
pub(super) fn make(rootfs: &Path, targets: &[&str]) -> Result<(), SandboxError> {
    for target in targets.iter().filter(|target| !rootfs.join(target.trim_start_matches('/')).is_dir()) {
        make_one(rootfs, target).map_err(host("making a mount point in the runtime's image"))?;
    }
    Ok(())
}

fn make_one(rootfs: &Path, target: &str) -> io::Result<()> {
    let mut folder = open_directory(std::fs::File::open(rootfs)?, ".")?;
    for segment in target.split('/').filter(|segment| !segment.is_empty()) {
        let open_to_all = Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP | Mode::S_IROTH | Mode::S_IXOTH;
        match mkdirat(&folder, segment, open_to_all) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = open_directory(&folder, segment)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_made_and_no_link_is_followed() {
        let [image, outside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        std::fs::create_dir(image.path().join("tmp")).unwrap();
        for _ in 0..2 {
            make(image.path(), &["/tmp/.deno/gen", "/workspace/node_modules"]).unwrap();
        }
        assert!(image.path().join("tmp/.deno/gen").is_dir() && image.path().join("workspace/node_modules").is_dir());
        std::os::unix::fs::symlink(outside.path(), image.path().join("tmp/away")).unwrap();
        assert!(make(image.path(), &["/tmp/away/gen"]).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
