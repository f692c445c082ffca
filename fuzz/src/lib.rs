//! What is fuzzed: the way of an envelope's three fields into a box and back, held to what must be true of any input.
//!
//! The daemon is a program without a library, so its leaf layers are included here by path.

// Each of them has more than the target needs.
#[allow(dead_code, unused_imports)]
#[path = "../../src/domain"]
mod domain {
    #[path = "base64.rs"]
    pub mod base64;
    /// The names of the wire alone: the rest of the envelope is the daemon's.
    #[path = "envelope/names.rs"]
    pub mod envelope;
}
#[allow(dead_code, unused_imports)]
#[path = "../../src/sealed/mod.rs"]
mod sealed;
#[allow(dead_code, unused_imports)]
#[path = "../../src/sys"]
mod sys {
    #[path = "salsa.rs"]
    pub mod salsa;
    #[path = "secret.rs"]
    pub mod secret;
}

use domain::base64;
use sealed::{Epk, NONCE_BYTES, Nonce, SecretKey, TAG_BYTES};

/// Plays one input: `epk`, `nonce` and `ciphertext` as texts, one on each line; else, whatever it is, as the text of a box.
pub fn envelope(input: &[u8]) {
    let Ok(server) = SecretKey::from_base64(&base64::encode(&[0x42; 32])) else { return };
    if let Some((epk, nonce, mut sealed)) = fields(input)
        && let Ok(epk) = Epk::admit(epk)
        && let Ok(key) = server.agree(&epk)
    {
        let before = sealed.clone();
        match key.open(&nonce, &mut sealed) {
            Ok(_) => assert!(key.seal(&nonce, &mut sealed).is_ok() && sealed == before, "one text, two boxes"),
            Err(_) => assert!(sealed == before, "a box that does not open is left as it was"),
        }
    }
    let Ok(client) = SecretKey::from_base64(&base64::encode(&[0x17; 32])) else { return };
    let (Ok(epk), Ok(other)) =
        (Epk::admit(*client.public_key().as_bytes()), Epk::admit(*server.public_key().as_bytes()))
    else {
        unreachable!("both keys are ordinary");
    };
    let (Ok(ours), Ok(theirs)) = (server.agree(&epk), client.agree(&other)) else {
        unreachable!("both keys are ordinary");
    };
    let nonce = Nonce::new([7; NONCE_BYTES]);
    let mut buffer = [&[0; TAG_BYTES][..], input].concat();
    assert!(ours.seal(&nonce, &mut buffer).is_ok());
    assert!(theirs.open(&nonce, &mut buffer).is_ok_and(|text| text == input), "what was sealed opens");
}

fn fields(input: &[u8]) -> Option<([u8; 32], Nonce, Vec<u8>)> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(3, '\n');
    let mut decoded = || {
        let line = lines.next()?;
        let bytes = base64::decode(line).ok()?;
        assert_eq!(base64::encode(&bytes), line, "two spellings of the same bytes");
        Some(bytes)
    };
    let (epk, nonce, sealed) = (decoded()?, decoded()?, decoded()?);
    Some((epk.try_into().ok()?, Nonce::new(nonce.try_into().ok()?), sealed))
}
