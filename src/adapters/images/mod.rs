//! Runtimes' root file systems (`ports::images`): directories that lie ready, and images that are brought into a store.
//!
//! ```text
//!                 ┌ directory ───────────────────────────────────────────────────────────► serves as it is
//!   a setting ────┼ layout ─────────┐
//!                 ├ archive ─ laid out ─► index ─► manifest ─► config, layers ─► unpacked ─► store ─ (trial) ─► serves
//!                 └ reference ─ registry ┘        each checked by size and digest
//! ```
//!
//! Invariants:
//!
//! * An image is in the store whole or not at all, under the digest of its manifest; what is there is never written again.
//! * Nothing of an image is written outside its own root (`unpack`), and nothing is read beyond its cap.
//! * What serves stays on the disk for as long as the daemon lives; what nobody refers to goes at the next start.

mod blobs;
mod directory;
mod entries;
mod layer;
mod layout;
mod record;
mod registry;
mod saved;
mod store;
mod unpack;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;
use slog::{Logger, info, warn};

use self::blobs::{BlobError, Blobs, Resolved, blocking, resolve};
use self::layout::{Kind, Layout};
use self::record::Record;
use self::registry::{Credentials, PlainHosts, RegistryError, Session};
use self::store::{Store, StoreError};
use crate::domain::environment::Runtime;
use crate::domain::image::{Digest, ImageConfig, ImageSource, Reference};
use crate::ports::images::{FoundImage, ImageError, ImageStore, RuntimeImages, RuntimeRoot};
use crate::telemetry::error_chain;

/// Makes the client that registries are asked by; called when one is.
pub type Connect = Arc<dyn Fn() -> Result<Client, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// What boot tells once.
#[derive(Clone)]
pub struct Settings {
    /// Where images are kept.
    pub dir: PathBuf,
    pub sources: BTreeMap<Runtime, ImageSource>,
    /// The most bytes of an image, as its layers are packed and as they unpack.
    pub most_bytes: u64,
    /// For one image, from the first request until it is in the store.
    pub within: Duration,
    pub auth_file: Option<PathBuf>,
    /// Registries that are asked over plain HTTP, beside those on this host.
    pub plain_http: Vec<String>,
}

/// The images of this host.
pub struct HostImages {
    settings: Settings,
    store: Store,
    connect: Connect,
    /// Those that come from images; the others are directories that serve as they are.
    runtimes: BTreeSet<Runtime>,
    /// One image is fetched and unpacked at a time: two runtimes may name the same one.
    making: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    serving: RwLock<BTreeMap<Runtime, RuntimeRoot>>,
    log: Logger,
}

impl HostImages {
    /// Reads what served before. Nothing is fetched, and nothing on the disk is changed.
    pub fn new(settings: Settings, connect: Connect, log: Logger) -> Self {
        let store = Store { dir: settings.dir.clone(), architecture: architecture() };
        let record = Record::load(&store.dir).unwrap_or_else(|error| {
            warn!(log, "images.record_unreadable"; "error" => %error);
            Record::default()
        });
        let is_image = |(runtime, source): (&Runtime, &ImageSource)| {
            let is_one = match source {
                ImageSource::Registry(_) => true,
                // One that was there before does not turn into a directory when it is gone.
                ImageSource::Place(path) if !path.exists() => record.last(source).is_some(),
                ImageSource::Place(path) => layout::kind_of(path) != Kind::Directory,
            };
            is_one.then_some(*runtime)
        };
        let runtimes = settings.sources.iter().filter_map(is_image).collect();
        let (making, record, serving) = (tokio::sync::Mutex::default(), Mutex::new(record), RwLock::default());
        let images = Self { settings, store, connect, runtimes, making, record, serving, log };
        for (runtime, digest) in images.runtimes() {
            let Some(digest) = digest else { continue };
            match images.store.root(runtime, &digest, images.tag_of(runtime)) {
                Ok(root) => drop(write(&images.serving).insert(runtime, root)),
                Err(error) => {
                    warn!(images.log, "image.lost"; "runtime" => %runtime, "digest" => %digest, "error" => error_chain(&error));
                    lock(&images.record).serving.remove(&runtime);
                }
            }
        }
        images
    }

    /// Removes what an earlier life left half made, and images that nothing refers to. Before any sandbox is made.
    pub fn tidy(&self) {
        if !self.store.dir.exists() {
            return;
        }
        let mut record = lock(&self.record);
        record.serving.retain(|runtime, _| self.runtimes.contains(runtime));
        record.keep(self.settings.sources.values());
        let kept: BTreeSet<Digest> = record.serving.values().chain(record.known.values()).cloned().collect();
        match self.store.tidy(&kept) {
            Ok(removed) => removed.iter().for_each(|digest| info!(self.log, "image.removed"; "digest" => %digest)),
            Err(error) => warn!(self.log, "images.not_tidied"; "error" => %error),
        }
    }

