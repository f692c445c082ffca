//! Webhooks: where a call's end is told, and when a try that failed is made again.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::base64;

/// The longest address.
const MOST_URL: usize = 2048;
/// How a secret begins, and how many bytes its base64 may stand for (Standard Webhooks 1.0.0).
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The wait before the second try; each further one is four times as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// Where to tell, and what to sign with. User data: an address may hold a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("signed", &self.secret.is_some()).finish_non_exhaustive()
    }
}

/// Why a webhook is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookInvalid {
    #[error("webhook.url must be an http or https address of at most {MOST_URL} characters, without a user in it")]
    Url,
    #[error("webhook.secret must be \"whsec_\" and the base64 of 24 to 64 bytes")]
    Secret,
    #[error("webhook is for calls that are answered later: ask for one with Prefer: respond-async")]
    NotAsynchronous,
}

impl Webhook {
    /// Checks what can be known before anybody is spoken to.
    ///
    /// # Errors
    /// As the variants say.
    pub fn validate(&self) -> Result<(), WebhookInvalid> {
        let rest = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://"));
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        let readable = self.url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        if authority.is_empty() || authority.contains('@') || !readable || self.url.len() > MOST_URL {
            return Err(WebhookInvalid::Url);
        }
        if self.secret.is_some() && self.key().is_none() {
            return Err(WebhookInvalid::Secret);
        }
        Ok(())
    }

    /// The key to sign with.
    pub fn key(&self) -> Option<Vec<u8>> {
        let key = base64::decode(self.secret.as_deref()?.strip_prefix(SECRET_PREFIX)?).ok()?;
        SECRET_BYTES.contains(&key.len()).then_some(key)
    }
}

/// How long to wait after so many tries that failed.
pub fn wait_after(attempts: u32) -> Duration {
    let factor = 4_u32.saturating_pow(attempts.saturating_sub(1));
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(url: &str, secret: Option<&str>) -> Webhook {
        Webhook { url: url.into(), secret: secret.map(str::to_owned) }
    }

    #[test]
    fn addresses_of_the_web_are_taken_and_nothing_else() {
        for url in ["https://example.com/hook?a=b", "http://10.0.0.1:8080", "https://[::1]/x@y"] {
            assert_eq!(hook(url, None).validate(), Ok(()), "{url}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2048));
        for url in ["", "ftp://a/", "https://", "https:///x", "https://u:p@a/", "https://a b/", "https://a\\@b", &long]
        {
            assert_eq!(hook(url, None).validate(), Err(WebhookInvalid::Url), "{url}");
        }
    }

    #[test]
    fn a_secret_is_a_key_of_24_to_64_bytes() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(hook("https://a", Some(secret)).validate(), Ok(()));
        assert_eq!(hook("https://a", Some(secret)).key().map(|key| key.len()), Some(24));
        for secret in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!!!"] {
            assert_eq!(hook("https://a", Some(secret)).validate(), Err(WebhookInvalid::Secret), "{secret}");
        }
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let waits: Vec<u64> = (1..=9).map(|attempts| wait_after(attempts).as_secs()).collect();
        assert_eq!(waits, [5, 20, 80, 320, 1280, 5120, 20480, 21600, 21600]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }
}
