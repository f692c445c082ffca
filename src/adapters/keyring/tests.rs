//! The ring over real files, and the boxes between it and a client.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::domain::envelope::EnvelopeVersion;

const HOUR: Duration = Duration::from_secs(3600);
const START: Moment = Moment(0);

fn secret(seed: u8) -> SecretKey {
    SecretKey::take(&mut [seed; KEY_BYTES])
}

fn kid(seed: u8) -> Kid {
    ring::kid_of(secret(seed).public_key())
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn write_key(path: &Path, seed: u8) {
    write(path, &secret(seed).to_base64());
}

fn given(seed: u8) -> Sources {
    Sources::new(None, Vec::new(), None, Some(secret(seed).to_base64())).unwrap()
}

fn keyring(seed: u8) -> Keyring {
    Keyring::open(given(seed), HOUR, START).unwrap()
}

/// A ring that reads its key from a file of its own.
fn filed(seed: u8) -> (TempDir, Keyring) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    write_key(&path, seed);
    let sources = Sources::new(Some(path), Vec::new(), None, None).unwrap();
    (directory, Keyring::open(sources, HOUR, START).unwrap())
}

#[test]
fn a_pipe_in_the_place_of_a_key_is_refused_and_not_waited_for() {
    let (directory, keyring) = filed(1);
    let path = directory.path().join("key");
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(keyring.reload(START)));
    let refused = heard.recv_timeout(Duration::from_secs(20)).expect("an answer").unwrap_err();
    assert!(refused.contains("it is not a small regular file"), "{refused}");
}

/// What a client with the secret key `client` seals to the server's key `server`.
fn sealed(client: u8, server: u8, text: &[u8], kid: Option<Kid>) -> Envelope {
    let (client, nonce) = (secret(client), [7; 24]);
    let server = Epk::admit(*secret(server).public_key().as_bytes()).unwrap();
    let mut ciphertext = [&[0; TAG_BYTES], text].concat();
    client.agree(&server).unwrap().seal(&Nonce::new(nonce), &mut ciphertext).unwrap();
    Envelope { version: EnvelopeVersion::V1, epk: *client.public_key().as_bytes(), nonce, ciphertext, kid }
}

fn kids(keyring: &Keyring) -> Vec<Kid> {
    keyring.keys().iter().map(|key| key.kid).collect()
}

#[test]
fn a_request_opens_in_place_and_its_answer_is_sealed_with_one_multiplication() {
    let keyring = keyring(1);
    let envelope = sealed(50, 1, b"a text", None);
    let (at, epk) = (envelope.ciphertext.as_ptr(), envelope.epk);
    let open = keyring.open(envelope).unwrap();
    assert_eq!((open.plaintext.bytes(), open.plaintext.bytes().as_ptr(), open.kid), (&b"a text"[..], at, kid(1)));
    assert_eq!(keyring.state().derived.len(), 1);
    let to = ReplyAddress { version: EnvelopeVersion::V1, kid: kid(1), epk, request_id: "r".into() };
    let mut part = keyring.seal(&to, b"an answer".to_vec()).unwrap();
    assert_eq!(keyring.state().derived.len(), 1);
    let server = Epk::admit(*secret(1).public_key().as_bytes()).unwrap();
    let opened = secret(50).agree(&server).unwrap();
    assert_eq!(opened.open(&Nonce::new(part.nonce), &mut part.ciphertext), Ok(&mut b"an answer".to_vec()[..]));
    assert_ne!(keyring.seal(&to, b"an answer".to_vec()).unwrap().nonce, part.nonce);
}

#[test]
fn the_tag_tells_boxes_apart_and_knows_the_same_one_again() {
    let keyring = keyring(1);
    let tag = |client, text: &[u8]| keyring.open(sealed(client, 1, text, None)).unwrap().tag;
    assert_eq!(tag(50, b"a"), tag(50, b"b"), "the nonce is the same: a box has one text only");
    assert_ne!(tag(50, b"a"), tag(51, b"a"));
}

