//! Files that came out of a call, written where the caller says.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::api::dto::FileBody;
use crate::cli::printable::printable;
use crate::domain::base64;

const NO_BASE64: &str = "the daemon sent a file that is not base64";

/// Makes the directory before there is anything to write: a call is not made whose files would have no place.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The same for an archive: it can be written, and is left as it is.
pub fn look_at(file: &Path) -> anyhow::Result<()> {
    let is_new = !file.exists();
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.with_context(|| format!("cannot write {}", file.display()))?;
    if is_new {
        fs::remove_file(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Writes each below `folder`, which is made if it is not there. A file that is there is replaced.
pub fn write(folder: &Path, files: &[FileBody]) -> anyhow::Result<()> {
    for file in files {
        let is_plain =
            file.path.split('/').all(|segment| !matches!(segment, "" | "." | "..") && !segment.contains('\0'));
        ensure!(is_plain, "the daemon names a file that leads out of the directory: {}", printable(&file.path));
        let content = base64::decode(&file.content).context(NO_BASE64)?;
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", printable(&path.to_string_lossy())))?;
    }
    Ok(())
}

/// Writes an archive as it came. A file that is there is replaced.
pub fn write_archive(file: &Path, archive: &str) -> anyhow::Result<()> {
    let content = base64::decode(archive).context(NO_BASE64)?;
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
