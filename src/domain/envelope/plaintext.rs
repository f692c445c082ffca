//! What stands in a box, once it is open.

use super::names::{EnvelopeVersion, Kid, PublicKeyBytes};
use super::options::Options;
use super::order::Order;
use crate::domain::job::{JobId, OpenError, ReplyAddress, ReplyTo, Request};
use crate::domain::json::{self, Fields};
use crate::domain::secret::Secret;
use crate::domain::time::WallTime;

/// The longest `id` of a v2 request, in bytes.
const LONGEST_ID: usize = 128;

/// A sealed request, read to the end.
pub struct Opened {
    pub request: Request,
    /// When its sender says that it was sealed (v2).
    pub sealed_at: Option<WallTime>,
}

/// Reads the text that was in a box: a prompt (v1, bare or wrapped), or an object that says what it is (v2).
///
/// # Errors
/// `NoWorkflow` where there is no prompt in it, `Field` and `Execute` where a field is wrong. Nothing of the text is
/// in them.
pub fn read_plaintext(
    text: Secret,
    job: JobId,
    version: EnvelopeVersion,
    (kid, epk): (Kid, PublicKeyBytes),
    options: Options,
) -> Result<Opened, OpenError> {
    let address = |request_id| ReplyTo::Sealed(ReplyAddress { version, kid, epk, request_id });
    match version {
        EnvelopeVersion::V1 => {
            let order = Order::of_text(text, options)?;
            let reply = address(job.as_str().to_owned());
            Ok(Opened { request: order.into_request(job, reply), sealed_at: None })
        }
        EnvelopeVersion::V2 => {
            let not_one = |_| OpenError::NoWorkflow { graph_export: false };
            let mut fields = Fields::of_body(text.bytes()).map_err(not_one)?;
            let (id, sealed_at) = head(&mut fields)?;
            let order = if fields.has("execute") {
                Order::execute_of(&mut fields)?
            } else {
                Order::workflow_of(&mut fields, options.of_v2())?
            };
            Ok(Opened { request: order.into_request(job, address(id)), sealed_at: Some(sealed_at) })
        }
    }
}

/// `v`, `type`, `id` and `ts`. A reply that is sent back as a request ends here: both directions of a box have one key.
fn head(fields: &mut Fields<'_>) -> Result<(String, WallTime), OpenError> {
    if fields.take("v").is_none_or(|raw| raw.get() != "2") {
        return Err(OpenError::Field("v must be 2 inside the box, too"));
    }
    if fields.take("type").and_then(json::string).as_deref() != Some("request") {
        return Err(OpenError::Field("type must be \"request\""));
    }
    let is_id = |id: &str| (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = fields.take("id").and_then(json::string).filter(|id| is_id(id));
    let id = id.ok_or(OpenError::Field("id must have 1 to 128 visible ASCII characters"))?.into_owned();
    let wrong = OpenError::Field("ts must be the time of sealing in seconds since 1970");
    let ts: f64 = fields.read("ts", "").ok().flatten().ok_or(wrong)?;
    // A cast saturates: what is out of range is stale.
    Ok((id, WallTime((ts * 1000.0) as i64)))
}
