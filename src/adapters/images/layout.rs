//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/sha256/…`, or an archive of one.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tar::EntryType;

use super::blobs::{BlobError, Blobs, MOST_DOCUMENT, blocking, check, check_parts, measure};
use super::entries::walk;
use super::layer::Unpacked;
use super::saved;
use super::unpack::{UnpackError, copy};
use crate::domain::image::{Descriptor, Digest, Name};

/// Marks the directory as one.
pub(super) const MARK: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
pub(super) const BLOBS: &str = "blobs/sha256";

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything else: an unpacked root file system, or nothing yet.
    Directory,
    Layout,
    Archive,
}

/// What lies at `path` now.
pub(super) fn kind_of(path: &Path) -> Kind {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Kind::Archive,
        Ok(_) if path.join(MARK).is_file() && path.join(INDEX).is_file() => Kind::Layout,
        _ => Kind::Directory,
    }
}

/// Tells one state of an archive from another without reading it.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn mark_of(archive: &Path) -> io::Result<String> {
    let found = fs::metadata(archive)?;
    let (size, inode) = (found.size(), found.ino());
    Ok(format!("{} {size} {inode} {}.{:09}", archive.display(), found.mtime(), found.mtime_nsec()))
}

/// A layout on this host.
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The index that the layout begins with.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn index(&self) -> Result<Vec<u8>, BlobError> {
        let path = self.dir.join(INDEX);
        blocking(move || document(&path)).await
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }
}

#[async_trait]
impl Blobs for Layout {
    async fn manifest(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError> {
        let (path, wanted) = (self.blob(&wanted.digest), wanted.clone());
        blocking(move || {
            let bytes = document(&path)?;
            check(&bytes, &wanted)?;
            Ok(bytes)
        })
        .await
    }

    async fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError> {
        self.manifest(wanted).await
    }

    async fn layer(&self, wanted: &Descriptor) -> Result<File, BlobError> {
        let (path, wanted) = (self.blob(&wanted.digest), wanted.clone());
        blocking(move || {
            let failed = |source| BlobError::File(path.display().to_string(), source);
            let mut file = File::open(&path).map_err(failed)?;
            let (size, digest) = measure(&mut file, wanted.size).map_err(failed)?;
            check_parts(size, &digest, &wanted)?;
            Ok(file)
        })
        .await
    }
}

fn document(path: &Path) -> Result<Vec<u8>, BlobError> {
    let failed = |source| BlobError::File(path.display().to_string(), source);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_DOCUMENT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MOST_DOCUMENT {
        return Err(BlobError::Document(path.display().to_string()));
    }
    Ok(bytes)
}

/// Lays out what is in an archive, a layout or what `docker save` once wrote, into the directory `dir`, which is made anew.
/// What is no part of either is left out. `most`: bytes of all that is in the archive.
///
/// # Errors
/// When it cannot be read, or is neither.
pub(super) fn lay_out(archive: &Path, dir: &Path, most: u64) -> Result<(), UnpackError> {
    let failed = |source: io::Error| UnpackError::Write(dir.display().to_string(), source);
    // An earlier try's; all in it are files of ours.
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed)?,
    }
    for made in [dir.join(BLOBS), dir.join(saved::FOLDER)] {
        DirBuilder::new().recursive(true).mode(0o700).create(made).map_err(failed)?;
    }
    let opened = File::open(archive).and_then(|file| Unpacked::open(file, most)).map_err(UnpackError::Read)?;
    walk(opened, |item, content| {
        let Name::Path(path) = &item.name else { return Ok(()) };
        let name = std::str::from_utf8(path).unwrap_or_default();
        let saved = || saved::kept_as(name).map(|name| dir.join(saved::FOLDER).join(name));
        let kept = if is_part(name) { Some(dir.join(name)) } else { saved() };
        match kept.filter(|_| item.kind == EntryType::Regular) {
            Some(kept) => copy(content, &mut File::create(kept).map_err(failed)?, path),
            None => Ok(()),
        }
    })?;
    if kind_of(dir) == Kind::Layout || saved::convert(dir)? { Ok(()) } else { Err(UnpackError::NoImage) }
}

fn is_part(name: &str) -> bool {
    let blob = name.strip_prefix(BLOBS).and_then(|rest| rest.strip_prefix('/'));
    name == MARK || name == INDEX || blob.is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}
