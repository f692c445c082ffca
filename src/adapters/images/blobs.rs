//! What an image is made of, wherever it comes from: small documents and layers, each known by its digest.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::registry::RegistryError;
use crate::domain::image::{ConfigError, Descriptor, Digest, Document, Manifest, ManifestError, choose};

/// The largest index, manifest or config: what registries take.
pub(super) const MOST_DOCUMENT: u64 = 4 << 20;
/// Indexes that point to indexes.
const DEEPEST: usize = 3;

/// A part could not be had, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlobError {
    #[error("the registry does not give it")]
    Registry(#[from] RegistryError),
    #[error("{0} cannot be read")]
    File(String, #[source] io::Error),
    #[error("it cannot be kept on this host")]
    Disk(#[source] io::Error),
    #[error("{0} has {1} bytes, and its descriptor says {2}")]
    Size(Digest, u64, u64),
    #[error("{0} has the digest {1}")]
    Digest(Digest, Digest),
    #[error("{0} is larger than {MOST_DOCUMENT} bytes")]
    Document(String),
    #[error("its manifest is refused")]
    Manifest(#[from] ManifestError),
    #[error("its config is refused")]
    Config(#[from] ConfigError),
    #[error("its layers have {0} bytes, more than sandbox.images.mib allows")]
    Large(u64),
    #[error("its indexes point to one another more than {DEEPEST} times")]
    Deep,
}

impl BlobError {
    /// True where another try may end otherwise.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            BlobError::Registry(error) => error.may_pass(),
            BlobError::File(..) | BlobError::Disk(_) | BlobError::Size(..) | BlobError::Digest(..) => true,
            _ => false,
        }
    }
}

/// Where the parts are.
#[async_trait]
pub(super) trait Blobs: Send + Sync {
    /// An index or a manifest of at most [`MOST_DOCUMENT`] bytes, checked by its digest.
    async fn manifest(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError>;

    /// A config of as many, checked as well.
    async fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>, BlobError>;

    /// A layer as it is packed, checked by size and digest.
    async fn layer(&self, wanted: &Descriptor) -> Result<File, BlobError>;
}

/// The one image for this host.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    /// As it lies there.
    pub(super) bytes: Vec<u8>,
}

/// Goes from an index or a manifest, whose bytes were checked already, to this host's image.
///
/// # Errors
/// When there is none, or a part of the way is broken.
pub(super) async fn resolve(blobs: &dyn Blobs, mut bytes: Vec<u8>, architecture: &str) -> Result<Resolved, BlobError> {
    for _ in 0..=DEEPEST {
        match Document::read(&bytes)? {
            Document::Manifest(manifest) => {
                let digest = Digest::of_bytes(&Sha256::digest(&bytes));
                return Ok(Resolved { digest, manifest, bytes });
            }
            Document::Index(offered) => bytes = blobs.manifest(choose(&offered, architecture)?).await?,
        }
    }
    Err(BlobError::Deep)
}

/// Whether `bytes` are what `wanted` describes.
///
/// # Errors
/// What they are instead.
pub(super) fn check(bytes: &[u8], wanted: &Descriptor) -> Result<(), BlobError> {
    check_parts(bytes.len() as u64, &Digest::of_bytes(&Sha256::digest(bytes)), wanted)
}

/// The same for bytes that were counted and hashed on the way.
///
/// # Errors
/// What they are instead.
pub(super) fn check_parts(size: u64, is: &Digest, wanted: &Descriptor) -> Result<(), BlobError> {
    if size != wanted.size {
        return Err(BlobError::Size(wanted.digest.clone(), size, wanted.size));
    }
    if *is != wanted.digest {
        return Err(BlobError::Digest(wanted.digest.clone(), is.clone()));
    }
    Ok(())
}

/// Bytes and digest of what comes out of `reader`, at most one byte over `most`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn measure(reader: &mut impl Read, most: u64) -> io::Result<(u64, Digest)> {
    let mut hash = Sha256::new();
    let (mut chunk, mut size) = (vec![0; 64 << 10], 0_u64);
    loop {
        let length = reader.read(&mut chunk)?;
        size += length as u64;
        hash.update(chunk.get(..length).unwrap_or_default());
        if length == 0 || size > most {
            return Ok((size, Digest::of_bytes(&hash.finalize())));
        }
    }
}

/// Blocking work, off the arbiter.
///
/// # Errors
/// What the work says; a panic in it counts as a failure of this host.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(BlobError::Disk(io::Error::other(Box::<dyn Error + Send + Sync>::from(error)))))
}
