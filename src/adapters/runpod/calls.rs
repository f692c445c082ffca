//! What all calls have in common: their headers, their limits, and what an answer's status means.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::body::Pieces;
use crate::domain::job::JobId;
use crate::ports::job_source::SourceError;
use crate::telemetry::transport_cause;

/// For the next piece of an answer's body to come.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// The longest pause that a platform may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 10;
/// What is read of a body that says nothing, so that its connection can be used again; and how long that may take.
const IDLE_WORDS: usize = 8 << 10;
const IDLE_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// For an answer to be posted: a bit, and what its bytes take on a slow line.
const POST_WITHIN: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// Speaks to the platform as one worker.
#[derive(Clone)]
pub(super) struct Calls {
    http: Client,
    /// The key as it is, or empty.
    authorization: HeaderValue,
}

impl Calls {
    /// `http` must not follow redirects.
    pub(super) fn new(http: Client, key: Option<&SecretString>) -> Self {
        let key = key.map(ExposeSecret::expose_secret).unwrap_or_default();
        // A key is visible ASCII by the rule of its setting, so it always is a header's value.
        let mut authorization = HeaderValue::from_str(key).unwrap_or_else(|_| HeaderValue::from_static(""));
        authorization.set_sensitive(true);
        Self { http, authorization }
    }

    /// A poll: the head of its answer, or none when `limit` was over first. Redirects are followed; another host does
    /// not get the key.
    pub(super) async fn poll(&self, url: Url, limit: Duration) -> Result<Option<Response>, SourceError> {
        let head = async {
            let mut at = url.clone();
            for _ in 0..MOST_REDIRECTS {
                let mut request = self.http.get(at.clone()).header(CONTENT_TYPE, "application/json");
                if at.origin() == url.origin() {
                    request = request.header(AUTHORIZATION, self.authorization.clone());
                }
                let response = request.send().await.map_err(|error| unreachable(&error))?;
                match next_hop(&at, &response) {
                    Some(next) => at = next,
                    None => return Ok(response),
                }
            }
            Err(SourceError::Unreachable("it redirects without end".to_owned()))
        };
        match timeout(limit, head).await {
            Ok(response) => response.map(Some),
            Err(_over) => Ok(None),
        }
    }

    /// Posts a result or an update.
    pub(super) async fn post(&self, url: Url, job: &JobId, pieces: Pieces) -> Result<(), SourceError> {
        let length = pieces.len();
        let seconds = u64::try_from(length).unwrap_or(u64::MAX) / SLOWEST_BYTES_PER_SECOND;
        let request = self
            .http
            .post(url)
            // The body is JSON all the same; this is what the platform is used to.
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("charset", "utf-8")
            .header(AUTHORIZATION, self.authorization.clone())
            .header("X-Request-ID", job.as_str())
            .header(CONTENT_LENGTH, length)
            .body(pieces.into_body())
            .timeout(POST_WITHIN + Duration::from_secs(seconds));
        said(request).await
    }

    /// A heartbeat or a report.
    pub(super) async fn tell(&self, url: Url, within: Duration) -> Result<(), SourceError> {
        said(self.http.get(url).header(AUTHORIZATION, self.authorization.clone()).timeout(within)).await
    }
}

/// Sends what is answered by a status alone.
async fn said(request: RequestBuilder) -> Result<(), SourceError> {
    let response = request.send().await.map_err(|error| unreachable(&error))?;
    let outcome = refusal(&response);
    // Also of a refusal, for the sake of its connection; what it says is of no use.
    let _words = timeout(IDLE_WORDS_WITHIN, read(response, IDLE_WORDS)).await;
    outcome
}

fn next_hop(at: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = at.join(location).ok()?;
    let web = matches!(next.scheme(), "http" | "https");
    (matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) && web).then_some(next)
}

/// What a status means: nothing for a success.
pub(super) fn refusal(response: &Response) -> Result<(), SourceError> {
    let status = response.status();
    match status.as_u16() {
        _ if status.is_success() => Ok(()),
        400 | 413 => Err(SourceError::Rejected(status.as_u16())),
        429 => Err(SourceError::Throttled { retry_after: retry_after(response) }),
        408 | 425 | 500..=599 => Err(SourceError::Unreachable(format!("it answered with status {}", status.as_u16()))),
        other => Err(SourceError::Refused(other)),
    }
}

/// The pause in seconds; a date is passed over, and so the caller's own pause counts.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The body, of at most `limit` bytes.
pub(super) async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, SourceError> {
    let told = response.content_length().and_then(|told| usize::try_from(told).ok());
    let too_large = || SourceError::Unreachable(format!("its answer has more than {limit} bytes"));
    if told.is_some_and(|told| told > limit) {
        return Err(too_large());
    }
    // Of the right size at once: growing would leave copies of the jobs behind.
    let mut body = Vec::with_capacity(told.unwrap_or(4096));
    loop {
        let piece = timeout(PIECE_WITHIN, response.chunk());
        let silent = |_over| SourceError::Unreachable("its answer stopped half-way".to_owned());
        match piece.await.map_err(silent)?.map_err(|error| unreachable(&error))? {
            None => return Ok(body),
            Some(piece) if body.len() + piece.len() > limit => return Err(too_large()),
            Some(piece) => body.extend_from_slice(&piece),
        }
    }
}

/// Whether the answer claims to be JSON.
pub(super) fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    response.status() == StatusCode::OK && kind.eq_ignore_ascii_case("application/json")
}

fn unreachable(error: &reqwest::Error) -> SourceError {
    SourceError::Unreachable(transport_cause(error))
}
