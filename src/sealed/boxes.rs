//! Boxes: XSalsa20 and Poly1305 as NaCl puts them together, in place. The tag is in front, the nonce is not.

use std::fmt;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::cipher::consts::U10;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::stream::Stream;
use crate::domain::envelope::ReplayTag;

/// How long a nonce is.
pub const NONCE_BYTES: usize = 24;

/// How long the tag in front of a box is: the least length of a box.
pub const TAG_BYTES: usize = 16;

/// The box does not open. There is one such answer, whatever the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid ciphertext")]
pub struct Unopened;

/// The buffer has no room for the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a buffer to be sealed must begin with 16 bytes for the tag")]
pub struct NoRoom;

/// The number that is used once with a [`BoxKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// The nonce with these bytes.
    pub fn new(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// A nonce of the kernel's random numbers. 192 bits do not meet twice.
    ///
    /// # Errors
    /// The kernel has none to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; NONCE_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The nonce's bytes.
    pub fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }
}

/// The key that the boxes between one server's key and one client's have, in both directions.
///
/// Since there is one key for both, a box says nothing about who made it: what is inside must say which way it goes.
pub struct BoxKey(Box<Zeroizing<[u8; 32]>>);

impl BoxKey {
    /// NaCl's `crypto_box_beforenm` after the multiplication; nothing for the zero that points of small order lead to.
    pub(super) fn of_shared(shared: &[u8; 32]) -> Option<Self> {
        let is_zero: bool = shared.ct_eq(&[0; 32]).into();
        if is_zero {
            return None;
        }
        let mut derived = salsa20::hsalsa::<U10>(shared.into(), &[0; 16].into());
        let mut key = Self(Box::default());
        key.0.copy_from_slice(&derived);
        derived.zeroize();
        Some(key)
    }

    /// The key that is shared by one with itself: NaCl's `secretbox`.
    pub fn of_secret(key: &[u8; 32]) -> Self {
        let mut copy = Self(Box::default());
        copy.0.copy_from_slice(key);
        copy
    }

    /// Opens `sealed`, which is a tag and what it guards, where it is: the text stands behind the tag afterwards.
    ///
    /// # Errors
    /// It is shorter than a tag, or was not made with this key and this nonce. It is as it was then.
    pub fn open<'a>(&self, nonce: &Nonce, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Unopened> {
        let (tag, text) = sealed.split_at_mut_checked(TAG_BYTES).ok_or(Unopened)?;
        let stream = self.stream(nonce);
        let is_right: bool = tag_of(&stream, text).ct_eq(tag).into();
        if !is_right {
            return Err(Unopened);
        }
        stream.apply(text);
        Ok(text)
    }

    /// Seals what stands in `buffer` behind its first 16 bytes, where it is; the tag is written to those.
    ///
    /// # Errors
    /// There are no 16 bytes for the tag. Nothing was changed then.
    pub fn seal(&self, nonce: &Nonce, buffer: &mut [u8]) -> Result<(), NoRoom> {
        let (tag, text) = buffer.split_at_mut_checked(TAG_BYTES).ok_or(NoRoom)?;
        let stream = self.stream(nonce);
        stream.apply(text);
        tag.copy_from_slice(&tag_of(&stream, text));
        Ok(())
    }

    /// What a box with this key and `nonce` is remembered by.
    pub fn replay_tag(&self, nonce: &Nonce) -> ReplayTag {
        let hash = Sha256::new().chain_update(b"cloister-replay").chain_update(self.0.as_slice()).chain_update(nonce.0);
        ReplayTag(hash.finalize().into())
    }

    /// The key itself, for comparison with published ones.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn stream(&self, nonce: &Nonce) -> Stream {
        Stream::new(&self.0, &nonce.0)
    }
}

/// The tag of `sealed`: what Poly1305 makes of it with the key at the head of the stream.
fn tag_of(stream: &Stream, sealed: &[u8]) -> [u8; TAG_BYTES] {
    Poly1305::new(stream.tag_key().as_slice().into()).compute_unpadded(sealed).into()
}

impl fmt::Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKey([redacted])")
    }
}
