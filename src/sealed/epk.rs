//! Which public keys of clients are admitted.

use std::fmt;

use super::keys::KEY_BYTES;

/// The client's key is not admitted. It does not say why; the answer to the client is the same for each reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not admitted")]
pub struct Inadmissible;

/// The public key that a client made for one request, admitted.
///
/// It has one spelling (below 2^255 - 19, bit 255 clear), and the secret that it leads to is not known beforehand (its
/// order is not small). Points of the twist are admitted, as libsodium does it: X25519 is made for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epk([u8; KEY_BYTES]);

/// The u-coordinates of all points of small order on the curve and on its twist, below 2^255 - 19: 0, 1, -1 and the two
/// of order 8 (Cremers and Jackson, "Prime, Order Please!", 2019; the same as in libsodium). Little-endian.
const SMALL_ORDER: [[u8; KEY_BYTES]; 5] = [
    [0; KEY_BYTES],
    one(),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    below_prime(0xec),
];

/// 2^255 - 19, little-endian.
const PRIME: [u8; KEY_BYTES] = below_prime(0xed);

const fn one() -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[0] = 1;
    bytes
}

/// The number that differs from the prime in its lowest byte only.
const fn below_prime(lowest: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [0xff; KEY_BYTES];
    bytes[0] = lowest;
    bytes[KEY_BYTES - 1] = 0x7f;
    bytes
}

impl Epk {
    /// Admits `bytes`, or not. A public key is no secret: this takes as long as it takes.
    ///
    /// # Errors
    /// Bit 255 is set, the number is 2^255 - 19 or more, or the point's order is small.
    pub fn admit(bytes: [u8; KEY_BYTES]) -> Result<Self, Inadmissible> {
        let canonical = bytes.iter().rev().lt(PRIME.iter().rev());
        if canonical && !SMALL_ORDER.contains(&bytes) { Ok(Self(bytes)) } else { Err(Inadmissible) }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Epk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epk(…)")
    }
}
