//! Published vectors, the other implementation, and what must not open.

use super::*;

fn secret(mut bytes: [u8; KEY_BYTES]) -> SecretKey {
    SecretKey::take(&mut bytes)
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(digit)
}

/// The keys of "Cryptography in NaCl" (Bernstein, 2009), sections 2 and 4.
const ALICE_SECRET: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const ALICE_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
const BOB_SECRET: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
const BOB_PUBLIC: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
/// What both of them derive, first by multiplication, then by HSalsa20.
const FIRST_KEY: &str = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389";

fn papers_key() -> BoxKey {
    secret(hex(BOB_SECRET)).agree(&Epk::admit(hex(ALICE_PUBLIC)).unwrap()).unwrap()
}

#[test]
fn the_papers_keys_are_derived() {
    assert_eq!(secret(hex(ALICE_SECRET)).public_key().as_bytes(), &hex::<32>(ALICE_PUBLIC));
    assert_eq!(secret(hex(BOB_SECRET)).public_key().as_bytes(), &hex::<32>(BOB_PUBLIC));
    assert_eq!(papers_key().bytes(), &hex::<32>(FIRST_KEY));
}
