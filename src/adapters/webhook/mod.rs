//! Webhooks over HTTP, signed as Standard Webhooks 1.0.0 has it (<https://www.standardwebhooks.com>).
//!
//! The address comes from a caller: it is connected to through a client that looks up public addresses only, and no
//! redirect is followed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use sha2::Sha256;
use tokio::sync::OnceCell;

use crate::domain::base64;
use crate::domain::time::WallTime;
use crate::domain::webhook::Webhook;
use crate::ports::webhook::{WebhookError, WebhookTeller};
use crate::telemetry::transport_cause;

/// Says whether an address may be connected to that needs no looking up.
pub type MayReach = Arc<dyn Fn(&Url) -> bool + Send + Sync>;
/// Makes the client, when the first webhook is told: reading a host's root certificates takes its time.
pub type MakeClient = Arc<dyn Fn() -> Result<Client, String> + Send + Sync>;
/// Says whether an error of the client is its guard's.
pub type IsGuards = fn(&reqwest::Error) -> bool;

/// Tells webhooks through a guarded client.
pub struct HttpTeller {
    make: MakeClient,
    client: OnceCell<Client>,
    may_reach: MayReach,
    is_guards: IsGuards,
    within: Duration,
}

impl HttpTeller {
    /// The client that `make` makes looks up admitted addresses only and follows no redirects; a try may take `within`.
    pub fn new(make: MakeClient, may_reach: MayReach, is_guards: IsGuards, within: Duration) -> Self {
        Self { make, client: OnceCell::new(), may_reach, is_guards, within }
    }

    /// An error is not kept: the next webhook tries again.
    async fn client(&self) -> Result<&Client, String> {
        let made = self.client.get_or_try_init(async || {
            let make = Arc::clone(&self.make);
            tokio::task::spawn_blocking(move || make()).await.map_err(|_| "it was given up".to_owned())?
        });
        made.await
    }
}

#[async_trait]
impl WebhookTeller for HttpTeller {
    async fn tell(&self, webhook: &Webhook, id: &str, body: String, at: WallTime) -> Result<(), WebhookError> {
        let url = Url::parse(&webhook.url).map_err(|_| WebhookError::Address)?;
        let host = url.host_str().ok_or(WebhookError::Address)?.to_owned();
        if !(self.may_reach)(&url) {
            return Err(WebhookError::Private(host));
        }
        let seconds = at.0.div_euclid(1000);
        let client = self.client().await;
        let client = client.map_err(|cause| WebhookError::Unreachable { host: host.clone(), cause })?;
        let mut request = client
            .post(url)
            .timeout(self.within)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds);
        if let Some(key) = webhook.key() {
            let signature = signature(&key, id, seconds, &body).ok_or(WebhookError::Address)?;
            request = request.header("webhook-signature", signature);
        }
        // The answer's body is nobody's concern: it is not read.
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(WebhookError::Status { host, status: response.status().as_u16() }),
            Err(error) if (self.is_guards)(&error) => Err(WebhookError::Private(host)),
            Err(error) => Err(WebhookError::Unreachable { host, cause: transport_cause(&error) }),
        }
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over `<id>.<seconds>.<body>`.
fn signature(key: &[u8], id: &str, seconds: i64, body: &str) -> Option<String> {
    // A key of any length is one.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Some(format!("v1,{}", base64::encode(&mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests;
