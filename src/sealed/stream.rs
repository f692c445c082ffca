//! XSalsa20's stream and Poly1305's key, as NaCl's `secretbox` takes both from one stream.
//!
//! The crate `salsa20` computes one block at a time. What is longer than eight blocks goes through `sys::salsa`, eight at a
//! time, where the processor has the vectors for it.

use salsa20::Salsa20;
use salsa20::cipher::consts::U10;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::boxes::NONCE_BYTES;
use crate::sys::salsa::{self, SPAN};

/// What Salsa20 gives at a time, in bytes.
const BLOCK: usize = 64;

/// The stream of one key and one nonce. Its first 32 bytes are the key of the tag, the text begins behind them.
pub(super) struct Stream {
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; 8],
}

impl Stream {
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> Self {
        let (prefix, suffix) = nonce.split_at(16);
        let mut derived = salsa20::hsalsa::<U10>(key.into(), prefix.into());
        let mut stream = Self { key: Zeroizing::default(), nonce: [0; 8] };
        stream.key.copy_from_slice(&derived);
        stream.nonce.copy_from_slice(suffix);
        derived.zeroize();
        stream
    }

    /// The key that Poly1305 gets.
    pub(super) fn tag_key(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        self.narrow().apply_keystream(key.as_mut_slice());
        key
    }

    /// Adds the stream to `text`: what was plain is sealed, what was sealed is plain.
    pub(super) fn apply(&self, text: &mut [u8]) {
        let (head, rest) = text.split_at_mut(text.len().min(BLOCK - 32));
        let mut narrow = self.narrow();
        narrow.seek(32_u64);
        narrow.apply_keystream(head);
        let (spans, tail) = rest.as_chunks_mut::<SPAN>();
        if salsa::add_stream(&self.key, self.nonce, 1, spans) {
            narrow.seek((BLOCK + spans.len() * SPAN) as u64);
        } else {
            spans.iter_mut().for_each(|span| narrow.apply_keystream(span));
        }
        narrow.apply_keystream(tail);
    }

    fn narrow(&self) -> Salsa20 {
        Salsa20::new(self.key.as_slice().into(), (&self.nonce).into())
    }
}