#[test]
fn whatever_does_not_open_is_one_error_and_leaves_no_key_behind() {
    let keyring = keyring(1);
    let good = || sealed(50, 1, b"a text", None);
    let mut wrong: Vec<Envelope> = Vec::new();
    wrong.push(sealed(50, 2, b"a text", None));
    wrong.push(Envelope { nonce: [8; 24], ..good() });
    wrong.push(Envelope { ciphertext: vec![0; 16], ..good() });
    for at in [0, 15, 16, 21] {
        let mut envelope = good();
        envelope.ciphertext[at] ^= 1;
        wrong.push(envelope);
    }
    let mut high = good();
    high.epk[31] |= 0x80;
    wrong.push(high);
    wrong.push(Envelope { epk: *secret(1).public_key().as_bytes(), ..good() });
    wrong.extend(
        [
            [0; 32],
            {
                let mut one = [0; 32];
                one[0] = 1;
                one
            },
            [0xff; 32],
        ]
        .map(|epk| Envelope { epk, ..good() }),
    );
    for envelope in wrong {
        assert_eq!(keyring.open(envelope).err(), Some(VaultError::Unopenable));
    }
    assert_eq!(keyring.state().derived.len(), 0);
}

#[test]
fn what_the_stand_in_opens_is_not_taken() {
    // Everybody can compute the box key between the server and the stand-in: it is made of the server's public key.
    let keyring = keyring(1);
    let known = secret(1).agree(&Epk::admit(STAND_IN).unwrap()).unwrap();
    let mut ciphertext = vec![0; 40];
    known.seal(&Nonce::new([7; 24]), &mut ciphertext).unwrap();
    let envelope = Envelope { epk: [0; 32], ciphertext, ..sealed(50, 1, b"", None) };
    assert_eq!(keyring.open(envelope).err(), Some(VaultError::Unopenable));
}

#[test]
fn an_unknown_key_and_an_empty_ring_say_so() {
    let keyring = keyring(1);
    assert_eq!(keyring.open(sealed(50, 2, b"x", Some(kid(2)))).err(), Some(VaultError::UnknownKey(kid(2))));
    assert!(keyring.open(sealed(50, 1, b"x", Some(kid(1)))).is_ok());
    let empty = Keyring::open(Sources::default(), HOUR, START).unwrap();
    assert_eq!(empty.open(sealed(50, 1, b"x", None)).err(), Some(VaultError::NoKey));
    assert!(empty.keys().is_empty());
}

#[test]
fn a_rotation_keeps_the_former_key_for_the_overlap_and_then_destroys_it() {
    let (directory, keyring) = filed(1);
    let before = sealed(50, 1, b"before", None);
    let to = ReplyAddress { version: EnvelopeVersion::V1, kid: kid(1), epk: before.epk, request_id: "r".into() };
    keyring.open(before.clone()).unwrap();
    write_key(&directory.path().join("key"), 2);
    let keys = keyring.reload(Moment(1000)).unwrap();
    assert_eq!((kids(&keyring), keys[0].current, keys[1].until), (vec![kid(2), kid(1)], true, Some(Moment(3_601_000))));
    assert_eq!(keyring.open(before.clone()).unwrap().kid, kid(1));
    assert_eq!(keyring.open(sealed(50, 2, b"after", None)).unwrap().kid, kid(2));
    // A second reload of the same key prolongs nothing.
    keyring.reload(Moment(5000)).unwrap();
    assert_eq!(keyring.retire(Moment(3_600_999)), 0);
    assert!(keyring.seal(&to, vec![1]).is_ok());
    assert_eq!(keyring.retire(Moment(3_601_000)), 1);
    assert_eq!(keyring.open(before).err(), Some(VaultError::Unopenable));
    assert_eq!(keyring.seal(&to, vec![1]).err(), Some(VaultError::UnknownKey(kid(1))));
    assert_eq!((kids(&keyring), keyring.state().derived.len()), (vec![kid(2)], 1));
}

