//! The outer part of a job: sealed, or in clear.

use serde_json::value::RawValue;

use super::names::{Envelope, EnvelopeVersion, Kid};
use super::options::Options;
use super::order::Order;
use crate::domain::base64;
use crate::domain::job::OpenError;
use crate::domain::json::{self, Fields, Malformed};

/// The shortest ciphertext: a tag with nothing behind it.
const TAG_BYTES: usize = 16;
/// What makes a request a sealed one.
const SEALED_FIELDS: [&str; 4] = ["encrypted", "epk", "nonce", "ciphertext"];
/// What belongs into a ciphertext and not beside one.
const CLEAR_FIELDS: [&str; 6] = ["workflow", "prompt", "images", "input_images", "execute", "reply"];

/// What this host takes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// True: a workflow in clear is refused. Sandbox jobs are not concerned.
    pub encryption_required: bool,
    /// Named to whoever asks for a key that is not there; none while there is no key at all.
    pub current: Option<Kid>,
}

/// A job's `input`, read as far as it can be without a key.
pub enum Input {
    Sealed(Box<Sealed>),
    Plain(Order),
}

/// A sealed request.
pub struct Sealed {
    pub envelope: Envelope,
    /// What may stand beside an envelope. The sender is not proven, so it asks for nothing but less.
    pub options: Options,
}

/// Reads the JSON text of a job's `input`: an object, or a JSON string that holds the text of one.
///
/// # Errors
/// Why it is no request that this host takes. Nothing of the input is in the text.
pub fn read_input(input: &[u8], rules: Rules) -> Result<Input, OpenError> {
    let start = input.iter().find(|byte| !byte.is_ascii_whitespace());
    if start != Some(&b'"') {
        return read_object(input, rules);
    }
    let inner: String = serde_json::from_slice(input).map_err(|_| OpenError::Malformed("input is not valid JSON"))?;
    read_object(inner.as_bytes(), rules)
}

fn read_object(input: &[u8], rules: Rules) -> Result<Input, OpenError> {
    let mut fields = Fields::of_body(input).map_err(|malformed| OpenError::Malformed(told(&malformed)))?;
    if SEALED_FIELDS.iter().any(|name| fields.has(name)) {
        return sealed(&mut fields, rules).map(|sealed| Input::Sealed(Box::new(sealed)));
    }
    if fields.has("execute") {
        return Order::execute_of(&mut fields).map(Input::Plain);
    }
    if rules.encryption_required {
        return Err(OpenError::PlaintextRefused);
    }
    let options = Options::beside(&mut fields)?;
    Order::workflow_of(&mut fields, options).map(Input::Plain)
}

fn sealed(fields: &mut Fields<'_>, rules: Rules) -> Result<Sealed, OpenError> {
    if CLEAR_FIELDS.iter().any(|name| fields.has(name)) {
        let text =
            "a sealed request has nothing in clear beside it: workflow, images and reply belong into the ciphertext";
        return Err(OpenError::Malformed(text));
    }
    if fields.take("encrypted").is_none_or(|raw| raw.get() != "true") {
        return Err(OpenError::Malformed("encrypted must be true"));
    }
    let version = version(fields)?;
    let epk = text(fields.take("epk"))?;
    let nonce = text(fields.take("nonce"))?;
    let ciphertext = text(fields.take("ciphertext"))?;
    let kid = fields.take("kid");
    let Some(current) = rules.current else { return Err(OpenError::NoKey) };
    let envelope = Envelope {
        version,
        epk: exactly(&epk, "epk must be the padded base64 of 32 bytes")?,
        nonce: exactly(&nonce, "nonce must be the padded base64 of 24 bytes")?,
        ciphertext: boxed(&ciphertext)?,
        kid: kid.map(|raw| named(raw, current)).transpose()?,
    };
    Ok(Sealed { envelope, options: Options::beside(fields)? })
}

fn version(fields: &mut Fields<'_>) -> Result<EnvelopeVersion, OpenError> {
    match fields.take("v").map(RawValue::get) {
        None | Some("1") => Ok(EnvelopeVersion::V1),
        Some("2") => Ok(EnvelopeVersion::V2),
        Some(_) => Err(OpenError::Malformed("v must be 1 or 2")),
    }
}

fn text(raw: Option<&RawValue>) -> Result<std::borrow::Cow<'_, str>, OpenError> {
    raw.and_then(json::string).filter(|text| !text.is_empty()).ok_or(OpenError::MissingFields)
}

fn exactly<const N: usize>(text: &str, wrong: &'static str) -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    base64::decode_into(text, &mut bytes).map_err(|_| OpenError::Malformed(wrong))?;
    Ok(bytes)
}

fn boxed(text: &str) -> Result<Vec<u8>, OpenError> {
    let bytes = base64::decode(text).ok().filter(|bytes| bytes.len() >= TAG_BYTES);
    bytes.ok_or(OpenError::Malformed("ciphertext must be the padded base64 of 16 bytes or more"))
}

/// A name that no key can have is the name of an unknown key.
fn named(raw: &RawValue, current: Kid) -> Result<Kid, OpenError> {
    let name = json::string(raw).ok_or(OpenError::Malformed("kid must be a string"))?;
    name.parse().map_err(|_| OpenError::UnknownKey { current })
}

/// The parser's report without what it quotes.
fn told(malformed: &Malformed) -> &'static str {
    match malformed {
        Malformed::NotUtf8 => "input is not UTF-8",
        Malformed::TooDeep => "input is nested too deep",
        Malformed::Syntax { .. } => "input is not valid JSON",
        Malformed::Type { .. } => "input must be an object",
        Malformed::DuplicateKey { .. } => "input has a key twice",
    }
}
