//! Telling a webhook.

use async_trait::async_trait;

use crate::domain::time::WallTime;
use crate::domain::webhook::Webhook;

/// Why a webhook was not told. Names the host at most, never the rest of the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the address cannot be used")]
    Address,
    #[error("{0} leads to an address that is not public")]
    Private(String),
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} could not be reached: {cause}")]
    Unreachable { host: String, cause: String },
}

impl WebhookError {
    /// False where another try would end the same way. 410 asks not to be told again.
    pub fn may_pass(&self) -> bool {
        match self {
            WebhookError::Address | WebhookError::Private(_) => false,
            WebhookError::Status { status, .. } => *status != 410,
            WebhookError::Unreachable { .. } => true,
        }
    }
}

/// Tells webhooks. One try each; no redirect is followed.
#[async_trait]
pub trait WebhookTeller: Send + Sync {
    /// Posts `body`, which is JSON, under the message's `id`, signed where the webhook has a secret. `at` is now.
    async fn tell(&self, webhook: &Webhook, id: &str, body: String, at: WallTime) -> Result<(), WebhookError>;
}