    fn tag_of(&self, runtime: Runtime) -> Option<&str> {
        match self.settings.sources.get(&runtime)? {
            ImageSource::Registry(reference) => Some(reference.tag()),
            ImageSource::Place(_) => None,
        }
    }

    /// The image's digest, with the image in the store.
    async fn bring(&self, runtime: Runtime, source: &ImageSource) -> Result<Digest, Trouble> {
        let key = self.key(source)?;
        let known = lock(&self.record).known.get(&key).cloned().filter(|digest| self.store.holds(digest));
        // What cannot change is not asked for again.
        let pinned = match source {
            ImageSource::Registry(reference) => reference.digest().is_some(),
            ImageSource::Place(path) => layout::kind_of(path) == Kind::Archive,
        };
        let digest = match known.filter(|_| pinned) {
            Some(digest) => digest,
            None => self.fetch(runtime, source).await?,
        };
        // An image without the program must not be known for one that could serve.
        let (store, of, named) = (self.store.clone(), digest.clone(), self.tag_of(runtime).map(str::to_owned));
        let rooted = tokio::task::spawn_blocking(move || store.root(runtime, &of, named.as_deref())).await;
        rooted.map_err(|error| Trouble::Io(io::Error::other(error)))??;
        let mut record = lock(&self.record);
        if record.known.get(&key) != Some(&digest) {
            let mut next = record.clone();
            next.learn(source, key, digest.clone());
            next.save(&self.store.dir)?;
            *record = next;
        }
        Ok(digest)
    }

    /// What the record knows a source by.
    fn key(&self, source: &ImageSource) -> Result<String, Trouble> {
        match source {
            ImageSource::Place(path) if layout::kind_of(path) == Kind::Archive => Ok(layout::mark_of(path)?),
            other => Ok(other.to_string()),
        }
    }

    async fn fetch(&self, runtime: Runtime, source: &ImageSource) -> Result<Digest, Trouble> {
        let _one_at_a_time = self.making.lock().await;
        self.store.prepare()?;
        let blobs = self.store.blobs(runtime.as_str())?;
        let (parts, top): (Box<dyn Blobs>, _) = match source {
            ImageSource::Registry(reference) => {
                let session = self.session(reference, blobs.clone())?;
                let top = session.top().await?;
                (Box::new(session), top)
            }
            ImageSource::Place(path) => {
                let layout = Layout::new(self.laid_out(path, &blobs).await?);
                let top = layout.index().await?;
                (Box::new(layout), top)
            }
        };
        let image = resolve(&*parts, top, &self.store.architecture).await?;
        let digest = image.digest.clone();
        if !self.store.holds(&digest) {
            info!(self.log, "image.fetching"; "runtime" => %runtime, "image" => %source, "digest" => %digest, "layers" => image.manifest.layers.len());
            self.store_image(&*parts, image).await?;
            info!(self.log, "image.stored"; "runtime" => %runtime, "image" => %source, "digest" => %digest);
        }
        // Kept after a failure only, for the next try.
        let store = self.store.clone();
        blocking(move || {
            store.discard(&blobs);
            Ok(())
        })
        .await?;
        Ok(digest)
    }

    async fn store_image(&self, parts: &dyn Blobs, image: Resolved) -> Result<(), Trouble> {
        let packed = image.manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let most = self.settings.most_bytes;
        if packed > most {
            return Err(BlobError::Large(packed).into());
        }
        let bytes = parts.config(&image.manifest.config).await?;
        let config = ImageConfig::read(&bytes, &self.store.architecture, image.manifest.layers.len());
        let config = config.map_err(BlobError::Config)?;
        let mut layers = Vec::new();
        for layer in &image.manifest.layers {
            layers.push(parts.layer(layer).await?);
        }
        let store = self.store.clone();
        let made = tokio::task::spawn_blocking(move || store.make(&image, (&bytes, &config), layers, most)).await;
        Ok(made.map_err(|error| Trouble::Io(io::Error::other(error)))??)
    }

    fn session(&self, reference: &Reference, blobs: PathBuf) -> Result<Session, Trouble> {
        let client = (self.connect)().map_err(|source| BlobError::Registry(RegistryError::Client(source)))?;
        let find = |file: &PathBuf| Credentials::find(file, reference);
        let credentials = self.settings.auth_file.as_ref().map(find).transpose();
        let credentials = credentials.map_err(|error| BlobError::Registry(error.into()))?.flatten();
        let plain = PlainHosts(self.settings.plain_http.clone());
        Ok(Session::new(client, reference.clone(), plain, credentials, blobs))
    }

