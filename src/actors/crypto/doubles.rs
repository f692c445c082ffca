//! A log in memory that can fail, a vault that can wait and panic, and the client at the other end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::adapters::replay_contract;
use crate::domain::base64;
use crate::domain::envelope::{Envelope, Kid, ReplayTag};
use crate::domain::job::{ReplyAddress, SealedPart};
use crate::domain::replay::Seen;
use crate::domain::time::{Moment, WallTime};
use crate::ports::replay::{ReplayError, ReplayLog};
use crate::ports::vault::{KeyInfo, Unsealed, Vault, VaultError};
use crate::sealed::{Epk, KEY_BYTES, Nonce, SecretKey, TAG_BYTES};

/// Rows that a test keeps over an actor's lives.
#[derive(Default)]
pub(super) struct LogDouble {
    pub(super) rows: Mutex<BTreeMap<ReplayTag, Seen>>,
    pub(super) down: AtomicBool,
}

impl LogDouble {
    fn answer(&self) -> Result<(), ReplayError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(ReplayError { doing: "reach", source: "it is down".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl ReplayLog for LogDouble {
    async fn load(&self) -> Result<Vec<Seen>, ReplayError> {
        self.answer()?;
        Ok(self.rows.lock().unwrap().values().cloned().collect())
    }

    async fn remember(&self, seen: &Seen) -> Result<(), ReplayError> {
        self.answer()?;
        self.rows.lock().unwrap().entry(seen.tag).or_insert_with(|| seen.clone());
        Ok(())
    }

    async fn forget(&self, now: WallTime, ring: &[Kid]) -> Result<u64, ReplayError> {
        self.answer()?;
        let mut rows = self.rows.lock().unwrap();
        let before = rows.len();
        let dead = |seen: &Seen| seen.until.is_none() && !ring.is_empty() && !ring.contains(&seen.kid);
        rows.retain(|_, seen| seen.until.is_none_or(|until| until >= now) && !dead(seen));
        Ok((before - rows.len()) as u64)
    }
}

/// What the vault does before it opens the next box.
pub(super) const OPENS: u8 = 0;
pub(super) const PANICS: u8 = 1;

/// A real vault, with a gate in front of boxes of megabytes.
pub(super) struct VaultDouble {
    pub(super) inner: Arc<dyn Vault>,
    pub(super) mood: AtomicU8,
    gate: Mutex<Option<Receiver<()>>>,
}

impl VaultDouble {
    pub(super) fn new(inner: Arc<dyn Vault>) -> Self {
        Self { inner, mood: AtomicU8::new(OPENS), gate: Mutex::new(None) }
    }

    /// From now on one large box waits until the sender is used, or dropped.
    pub(super) fn shut(&self) -> Sender<()> {
        let (open, gate) = channel();
        *self.gate.lock().unwrap() = Some(gate);
        open
    }
}

impl Vault for VaultDouble {
    fn keys(&self) -> Vec<KeyInfo> {
        self.inner.keys()
    }

    fn open(&self, envelope: Envelope) -> Result<Unsealed, VaultError> {
        assert!(self.mood.load(Ordering::SeqCst) != PANICS, "told to");
        if envelope.ciphertext.len() > 1 << 20 {
            let gate = self.gate.lock().unwrap().take();
            gate.map(|gate| gate.recv());
        }
        self.inner.open(envelope)
    }

    fn seal(&self, to: &ReplyAddress, plaintext: Vec<u8>) -> Result<SealedPart, VaultError> {
        assert!(self.mood.load(Ordering::SeqCst) != PANICS, "told to");
        self.inner.seal(to, plaintext)
    }

    fn reload(&self, now: Moment) -> Result<Vec<KeyInfo>, String> {
        self.inner.reload(now)
    }

    fn retire(&self, now: Moment) -> usize {
        self.inner.retire(now)
    }
}

/// The other end of the boxes.
pub(super) struct Client {
    secret: SecretKey,
    server: Epk,
    kid: Kid,
}

impl Client {
    /// A client that seals to the server whose secret key is `server` repeated.
    pub(super) fn of(server: u8) -> Self {
        let server = SecretKey::take(&mut [server; KEY_BYTES]).public_key();
        let secret = SecretKey::take(&mut [50; KEY_BYTES]);
        Self { secret, server: Epk::admit(*server.as_bytes()).unwrap(), kid: server.kid() }
    }

    /// A v1 input with `text` in its box.
    pub(super) fn v1(&self, nonce: u8, text: &str) -> Value {
        let mut ciphertext = [&[0; TAG_BYTES], text.as_bytes()].concat();
        self.secret.agree(&self.server).unwrap().seal(&Nonce::new([nonce; 24]), &mut ciphertext).unwrap();
        json!({
            "encrypted": true,
            "epk": base64::encode(self.secret.public_key().as_bytes()),
            "nonce": base64::encode(&[nonce; 24]),
            "ciphertext": base64::encode(&ciphertext),
        })
    }

    /// A v2 input around `workflow`.
    pub(super) fn v2(&self, nonce: u8, ts: i64, workflow: &Value) -> Value {
        let text = json!({"v": 2, "type": "request", "id": "r-1", "ts": ts, "workflow": workflow}).to_string();
        let mut input = self.v1(nonce, &text);
        input["v"] = json!(2);
        input["kid"] = json!(self.kid.to_string());
        input
    }

    /// What the server sealed to this client.
    pub(super) fn open(&self, mut part: SealedPart) -> Vec<u8> {
        let key = self.secret.agree(&self.server).unwrap();
        key.open(&Nonce::new(part.nonce), &mut part.ciphertext).unwrap().to_vec()
    }
}

/// A prompt of one node, with a text in it.
pub(super) fn prompt(text: &str) -> Value {
    json!({"1": {"class_type": "SaveImage", "inputs": {"text": text}}})
}

#[tokio::test]
async fn the_log_in_memory_holds_the_contract_too() {
    replay_contract::hold(async || LogDouble::default()).await;
}
