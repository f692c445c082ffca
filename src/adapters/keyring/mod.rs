//! The key ring: the only place of the server's private keys.
//!
//! ```text
//!   sources.rs  file, credential or the variable's value ─► SecretKey
//!   ring.rs     the current key and the former ones, each until its time
//!   derived.rs  box keys of requests in hand: open and seal of one request cost one multiplication
//! ```
//!
//! What holds:
//! * a request that does not open costs the same whatever is wrong with it: a client key that is refused is replaced
//!   by another one, each key is tried, and each trial runs over the whole ciphertext;
//! * a key that was destroyed does not come back by a reload, and its box keys go with it;
//! * no key, and nothing that is derived from one, is in an error, a `Debug` or the log.

mod derived;
mod ring;
mod sources;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::envelope::{Envelope, Kid, NonceBytes, PublicKeyBytes, ReplayTag};
use crate::domain::job::{ReplyAddress, SealedPart};
use crate::domain::secret::Secret;
use crate::domain::time::Moment;
use crate::ports::vault::{KeyInfo, Unsealed, Vault, VaultError};
use crate::sealed::{BoxKey, Epk, Inadmissible, KEY_BYTES, Nonce, SecretKey, TAG_BYTES};

use derived::Derived;
use ring::Ring;
pub use sources::{KeyringError, Sources};

#[cfg(test)]
mod tests;

/// Stands in for a client key that is refused, so that the work is the same. What it opens counts for nothing.
const STAND_IN: PublicKeyBytes = {
    let mut bytes = [0; KEY_BYTES];
    bytes[0] = 9;
    bytes
};

/// The ring with its sources.
pub struct Keyring {
    sources: Sources,
    /// How long a former key is kept.
    overlap: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    derived: Derived,
}

impl Keyring {
    /// A ring of what the sources hold now; it may be empty.
    ///
    /// # Errors
    /// A source that is there and cannot be used.
    pub fn open(sources: Sources, overlap: Duration, now: Moment) -> Result<Self, KeyringError> {
        let keyring = Self { sources, overlap, state: Mutex::default() };
        keyring.renew(now)?;
        Ok(keyring)
    }

    fn renew(&self, now: Moment) -> Result<(), KeyringError> {
        let (current, former) = self.sources.read()?;
        let mut state = self.state();
        if current.is_none() && !state.ring.is_empty() {
            return Err(KeyringError::Gone);
        }
        let destroyed = state.ring.renew(current, former, self.overlap, now);
        destroyed.iter().for_each(|kid| state.derived.forget(*kid));
        Ok(())
    }

    /// The lock is held for look-ups only, never while a box is computed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the boxes between one of ours and a client's. True: it was derived before.
    fn box_key(&self, kid: Kid, key: &SecretKey, epk: &Epk) -> Result<(Arc<BoxKey>, bool), Inadmissible> {
        if let Some(known) = self.state().derived.get(kid, epk.as_bytes()) {
            return Ok((known, true));
        }
        key.agree(epk).map(|agreed| (Arc::new(agreed), false))
    }

    /// Tries one key. The work is the same whether the client's key is admitted or not.
    fn try_key(&self, kid: Kid, key: &SecretKey, envelope: &mut Envelope) -> Option<ReplayTag> {
        let nonce = Nonce::new(envelope.nonce);
        let admitted = Epk::admit(envelope.epk).and_then(|epk| self.box_key(kid, key, &epk));
        let is_admitted = admitted.is_ok();
        let stand_in = || Epk::admit(STAND_IN).and_then(|epk| key.agree(&epk)).map(|agreed| (Arc::new(agreed), true));
        let (box_key, is_known) = admitted.or_else(|_| stand_in()).ok()?;
        let opens = box_key.open(&nonce, &mut envelope.ciphertext).is_ok();
        let tag = box_key.replay_tag(&nonce);
        if !(opens && is_admitted) {
            return None;
        }
        if !is_known {
            self.state().derived.keep(kid, envelope.epk, box_key);
        }
        Some(tag)
    }
}

impl Vault for Keyring {
    fn keys(&self) -> Vec<KeyInfo> {
        self.state().ring.list()
    }

    fn open(&self, mut envelope: Envelope) -> Result<Unsealed, VaultError> {
        let candidates = self.state().ring.candidates(envelope.kid);
        if candidates.is_empty() {
            return Err(envelope.kid.map_or(VaultError::NoKey, VaultError::UnknownKey));
        }
        for (kid, key) in candidates {
            if let Some(tag) = self.try_key(kid, &key, &mut envelope) {
                let mut plaintext = envelope.ciphertext;
                plaintext.drain(..TAG_BYTES);
                return Ok(Unsealed { plaintext: Secret::new(plaintext), kid, tag });
            }
        }
        Err(VaultError::Unopenable)
    }

    fn seal(&self, to: &ReplyAddress, plaintext: Vec<u8>) -> Result<SealedPart, VaultError> {
        let key = self.state().ring.candidates(Some(to.kid)).into_iter().next();
        let (kid, key) = key.ok_or(VaultError::UnknownKey(to.kid))?;
        let epk = Epk::admit(to.epk).map_err(|_| VaultError::Unopenable)?;
        let (box_key, is_known) = self.box_key(kid, &key, &epk).map_err(|_| VaultError::Unopenable)?;
        let nonce = Nonce::random().map_err(|_| VaultError::NoRandom)?;
        let mut ciphertext = Vec::with_capacity(TAG_BYTES + plaintext.len());
        ciphertext.extend_from_slice(&[0; TAG_BYTES]);
        ciphertext.extend_from_slice(&plaintext);
        drop(plaintext);
        box_key.seal(&nonce, &mut ciphertext).map_err(|_| VaultError::Unopenable)?;
        if !is_known {
            self.state().derived.keep(kid, to.epk, box_key);
        }
        let nonce: NonceBytes = *nonce.as_bytes();
        Ok(SealedPart { kid, nonce, ciphertext })
    }

    fn reload(&self, now: Moment) -> Result<Vec<KeyInfo>, String> {
        self.renew(now).map_err(|error| told(&error))?;
        Ok(self.keys())
    }

    fn retire(&self, now: Moment) -> usize {
        let mut state = self.state();
        let destroyed = state.ring.retire(now);
        destroyed.iter().for_each(|kid| state.derived.forget(*kid));
        state.derived.age();
        destroyed.len()
    }
}

/// The error with its cause: neither quotes a key.
fn told(error: &KeyringError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
