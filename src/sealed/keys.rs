//! The server's pair of keys, and the short name that a client says which one by.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::agreement;
use super::boxes::BoxKey;
use super::epk::{Epk, Inadmissible};
use crate::domain::base64;
use crate::domain::envelope::Kid;
use crate::sys::secret::{Protection, Secret};

/// How long a key of X25519 is, secret or public.
pub const KEY_BYTES: usize = 32;

/// The text is no key. It does not say why: the text may be a secret one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: it must be the padded base64 of 32 bytes, 44 characters")]
pub struct NotAKey;

/// A public key of X25519, as a server has it. A client's is an [`Epk`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Reads padded base64.
    ///
    /// # Errors
    /// Anything but the canonical text of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, NotAKey> {
        let mut bytes = [0; KEY_BYTES];
        base64::decode_into(text, &mut bytes).map_err(|_| NotAKey)?;
        Ok(Self(bytes))
    }

    /// Padded base64, as `SERVER_PUBLIC_KEY_B64` has it.
    pub fn to_base64(self) -> String {
        base64::encode(&self.0)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Its short name.
    pub fn kid(&self) -> Kid {
        let mut kid = [0; 8];
        kid.copy_from_slice(&Sha256::digest(self.0)[..8]);
        Kid(kid)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kid())
    }
}

/// A secret key of X25519, in memory that is locked where that is allowed, and the public key that goes with it.
pub struct SecretKey {
    secret: Secret<KEY_BYTES>,
    public: PublicKey,
}

impl SecretKey {
    /// Takes the key out of `bytes`, which are zero afterwards. For tests, whose keys are published.
    #[cfg(test)]
    pub fn take(bytes: &mut [u8; KEY_BYTES]) -> Self {
        let mut secret = Secret::zeroed();
        secret.copy_from_slice(bytes);
        zeroize::Zeroize::zeroize(bytes);
        Self::of(secret)
    }

    /// A new key of the kernel's random numbers.
    ///
    /// # Errors
    /// The kernel has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = Secret::zeroed();
        getrandom::fill(secret.as_mut_slice())?;
        Ok(Self::of(secret))
    }

    /// Reads padded base64, as `WORKER_PRIVATE_KEY_B64` has it. The text is the caller's to wipe.
    ///
    /// # Errors
    /// Anything but the canonical text of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, NotAKey> {
        let mut secret = Secret::zeroed();
        base64::decode_into(text, &mut secret).map_err(|_| NotAKey)?;
        Ok(Self::of(secret))
    }

    fn of(secret: Secret<KEY_BYTES>) -> Self {
        let public = PublicKey(crypto_box::SecretKey::from(*secret).public_key().to_bytes());
        Self { secret, public }
    }

    /// Padded base64, as `WORKER_PRIVATE_KEY_B64` has it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::encode(self.secret.as_slice()))
    }

    /// How well the memory that holds it is kept. Less than locked is worth a warning.
    pub fn protection(&self) -> Protection {
        self.secret.protection()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The key that a box between this server and the client with `epk` has, in both directions.
    ///
    /// # Errors
    /// `epk` is this server's own key: the server's answers could be sent back to it as requests.
    pub fn agree(&self, epk: &Epk) -> Result<BoxKey, Inadmissible> {
        if epk.as_bytes() == self.public.as_bytes() {
            return Err(Inadmissible);
        }
        let shared = agreement::multiply(&self.secret, epk.as_bytes());
        BoxKey::of_shared(&shared).ok_or(Inadmissible)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([redacted])")
    }
}
