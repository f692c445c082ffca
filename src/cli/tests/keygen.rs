//! Keys that are made, written and shown.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::played::Setting;
use crate::cli::exit;
use crate::sealed::{PublicKey, SecretKey};

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

#[test]
fn a_pair_is_printed_as_the_variables_of_both_sides() {
    let did = Setting::default().run(&["keygen"]);
    assert_eq!((did.code, did.err.as_str()), (exit::OK, ""));
    let private = SecretKey::from_base64(value(&did.out, "WORKER_PRIVATE_KEY_B64")).unwrap();
    let public = PublicKey::from_base64(value(&did.out, "SERVER_PUBLIC_KEY_B64")).unwrap();
    assert_eq!(private.public_key(), public);
    assert!(did.out.starts_with(&format!("# kid {}\n", public.kid())), "{}", did.out);
    assert_ne!(Setting::default().run(&["keygen"]).out, did.out);

    // What was printed can be read again, and shows no private key.
    let again = Setting { input: &did.out, ..Setting::default() }.run(&["keygen", "--from", "-"]);
    assert_eq!(value(&again.out, "SERVER_PUBLIC_KEY_B64"), public.to_base64());
    assert!(!again.out.contains("PRIVATE"), "{}", again.out);
}

#[test]
fn a_key_in_a_file_is_its_owners_alone_and_not_overwritten_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.key");
    let name = path.to_str().unwrap();
    let made = Setting::default().run(&["keygen", "--out", name]);
    assert!(made.code == exit::OK && !made.out.contains("PRIVATE"), "{made:?}");
    let held = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        SecretKey::from_base64(held.trim()).unwrap().public_key().to_base64(),
        value(&made.out, "SERVER_PUBLIC_KEY_B64")
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Setting::default().run(&["keygen", "--from", name]).out, made.out);

    let refused = Setting::default().run(&["keygen", "--out", name]);
    assert!(refused.code == exit::FAILED && refused.err.contains("--force"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), held);

    // A file that others could read becomes one that they cannot.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let replaced = Setting::default().run(&["keygen", "--out", name, "--force"]);
    assert!(replaced.code == exit::OK && replaced.out != made.out, "{replaced:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn json_has_the_same_and_no_private_key_that_went_elsewhere() {
    let shown: Value = serde_json::from_str(&Setting::default().run(&["keygen", "--json"]).out).unwrap();
    let private = SecretKey::from_base64(shown["private_key"].as_str().unwrap()).unwrap();
    assert_eq!(shown["public_key"], private.public_key().to_base64());
    assert_eq!(shown["kid"], private.public_key().kid().to_string());
    let input = private.to_base64();
    let again = Setting { input: &input, ..Setting::default() }.run(&["keygen", "--from", "-", "--json"]);
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert!(again["kid"] == shown["kid"] && again.get("private_key").is_none());
}

#[test]
fn what_is_no_key_is_refused_without_being_quoted() {
    let text = "WORKER_PRIVATE_KEY_B64=c2VjcmV0c2VjcmV0";
    let did = Setting { input: text, ..Setting::default() }.run(&["keygen", "--from", "-"]);
    assert!(did.code == exit::FAILED && did.err.contains("stdin holds no private key"), "{did:?}");
    assert!(!did.err.contains("c2Vj") && did.out.is_empty(), "{did:?}");
    let absent = Setting::default().run(&["keygen", "--from", "/nonexistent/key"]);
    assert!(absent.err.contains("cannot read /nonexistent/key"), "{absent:?}");
}
