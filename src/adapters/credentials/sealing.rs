//! One secret as bytes that nobody can read or change without the key: NaCl's `secretbox` around name, hosts and value.
//!
//! ```text
//!   1 (version) | nonce, 24 bytes | tag, 16 bytes | {"name", "hosts", "value"} as JSON
//! ```

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Key;
use crate::domain::credential::Credential;
use crate::domain::secret::Secret;
use crate::ports::credentials::SealedCredential;
use crate::sealed::{BoxKey, NONCE_BYTES, Nonce, TAG_BYTES};

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Text<'a> {
    name: &'a str,
    hosts: Vec<String>,
    /// Quotes in it are escaped in JSON.
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// None where the kernel has no random numbers to give; a value that was taken is text, always.
pub(super) fn seal(key: &Key, credential: &Credential) -> Option<Vec<u8>> {
    let hosts = credential.hosts.iter().map(ToString::to_string).collect();
    let text = Text { name: credential.name.as_str(), hosts, value: credential.value.text()?.into() };
    let nonce = Nonce::random().ok()?;
    let mut boxed = vec![0; TAG_BYTES];
    serde_json::to_writer(&mut boxed, &text).ok()?;
    BoxKey::of_secret(key).seal(&nonce, &mut boxed).ok()?;
    Some([&[VERSION], nonce.as_bytes().as_slice(), &boxed].concat())
}

/// None where it was not sealed with this key, or is not what the record beside it says.
pub(super) fn unseal(key: &Key, record: &SealedCredential) -> Option<Credential> {
    let (version, rest) = record.sealed.split_first()?;
    let (nonce, boxed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let mut boxed = boxed.to_vec();
    let text = BoxKey::of_secret(key).open(&Nonce::new(*nonce), &mut boxed).ok().filter(|_| *version == VERSION)?;
    let Text { name, hosts, value } = serde_json::from_slice(text).ok()?;
    let credential = Credential::new(name, &hosts, Secret::from(value.into_owned())).ok()?;
    let as_recorded = credential.name == record.facts.name && credential.hosts == record.facts.hosts;
    as_recorded.then_some(credential)
}
