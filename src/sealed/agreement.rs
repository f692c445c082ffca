//! X25519, as RFC 7748 and libsodium have it: the fast one where the processor can, the portable one elsewhere.

use curve25519_dalek::MontgomeryPoint;
use zeroize::{Zeroize as _, Zeroizing};

use super::keys::KEY_BYTES;

/// The point `public` multiplied by the clamped `secret`; zero for a point of small order.
///
/// The clamped scalar is not reduced modulo the group's order, as crypto_box 0.9 does it: off the prime-order subgroup
/// that is another number, and libsodium could not open the answer.
pub(super) fn multiply(secret: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Zeroizing<[u8; KEY_BYTES]> {
    if assembly::runs_here() { assembly::multiply(secret, public) } else { multiply_portably(secret, public) }
}

pub(super) fn multiply_portably(secret: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut shared = MontgomeryPoint(*public).mul_clamped(*secret);
    let copy = Zeroizing::new(shared.0);
    shared.zeroize();
    copy
}

/// graviola's: the formally verified assembly of s2n-bignum, for processors of about 2015 and later.
mod assembly {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use zeroize::Zeroizing;

    use super::KEY_BYTES;

    pub(super) fn runs_here() -> bool {
        graviola::util::is_cpu_supported()
    }

    pub(super) fn multiply(secret: &[u8; KEY_BYTES], public: &[u8; KEY_BYTES]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut shared = Zeroizing::new([0; KEY_BYTES]);
        // Its only failure is the zero that a point of small order leads to.
        if let Ok(product) = StaticPrivateKey::from_array(secret).diffie_hellman(&PublicKey::from_array(public)) {
            shared.copy_from_slice(&product.0);
        }
        shared
    }
}
