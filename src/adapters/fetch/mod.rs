//! Fetches images by URL, for strangers: only from hosts that are on a list, only from public addresses.
//!
//! ```text
//!   URL ─► http(s)? ─► host listed? ─► address public? ─► GET ─► redirect ─► (the same from the start, five times at most)
//!                                        (checked as the connection is made)  └► body, bounded
//! ```
//!
//! Errors name the host, never the rest of the URL: it may hold a signature.

mod hosts;
mod resolver;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::LOCATION;
use reqwest::{Client, ClientBuilder, Response, Url};
use tokio::time::timeout;

use crate::domain::egress::Reach;
use crate::domain::secret::Secret;
use crate::ports::fetch::{FetchError, Fetcher};
use crate::telemetry::innermost;

pub use hosts::Hosts;
use resolver::{GuardedResolver, NotPublic};

const MOST_REDIRECTS: usize = 5;

/// What may be fetched.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Empty: nothing.
    pub hosts: Hosts,
    /// The largest image, in bytes.
    pub most_bytes: u64,
    /// For all of it, redirects included.
    pub within: Duration,
    pub reach: Reach,
}

/// Makes a client that connects to no name whose addresses `reach` does not admit. Addresses that stand in a URL are not
/// looked up: who uses it checks them with [`may_reach`].
pub fn guarded(client: ClientBuilder, reach: Reach) -> ClientBuilder {
    client.dns_resolver(Arc::new(GuardedResolver(reach)))
}

/// False for a URL whose host is an address that `reach` does not admit, and for one without a host.
pub fn may_reach(url: &Url, reach: &Reach) -> bool {
    let Some(host) = url.host_str() else { return false };
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    literal.map_or(true, |address| reach.admits(address))
}

/// Whether an error of a [`guarded`] client is the guard's: the name leads to no address that it admits.
pub fn is_guards(error: &reqwest::Error) -> bool {
    NotPublic::is_behind(error)
}

/// Fetches through the guard.
pub struct HttpFetcher {
    client: Client,
    settings: Settings,
}

impl HttpFetcher {
    /// `client` is [`guarded`] by the same reach, and follows no redirects by itself.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings }
    }

    async fn follow(&self, url: &str) -> Result<Secret, FetchError> {
        let mut at = Url::parse(url).map_err(|_| FetchError::Url)?;
        for _ in 0..=MOST_REDIRECTS {
            let host = self.checked(&at)?;
            let response = self.client.get(at.clone()).send().await.map_err(|error| failed(&host, &error))?;
            if !response.status().is_redirection() {
                return self.body(host, response).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| at.join(location).ok());
            at = next.ok_or(FetchError::Status { host, status: response.status().as_u16() })?;
        }
        let host = at.host_str().unwrap_or_default().to_owned();
        Err(FetchError::Unreachable { host, cause: "it redirects without end".to_owned() })
    }

    /// The host, when the URL may be asked for.
    fn checked(&self, url: &Url) -> Result<String, FetchError> {
        let (true, Some(host)) = (matches!(url.scheme(), "http" | "https"), url.host_str()) else {
            return Err(FetchError::Url);
        };
        if !self.settings.hosts.admits(host) {
            return Err(FetchError::Host(host.to_owned()));
        }
        if !may_reach(url, &self.settings.reach) {
            return Err(FetchError::Private(host.to_owned()));
        }
        Ok(host.to_owned())
    }

    async fn body(&self, host: String, mut response: Response) -> Result<Secret, FetchError> {
        if !response.status().is_success() {
            return Err(FetchError::Status { host, status: response.status().as_u16() });
        }
        let most = self.settings.most_bytes;
        let told = response.content_length();
        if told.is_some_and(|told| told > most) {
            return Err(FetchError::TooLarge(most));
        }
        let mut body = Vec::with_capacity(told.and_then(|told| usize::try_from(told).ok()).unwrap_or(64 << 10));
        while let Some(piece) = response.chunk().await.map_err(|error| failed(&host, &error))? {
            if (body.len() + piece.len()) as u64 > most {
                return Err(FetchError::TooLarge(most));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Secret::new(body))
    }
}

#[async_trait]
impl Fetcher for HttpFetcher {
    async fn fetch(&self, url: &str) -> Result<Secret, FetchError> {
        if self.settings.hosts.is_empty() {
            return Err(FetchError::NotAllowed);
        }
        let within = self.settings.within;
        timeout(within, self.follow(url)).await.unwrap_or_else(|_over| {
            let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
            Err(FetchError::Unreachable {
                host,
                cause: format!("the image did not come within {} s", within.as_secs()),
            })
        })
    }
}

fn failed(host: &str, error: &reqwest::Error) -> FetchError {
    if NotPublic::is_behind(error) {
        return FetchError::Private(host.to_owned());
    }
    let cause = innermost(error).map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    FetchError::Unreachable { host: host.to_owned(), cause }
}

#[cfg(test)]
mod tests;