#[test]
fn a_former_key_from_a_file_is_kept_for_the_overlap_once() {
    let directory = tempfile::tempdir().unwrap();
    let former = directory.path().join("former");
    write_key(&former, 2);
    let sources = Sources::new(None, vec![former], None, Some(secret(1).to_base64())).unwrap();
    let keyring = Keyring::open(sources, HOUR, START).unwrap();
    assert_eq!(keyring.open(sealed(50, 2, b"x", None)).unwrap().kid, kid(2));
    assert_eq!(keyring.retire(Moment(3_600_000)), 1);
    keyring.reload(Moment(3_600_001)).unwrap();
    assert_eq!(kids(&keyring), [kid(1)], "a key that was destroyed does not come back");
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let (directory, keyring) = filed(1);
    let path = directory.path().join("key");
    let mut said = Vec::new();
    write(&path, "HUNTER2HUNTER2");
    said.push(keyring.reload(START).unwrap_err());
    write_key(&path, 2);
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    said.push(keyring.reload(START).unwrap_err());
    std::fs::remove_file(&path).unwrap();
    said.push(keyring.reload(START).unwrap_err());
    for (said, expected) in said.iter().zip(["holds no private key", "chmod o=", "cannot read"]) {
        assert!(said.contains(expected) && !said.contains("HUNTER2"), "{said}");
    }
    assert_eq!(kids(&keyring), [kid(1)]);
}

#[test]
fn a_key_comes_from_a_file_a_credential_or_the_given_value() {
    let directory = tempfile::tempdir().unwrap();
    let (file, credential) = (directory.path().join("file"), directory.path().join("worker-private-key"));
    let first = |sources: Result<Sources, KeyringError>| Keyring::open(sources?, HOUR, START).map(|ring| kids(&ring));
    let here = || Some(directory.path().to_owned());
    let text = |seed| Some(secret(seed).to_base64());
    assert_eq!(first(Sources::new(None, vec![], here(), None)).unwrap(), []);
    // A credential's directory is closed to others; its mode does not matter.
    write_key(&credential, 3);
    std::fs::set_permissions(&credential, Permissions::from_mode(0o444)).unwrap();
    assert_eq!(first(Sources::new(None, vec![], here(), None)).unwrap(), [kid(3)]);
    assert_eq!(first(Sources::new(None, vec![], here(), text(2))).unwrap(), [kid(2)]);
    let keygen = format!("SERVER_PUBLIC_KEY_B64=x\nWORKER_PRIVATE_KEY_B64={}\n", *secret(1).to_base64());
    write(&file, &keygen);
    assert_eq!(first(Sources::new(Some(file.clone()), vec![], here(), None)).unwrap(), [kid(1)]);
    assert_eq!(first(Sources::new(Some(file.clone()), vec![], None, text(1))).unwrap(), [kid(1)]);
    assert!(matches!(first(Sources::new(Some(file), vec![], None, text(2))), Err(KeyringError::TwoKeys)));
    for wrong in ["AAAA", "x", "WORKER_PRIVATE_KEY_B64="] {
        let error = first(Sources::new(None, vec![], None, Some(zeroize::Zeroizing::new(wrong.into())))).unwrap_err();
        assert!(matches!(error, KeyringError::NotAKey { .. }), "{error}");
    }
}

#[test]
fn former_keys_and_box_keys_are_bounded() {
    let (directory, keyring) = filed(1);
    for seed in 2..20 {
        write_key(&directory.path().join("key"), seed);
        keyring.reload(Moment(u64::from(seed))).unwrap();
    }
    assert_eq!(kids(&keyring), (11..20).rev().map(kid).collect::<Vec<_>>());
    let mut derived = Derived::default();
    let box_key = || Arc::new(secret(1).agree(&Epk::admit(STAND_IN).unwrap()).unwrap());
    for number in 0..300_u16 {
        let mut epk = [0; 32];
        epk[..2].copy_from_slice(&number.to_be_bytes());
        derived.keep(kid(1), epk, box_key());
    }
    assert_eq!(derived.len(), 256);
    (0..13).for_each(|_| derived.age());
    assert_eq!(derived.len(), 0);
}
