//! What is sent: the workflow with its images, sealed to the worker's key or in clear.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::domain::base64;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::streams::Streams;
use crate::sealed::{Epk, Nonce, PublicKey, SecretKey, TAG_BYTES};

/// A workflow and what goes with it.
pub struct Request {
    workflow: Box<RawValue>,
    images: Vec<Value>,
    /// Names of images that no node loads.
    unloaded: Vec<String>,
    history: bool,
}

/// A request, ready to be sent, and what it takes to open its answer.
pub struct Sent {
    /// The whole body of `POST …/run`.
    pub body: String,
    /// The id inside the sealed part.
    pub request_id: Uuid,
    /// None for a request in clear.
    pub keys: Option<Keys>,
}

/// The one-time key, and whom the request was sealed to.
pub struct Keys {
    pub one_time: SecretKey,
    pub server: PublicKey,
}

impl Request {
    /// Reads the workflow and the images.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be, with what to do about it.
    pub fn read(
        workflow: Option<&Path>,
        images: &[String],
        history: bool,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<Self> {
        let path = workflow.context("no workflow is named")?;
        let mut text = String::new();
        if path == Path::new("-") {
            streams.input.read_to_string(&mut text).context("cannot read the workflow from stdin")?;
        } else {
            text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the workflow {}", path.display()))?;
        }
        let name = path.display();
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
        check(&value).with_context(|| format!("{name} is not a workflow"))?;
        let workflow = RawValue::from_string(text).with_context(|| format!("{name} is not JSON"))?;
        let images = images.iter().map(|image| read_image(image)).collect::<anyhow::Result<Vec<_>>>()?;
        let names = images.iter().filter_map(|image| image["name"].as_str());
        let unloaded = names.filter(|name| !loads(&value, name)).map(str::to_owned).collect();
        Ok(Self { workflow, images, unloaded, history })
    }

    /// Names of images that no node of the workflow loads.
    pub fn unloaded(&self) -> &[String] {
        &self.unloaded
    }

    /// The request as v2 of the envelope.
    ///
    /// # Errors
    /// When the host has no randomness, or the key is none that can be sealed to.
    pub fn sealed(self, server: PublicKey) -> anyhow::Result<Sent> {
        let request_id = Uuid::new_v4();
        let mut inner = json!({
            "v": 2, "type": "request", "id": request_id.to_string(), "ts": jiff::Timestamp::now().as_second(),
            "workflow": self.workflow, "reply": { "history": self.history },
        });
        if !self.images.is_empty() {
            inner["images"] = Value::Array(self.images);
        }
        let mut buffer = vec![0; TAG_BYTES];
        serde_json::to_writer(&mut buffer, &inner)?;
        let one_time = SecretKey::generate().context("no randomness")?;
        let nonce = Nonce::random().context("no randomness")?;
        let box_key = one_time.agree(&Epk::admit(*server.as_bytes()).context("the worker's public key")?)?;
        box_key.seal(&nonce, &mut buffer)?;
        let body = json!({ "input": {
            "encrypted": true, "v": 2, "kid": server.kid().to_string(),
            "epk": one_time.public_key().to_base64(),
            "nonce": base64::encode(nonce.as_bytes()),
            "ciphertext": base64::encode(&buffer),
        }});
        Ok(Sent { body: body.to_string(), request_id, keys: Some(Keys { one_time, server }) })
    }

    /// The request as worker-comfyui takes it.
    pub fn in_clear(self) -> Sent {
        let mut input = json!({ "workflow": self.workflow, "no_history": !self.history });
        if !self.images.is_empty() {
            input["images"] = Value::Array(self.images);
        }
        Sent { body: json!({ "input": input }).to_string(), request_id: Uuid::new_v4(), keys: None }
    }
}

/// Finds the usual mistake before it is sent: the editor's own file.
fn check(workflow: &Value) -> anyhow::Result<()> {
    let Some(nodes) = workflow.as_object() else { bail!("it must be an object, node id → node") };
    if nodes.contains_key("nodes") && nodes.contains_key("links") {
        bail!("it is the editor's own graph: export it with \"Export (API)\"");
    }
    let is_node = |node: &Value| node.get("class_type").is_some_and(Value::is_string);
    match nodes.iter().find(|(_, node)| !is_node(node)) {
        None if nodes.is_empty() => bail!("it has no nodes"),
        None => Ok(()),
        Some((id, _)) => bail!("node {id:?} has no class_type"),
    }
}

/// Whether a node has the name among its inputs, alone or with the folder that ComfyUI's nodes may add (`a.png [input]`).
fn loads(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(" [")),
        Value::Array(list) => list.iter().any(|value| loads(value, name)),
        Value::Object(fields) => fields.values().any(|value| loads(value, name)),
        _ => false,
    }
}

fn read_image(flag: &str) -> anyhow::Result<Value> {
    let Some((name, path)) = flag.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty()) else {
        bail!("--image {flag}: write NAME=FILE, with the name that the workflow loads");
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the image {path}"))?;
    Ok(json!({ "name": name, "image": base64::encode(&bytes) }))
}
