//! A client's side of the envelopes, on the published `crypto_box` alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A worker's pair of keys.
#[derive(Clone)]
pub struct Keys(SecretKey);

/// A sealed request, and what opens its answer.
pub struct Sealed {
    /// The whole `input`.
    pub input: Value,
    /// The id inside the box; empty for v1, where the job's own counts.
    pub id: String,
    boxed: SalsaBox,
}

impl Keys {
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        Self(SecretKey::from(bytes))
    }

    pub fn private_base64(&self) -> String {
        STANDARD.encode(self.0.to_bytes())
    }

    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.0.public_key().as_bytes())
    }

    /// As requests and answers name it.
    pub fn kid(&self) -> String {
        kid(&self.0.public_key())
    }

    /// Seals a v2 request: `fields` are what stands beside its head, `workflow` at least.
    pub fn v2(&self, fields: &Value) -> Sealed {
        self.v2_at(fields, jiff::Timestamp::now().as_second())
    }

    /// Seals a v2 request at another time.
    pub fn v2_at(&self, fields: &Value, ts: i64) -> Sealed {
        let id = Uuid::new_v4().to_string();
        let mut inner = json!({"v": 2, "type": "request", "id": id, "ts": ts});
        for (name, value) in fields.as_object().into_iter().flatten() {
            inner[name] = value.clone();
        }
        let mut sealed = self.seal(&inner, id);
        sealed.input["v"] = json!(2);
        sealed.input["kid"] = json!(self.kid());
        sealed
    }

    /// Seals a v2 request for this workflow.
    pub fn workflow(&self, workflow: &Value) -> Sealed {
        self.v2(&json!({"workflow": workflow}))
    }

    /// Seals a v1 request: the bare prompt.
    pub fn v1(&self, workflow: &Value) -> Sealed {
        self.seal(workflow, String::new())
    }

    fn seal(&self, inner: &Value, id: String) -> Sealed {
        let one_time = Self::generate().0;
        let boxed = SalsaBox::new(&self.0.public_key(), &one_time);
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).unwrap();
        let ciphertext = boxed.encrypt(&nonce.into(), inner.to_string().as_bytes()).unwrap();
        let input = json!({
            "encrypted": true,
            "epk": STANDARD.encode(one_time.public_key().as_bytes()),
            "nonce": STANDARD.encode(nonce),
            "ciphertext": STANDARD.encode(ciphertext),
        });
        Sealed { input, id, boxed }
    }
}

impl Sealed {
    /// Opens what was sealed to this request: an answer, its sealed part, or an update.
    #[track_caller]
    pub fn open(&self, sealed: &Value) -> Value {
        assert_eq!((&sealed["encrypted"], &sealed["v"]), (&json!(true), &json!(2)), "not sealed: {sealed}");
        self.open_box(sealed, &bytes(&sealed["ciphertext"]))
    }

    /// Opens a ciphertext that lies elsewhere than in the answer.
    #[track_caller]
    pub fn open_box(&self, sealed: &Value, ciphertext: &[u8]) -> Value {
        let nonce: [u8; 24] = bytes(&sealed["nonce"]).try_into().unwrap();
        let text = self.boxed.decrypt(&nonce.into(), ciphertext).expect("it opens with the request's key");
        serde_json::from_slice(&text).unwrap()
    }

    /// Opens an answer and checks that it is the one to this request; for v1, to this job.
    #[track_caller]
    pub fn reply(&self, output: &Value, job: &str) -> Value {
        let reply = self.open(output);
        let id = if self.id.is_empty() { job } else { &self.id };
        assert_eq!((&reply["type"], &reply["v"], &reply["id"]), (&json!("reply"), &json!(2), &json!(id)));
        reply
    }
}

/// The bytes of standard base64.
#[track_caller]
pub fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap_or_else(|| panic!("no base64: {text}"))).unwrap()
}

fn kid(key: &PublicKey) -> String {
    let hash = Sha256::digest(key.as_bytes());
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
