//! What one volume can take over of another. Volumes hold plain files only, and none is ever written again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::failed;
use crate::domain::quota::bytes_on_disk;
use crate::ports::volumes::VolumeError;

/// The plain files below these folders of a volume, by their paths in it. A folder that is not there holds none.
pub(super) fn listed(volume: &Path, folders: &[&str]) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let mut found = BTreeMap::new();
    volume.metadata().map_err(failed("open", volume))?;
    for folder in folders {
        walk(&volume.join(folder), folder, &mut found)?;
    }
    Ok(found)
}

/// What these take on disk, as if nothing were shared.
pub(super) fn bytes(files: &BTreeMap<String, Vec<u8>>, shared: &BTreeMap<String, PathBuf>) -> Result<u64, VolumeError> {
    let mut sizes: Vec<usize> = files.values().map(Vec::len).collect();
    for path in shared.values() {
        let size = path.symlink_metadata().map_err(failed("look at", path))?.len();
        sizes.push(usize::try_from(size).unwrap_or(usize::MAX));
    }
    Ok(bytes_on_disk(sizes))
}

fn walk(folder: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) -> Result<(), VolumeError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("list", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        let path = entry.path();
        // Of the entry itself: a link is neither.
        let kind = entry.file_type().map_err(failed("look at", &path))?;
        let Some(last) = entry.file_name().to_str().map(|last| format!("{name}/{last}")) else { continue };
        if kind.is_dir() {
            walk(&path, &last, found)?;
        } else if kind.is_file() {
            found.insert(last, path);
        }
    }
    Ok(())
}
