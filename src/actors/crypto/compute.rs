//! The computations: on the actor's own thread while they are small, else on one that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::envelope::{Input, Kid, ReplayTag, Rules, read_input, read_plaintext};
use crate::domain::job::{JobId, OpenError, ReplyAddress, ReplyTo, Request, SealedPart};
use crate::domain::secret::Secret;
use crate::domain::time::WallTime;
use crate::messages::crypto::SealError;
use crate::ports::vault::{Unsealed, Vault, VaultError};

/// The most bytes that are worked on where the actor stands: some tens of microseconds.
const SMALL: usize = 64 << 10;
/// What is said of a computation that panicked; the panic's own message may quote what it worked on.
const PANICKED: &str = "a fault of this program";

/// A request that is read to its end, and what the guard must know of it.
pub(super) struct Ready {
    pub(super) request: Request,
    /// None for a request in clear.
    pub(super) guarded: Option<Guarded>,
}

/// What a sealed request is known by.
pub(super) struct Guarded {
    pub(super) tag: ReplayTag,
    pub(super) kid: Kid,
    pub(super) sealed_at: Option<WallTime>,
}

/// Where computations are done.
#[derive(Clone)]
pub(super) struct Workbench {
    pub(super) vault: Arc<dyn Vault>,
    pub(super) encryption_required: bool,
    /// One for each large computation at a time.
    pub(super) places: Arc<Semaphore>,
}

impl Workbench {
    pub(super) async fn open(self, job: JobId, input: Secret) -> Result<Ready, OpenError> {
        let size = input.len();
        let places = Arc::clone(&self.places);
        let done = compute(size, places, move || open(&*self.vault, self.encryption_required, &job, input)).await;
        let panicked = |Panicked| OpenError::Host { doing: "opening", cause: PANICKED.to_owned() };
        done.map_err(panicked)?
    }

    pub(super) async fn seal(self, to: ReplyAddress, plaintext: Secret) -> Result<SealedPart, SealError> {
        let size = plaintext.len();
        let places = Arc::clone(&self.places);
        let done = compute(size, places, move || self.vault.seal(&to, plaintext.into_bytes())).await;
        done.map_err(|Panicked| SealError::Host(PANICKED.to_owned()))?.map_err(|error| match error {
            VaultError::UnknownKey(kid) => SealError::KeyGone(kid),
            VaultError::Unopenable | VaultError::NoKey | VaultError::NoRandom => SealError::Host(error.to_string()),
        })
    }
}

/// The work panicked.
struct Panicked;

async fn compute<T: Send + 'static>(
    size: usize,
    places: Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    if size <= SMALL {
        // The work owns what it touches; half of it is gone together with the panic.
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
    }
    let Ok(place) = places.acquire_owned().await else { return Err(Panicked) };
    let with_place = move || {
        let _place = place;
        work()
    };
    tokio::task::spawn_blocking(with_place).await.map_err(|_| Panicked)
}

fn open(vault: &dyn Vault, encryption_required: bool, job: &JobId, input: Secret) -> Result<Ready, OpenError> {
    let current = vault.keys().into_iter().find(|key| key.current).map(|key| key.kid);
    let read = read_input(input.bytes(), Rules { encryption_required, current });
    drop(input);
    let sealed = match read? {
        Input::Plain(order) => {
            let request = order.into_request(job.clone(), ReplyTo::Plain);
            return Ok(Ready { request, guarded: None });
        }
        Input::Sealed(sealed) => sealed,
    };
    let (version, epk, options) = (sealed.envelope.version, sealed.envelope.epk, sealed.options);
    let Unsealed { plaintext, kid, tag } = vault.open(sealed.envelope).map_err(|error| match (error, current) {
        (VaultError::UnknownKey(_), Some(current)) => OpenError::UnknownKey { current },
        (VaultError::NoKey | VaultError::UnknownKey(_), _) => OpenError::NoKey,
        (VaultError::Unopenable | VaultError::NoRandom, _) => OpenError::Unopenable,
    })?;
    let opened = read_plaintext(plaintext, job.clone(), version, (kid, epk), options)?;
    Ok(Ready { request: opened.request, guarded: Some(Guarded { tag, kid, sealed_at: opened.sealed_at }) })
}
