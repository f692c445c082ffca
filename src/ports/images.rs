//! Runtimes' root file systems: which one new sandboxes get, where new ones come from, and how they are tried.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::environment::Runtime;
use crate::domain::image::Digest;

/// A root file system that lies on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeRoot {
    pub rootfs: PathBuf,
    /// The runtime's program: an absolute path inside the root file system.
    pub program: String,
    pub version: String,
}

/// What new sandboxes are made of. The methods block for a moment: a few calls on files.
pub trait RuntimeImages: Send + Sync {
    /// The root file system that serves now. It stays on this host as long as the daemon lives, also when another has
    /// taken its place.
    ///
    /// # Errors
    /// Why there is none, with its remedy.
    fn serving(&self, runtime: Runtime) -> Result<RuntimeRoot, String>;
}

/// What a runtime's setting stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    pub digest: Digest,
    /// Why this may be out of date: its place could not be asked, and it is what was found there last.
    pub stale: Option<String>,
}

/// An image could not be brought into the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Another try may end otherwise.
    #[error("the image {source_name} cannot be fetched")]
    Away {
        source_name: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another try would end the same.
    #[error("the image {source_name} is refused")]
    Unfit {
        source_name: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the image store {path} cannot be used: see its rights and its disk's free space")]
    Store {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The images of this host, by the digest of their manifest. Each is whole or not there.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// The runtimes that come from images, each with the digest that served when it was last written down.
    fn runtimes(&self) -> Vec<(Runtime, Option<Digest>)>;

    /// Asks what the runtime's setting stands for now, and brings it into the store: fetched, each part checked by its
    /// digest, and unpacked. What is there already is not fetched again.
    ///
    /// # Errors
    /// When it cannot be had; the store is as before.
    async fn find(&self, runtime: Runtime) -> Result<FoundImage, ImageError>;

    /// The root file system of an image in the store.
    ///
    /// # Errors
    /// When there is no such image.
    async fn root(&self, runtime: Runtime, digest: &Digest) -> Result<RuntimeRoot, ImageError>;

    /// Writes down that the image serves, and gives it to new sandboxes from now on.
    ///
    /// # Errors
    /// When it cannot be written; what served serves on.
    async fn serve(&self, runtime: Runtime, digest: &Digest) -> Result<(), ImageError>;
}

/// A start went wrong.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The image is at fault.
    #[error("{0}")]
    Image(String),
    /// This host is.
    #[error("{0}")]
    Host(String),
}

/// Starts sandboxes of images that do not serve yet.
#[async_trait]
pub trait ImageTrials: Send + Sync {
    /// Destroys what trials of an earlier life left on this host.
    async fn sweep(&self);

    /// A cold start, one call of a small handler, and the sandbox's end. Returns how long it took. One at a time.
    ///
    /// # Errors
    /// What went wrong. Nothing of it is left then either, or [`sweep`](Self::sweep) finds it.
    async fn attempt(&self, runtime: Runtime, root: RuntimeRoot) -> Result<Duration, TrialError>;
}