    async fn laid_out(&self, path: &Path, blobs: &Path) -> Result<PathBuf, Trouble> {
        if layout::kind_of(path) != Kind::Archive {
            return Ok(path.to_owned());
        }
        let (archive, dir) = (path.to_owned(), blobs.join("archive"));
        // An archive with headers and documents beside its layers.
        let most = self.settings.most_bytes.saturating_add(blobs::MOST_DOCUMENT * 4);
        let work = move || match layout::lay_out(&archive, &dir, most) {
            Ok(()) => Ok(dir),
            Err(error) => Err(StoreError::unpacking(error, &dir)),
        };
        let laid = tokio::task::spawn_blocking(work).await;
        Ok(laid.map_err(|error| Trouble::Io(io::Error::other(error)))??)
    }
}

/// Why an image is not in the store.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it was not there within {0:?} (sandbox.images.pull_deadline)")]
    Late(Duration),
}

impl Trouble {
    fn about(self, source: &ImageSource) -> ImageError {
        let source_name = source.to_string();
        let away = match &self {
            Trouble::Blob(error) => error.may_pass(),
            Trouble::Store(error) => matches!(error, StoreError::Disk(..)),
            Trouble::Io(_) | Trouble::Late(_) => true,
        };
        let source = Box::new(self);
        if away { ImageError::Away { source_name, source } } else { ImageError::Unfit { source_name, source } }
    }
}

impl RuntimeImages for HostImages {
    fn serving(&self, runtime: Runtime) -> Result<RuntimeRoot, String> {
        let variable = format!("RUNTIME_IMAGE_{}", runtime.as_str().to_uppercase());
        let source = self.settings.sources.get(&runtime);
        match source {
            Some(ImageSource::Place(path)) if !self.runtimes.contains(&runtime) => {
                directory::root_of(path, runtime).ok_or_else(|| {
                    let place = path.display();
                    format!("the {runtime} runtime is not installed (looked in {place}): run the set-up step (scripts/setup, with this CLOISTER_STATE_DIR), or point {variable} at an image")
                })
            }
            Some(source) => read(&self.serving).get(&runtime).cloned().ok_or_else(|| {
                format!("the {runtime} runtime is not there yet: its image {source} was not fetched and tried so far (see the part \"images\", or the log)")
            }),
            None => Err(format!("the {runtime} runtime is not configured: point {variable} at an image")),
        }
    }
}

#[async_trait]
impl ImageStore for HostImages {
    fn runtimes(&self) -> Vec<(Runtime, Option<Digest>)> {
        let record = lock(&self.record);
        self.runtimes.iter().map(|runtime| (*runtime, record.serving.get(runtime).cloned())).collect()
    }

    async fn find(&self, runtime: Runtime) -> Result<FoundImage, ImageError> {
        let Some(source) = self.settings.sources.get(&runtime).cloned() else {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(ImageError::Store { path: self.store.dir.clone(), source });
        };
        let within = self.settings.within;
        let brought = tokio::time::timeout(within, self.bring(runtime, &source)).await;
        let trouble = match brought.unwrap_or(Err(Trouble::Late(within))) {
            Ok(digest) => return Ok(FoundImage { digest, stale: None }),
            Err(trouble) => trouble.about(&source),
        };
        let last = lock(&self.record).last(&source).cloned();
        match (&trouble, last.filter(|digest| self.store.holds(digest))) {
            (ImageError::Away { .. }, Some(digest)) => {
                let told = format!("{}; what was found there last is used", error_chain(&trouble));
                warn!(self.log, "image.stale"; "runtime" => %runtime, "digest" => %digest, "reason" => &told);
                Ok(FoundImage { digest, stale: Some(told) })
            }
            _ => Err(trouble),
        }
    }

    async fn root(&self, runtime: Runtime, digest: &Digest) -> Result<RuntimeRoot, ImageError> {
        let (store, digest) = (self.store.clone(), digest.clone());
        let named = self.tag_of(runtime).map(str::to_owned);
        let name = digest.to_string();
        let found = tokio::task::spawn_blocking(move || store.root(runtime, &digest, named.as_deref())).await;
        let found = found.map_err(|error| Trouble::Io(io::Error::other(error))).and_then(|root| Ok(root?));
        found.map_err(|trouble| ImageError::Unfit { source_name: name, source: Box::new(trouble) })
    }

    async fn serve(&self, runtime: Runtime, digest: &Digest) -> Result<(), ImageError> {
        let root = self.root(runtime, digest).await?;
        let mut record = lock(&self.record);
        let mut next = record.clone();
        next.serving.insert(runtime, digest.clone());
        let failed = |source| ImageError::Store { path: self.store.dir.clone(), source };
        next.save(&self.store.dir).map_err(failed)?;
        *record = next;
        info!(self.log, "image.serves"; "runtime" => %runtime, "digest" => %digest, "version" => &root.version, "program" => &root.program);
        write(&self.serving).insert(runtime, root);
        Ok(())
    }
}

/// As Go, and so every image, names this host's processor.
fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// No code of ours panics between a lock and its release, so that what is behind it is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(shared: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(shared: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    shared.write().unwrap_or_else(PoisonError::into_inner)
}
