//! Bodies: how much of one is read, how long for, and what kinds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::rt::time::timeout;
use actix_web::web::Payload;
use futures_util::StreamExt as _;

/// The largest set-up body: 10 MiB, as the first system had it.
pub const SET_UP_BYTES: usize = 10 << 20;
/// The largest execute body: 1 MiB, as the first system had it.
pub const EXECUTE_BYTES: usize = 1 << 20;

/// The largest body of a secret, with its hosts: 64 KiB.
pub const SECRET_BYTES: usize = 64 << 10;

/// The largest body of `/run`: 10 MiB, and of `/runsync`: 20 MiB, as RunPod has them.
pub const RUN_BYTES: usize = 10 << 20;
pub const RUNSYNC_BYTES: usize = 20 << 20;

/// How bodies are let in.
#[derive(Debug, Clone)]
pub struct Intake {
    /// A body that is not whole after this long is given up.
    pub deadline: Duration,
    budget: Arc<Budget>,
}

impl Intake {
    /// `at_once`: the most bytes of bodies that are held at the same time, over all connections.
    pub fn new(deadline: Duration, at_once: usize) -> Self {
        Self { deadline, budget: Arc::new(Budget { left: AtomicUsize::new(at_once) }) }
    }
}

impl Default for Intake {
    /// 30 s, and 128 MiB at once.
    fn default() -> Self {
        Self::new(Duration::from_secs(30), 128 << 20)
    }
}

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {cap} bytes")]
    TooLarge { cap: usize },
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    #[error("the body is not of a type that is read here: send Content-Type: application/json")]
    Type,
    #[error("the body is encoded: send it without Content-Encoding")]
    Encoding,
    #[error("the body ended early or was broken on the way")]
    Broken,
    #[error("too many large requests at once; try again in a second")]
    Crowded,
}

/// A whole body. Its bytes count against the budget for as long as it lives.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    _share: Share,
}

impl Body {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body, at most `cap` bytes of it. Nothing is read when the headers already refuse it.
pub async fn read(headers: &HeaderMap, payload: Payload, cap: usize, intake: &Intake) -> Result<Body, BodyError> {
    check_headers(headers, cap)?;
    let share = Share { budget: Arc::clone(&intake.budget), bytes: 0 };
    timeout(intake.deadline, collect(payload, cap, share)).await.map_err(|_| BodyError::TooSlow(intake.deadline))?
}

async fn collect(mut payload: Payload, cap: usize, mut share: Share) -> Result<Body, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| match error {
            PayloadError::Overflow => BodyError::TooLarge { cap },
            _ => BodyError::Broken,
        })?;
        if bytes.len() + chunk.len() > cap {
            return Err(BodyError::TooLarge { cap });
        }
        share.grow(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, _share: share })
}

fn check_headers(headers: &HeaderMap, cap: usize) -> Result<(), BodyError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(BodyError::Encoding);
    }
    if !headers.get(header::CONTENT_TYPE).is_none_or(|value| value.to_str().is_ok_and(is_json)) {
        return Err(BodyError::Type);
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > cap as u64) {
        return Err(BodyError::TooLarge { cap });
    }
    Ok(())
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json")
        || essence
            .split_once('/')
            .is_some_and(|(kind, sub)| !kind.is_empty() && sub.len() > 5 && sub.ends_with("+json"))
}

/// Bytes that may still be held.
#[derive(Debug)]
struct Budget {
    left: AtomicUsize,
}

/// What one body holds of the budget, given back when it is dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, by: usize) -> Result<(), BodyError> {
        let take = |left: usize| left.checked_sub(by);
        let taken = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map_err(|_| BodyError::Crowded)?;
        self.bytes += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_by_several_names() {
        for json in ["application/json", "APPLICATION/JSON; charset=utf-8", "text/json", "application/problem+json"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "/x+json", "a/+json"]
        {
            assert!(!is_json(other), "{other}");
        }
    }

    #[test]
    fn bytes_held_are_given_back() {
        let budget = Arc::new(Budget { left: AtomicUsize::new(10) });
        let mut first = Share { budget: Arc::clone(&budget), bytes: 0 };
        let mut second = Share { budget: Arc::clone(&budget), bytes: 0 };
        assert_eq!(first.grow(8), Ok(()));
        assert_eq!(second.grow(3), Err(BodyError::Crowded));
        drop(first);
        assert_eq!(second.grow(3), Ok(()));
        drop(second);
        assert_eq!(budget.left.load(Ordering::Relaxed), 10);
    }
}
