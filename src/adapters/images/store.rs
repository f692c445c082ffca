//! The images on this host's disk.
//!
//! ```text
//!   <state_dir>/images/record.json             which serves, and what each setting stood for last
//!                      sha256-<digest>/        a whole image: manifest.json, config.json, rootfs/
//!                      .making-<digest>-…/     one that is being unpacked; removed at the next start
//!                      .blobs-<digest>/        its parts as they were fetched, kept until it is whole
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::blobs::Resolved;
use super::unpack::{UnpackError, unpack};
use crate::domain::environment::Runtime;
use crate::domain::image::{Digest, Document, ImageConfig};
use crate::ports::images::RuntimeRoot;
use crate::sys::{in_root, tree};

const MAKING: &str = ".making-";
const BLOBS: &str = ".blobs-";
const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.json";
const ROOTFS: &str = "rootfs";

/// The directory of all images.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
    /// This host's, as Go names it.
    pub(super) architecture: String,
}

/// An image in the store is not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("it cannot be unpacked")]
    Unpack(#[source] UnpackError),
    #[error("it has no {0} that anybody may run: looked for {1}")]
    Program(Runtime, String),
    #[error("its files on this host were changed or lost: remove {0} and restart")]
    Broken(PathBuf),
    #[error("{0} cannot be written")]
    Disk(PathBuf, #[source] io::Error),
}

impl StoreError {
    /// Whether the image or the disk is at fault.
    pub(super) fn unpacking(error: UnpackError, dir: &Path) -> Self {
        match error.of_host() {
            Ok(source) => Self::Disk(dir.to_owned(), source),
            Err(error) => Self::Unpack(error),
        }
    }
}

impl Store {
    /// Makes the directory. Open to pass through, as sandboxes have host ids of their own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o711).create(&self.dir)
    }

    /// Removes what is half made, and every image that is not `kept`. Returns the digests of the latter.
    ///
    /// # Errors
    /// When something cannot be removed; it is tried again at the next start.
    pub(super) fn tidy(&self, kept: &BTreeSet<Digest>) -> io::Result<Vec<Digest>> {
        let directory = File::open(&self.dir)?;
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let digest = Digest::of_directory(&text);
            let is_draft = text.starts_with(MAKING) || text.starts_with(BLOBS);
            if is_draft || digest.as_ref().is_some_and(|digest| !kept.contains(digest)) {
                tree::remove(&directory, &name)?;
                removed.extend(digest);
            }
        }
        Ok(removed)
    }

    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.path(digest).join(ROOTFS).is_dir()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.directory())
    }

    /// A directory for an image's parts, which is there until [`discard`](Self::discard).
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn blobs(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("{BLOBS}{name}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Removes a directory of parts. What cannot be removed now goes at the next start.
    pub(super) fn discard(&self, blobs: &Path) {
        if let (Ok(directory), Some(name)) = (File::open(&self.dir), blobs.file_name()) {
            let _ = tree::remove(&directory, name);
        }
    }

    /// Unpacks an image so that it appears whole and flushed. `layers`: checked, in the manifest's order.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is left then.
    pub(super) fn make(
        &self,
        image: &Resolved,
        config: (&[u8], &ImageConfig),
        layers: Vec<File>,
        most: u64,
    ) -> Result<(), StoreError> {
        let disk = |source| StoreError::Disk(self.dir.clone(), source);
        let directory = File::open(&self.dir).map_err(disk)?;
        // A name of its own: whoever gave up on an earlier try may have left it running.
        let staging = format!("{MAKING}{}-{}", image.digest.hex(), Uuid::new_v4());
        let path = self.dir.join(&staging);
        let made = self.fill(&path, image, config, layers, most).and_then(|()| {
            let target = image.digest.directory();
            match renameat2(&directory, staging.as_str(), &directory, target.as_str(), RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {}
                // Somebody else was faster: it is the same image.
                Err(Errno::EEXIST) if self.holds(&image.digest) => {
                    tree::remove(&directory, OsStr::new(&staging)).map_err(disk)?
                }
                Err(errno) => return Err(disk(errno.into())),
            }
            directory.sync_all().map_err(disk)
        });
        if made.is_err() {
            // The first error counts; what cannot be removed now goes at the next start.
            let _ = tree::remove(&directory, OsStr::new(&staging));
        }
        made
    }

    fn fill(
        &self,
        path: &Path,
        image: &Resolved,
        (bytes, config): (&[u8], &ImageConfig),
        layers: Vec<File>,
        most: u64,
    ) -> Result<(), StoreError> {
        let disk = |source| StoreError::Disk(self.dir.clone(), source);
        let rootfs = path.join(ROOTFS);
        for made in [path, &rootfs] {
            DirBuilder::new().mode(0o755).create(made).map_err(disk)?;
            // Whatever umask the daemon has.
            fs::set_permissions(made, fs::Permissions::from_mode(0o755)).map_err(disk)?;
        }
        let layers = layers.into_iter().zip(config.diff_ids.iter().cloned()).collect();
        unpack(layers, &rootfs, most).map_err(|error| StoreError::unpacking(error, &self.dir))?;
        fs::write(path.join(MANIFEST), &image.bytes).map_err(disk)?;
        fs::write(path.join(CONFIG), bytes).map_err(disk)?;
        let opened = File::open(path).map_err(disk)?;
        nix::unistd::syncfs(&opened).map_err(|errno| disk(errno.into()))
    }

    /// The root file system of an image that is in the store, with the runtime's program found in it. `named`: what its
    /// version is called where it does not say.
    ///
    /// # Errors
    /// When its files are not what they were, or the program is missing.
    pub(super) fn root(
        &self,
        runtime: Runtime,
        digest: &Digest,
        named: Option<&str>,
    ) -> Result<RuntimeRoot, StoreError> {
        let path = self.path(digest);
        let config = self.config(&path, digest).ok_or_else(|| StoreError::Broken(path.clone()))?;
        let rootfs = path.join(ROOTFS);
        let opened = File::open(&rootfs).map_err(|source| StoreError::Disk(rootfs.clone(), source))?;
        let places = config.places(runtime);
        let is_program = |place: &&String| {
            let found = in_root::open_file(&opened, place.as_str()).and_then(|file| file.metadata());
            found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 == 0o111)
        };
        let Some(program) = places.iter().find(is_program).cloned() else {
            return Err(StoreError::Program(runtime, places.join(", ")));
        };
        let version = config.version.or_else(|| named.map(str::to_owned)).unwrap_or_else(|| digest.short().to_owned());
        Ok(RuntimeRoot { rootfs, program, version })
    }

    /// Both documents are kept as they came, so that they can be checked by the image's own name.
    fn config(&self, path: &Path, digest: &Digest) -> Option<ImageConfig> {
        let is = |bytes: &[u8], digest: &Digest| Digest::of_bytes(&Sha256::digest(bytes)) == *digest;
        let manifest = fs::read(path.join(MANIFEST)).ok().filter(|bytes| is(bytes, digest))?;
        let Ok(Document::Manifest(manifest)) = Document::read(&manifest) else { return None };
        let config = fs::read(path.join(CONFIG)).ok().filter(|bytes| is(bytes, &manifest.config.digest))?;
        ImageConfig::read(&config, &self.architecture, manifest.layers.len()).ok()
    }
}
