//! Why a submission ends without its outputs, and the exit code that goes with it.

use std::path::PathBuf;

use crate::cli::client::ClientError;
use crate::cli::exit;
use crate::domain::envelope::Kid;
use crate::domain::job::JobId;

/// What ends a submission, beside a [`ClientError`].
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// What was to be sent, or to be gone on with, cannot be used.
    #[error("{0:#}")]
    Usage(anyhow::Error),
    /// `job`: the one that was followed; none when it was still to be sent.
    #[error("{at} cannot be reached ({cause}); {remedy}{}", then(.job.as_ref()))]
    Unreachable { at: String, cause: String, remedy: &'static str, job: Option<JobId> },
    /// It answers, and serves nobody now.
    #[error("{refusal}{}", then(Some(.job)))]
    Unserved { refusal: ClientError, job: JobId },
    #[error("job {job} is not done after {seconds} s{}", then(Some(.job)))]
    NotYet { job: JobId, seconds: u64 },
    /// `said`: the door's own words, which name the current key as well when it tells.
    #[error("{}{}", if .current.is_some() { String::new() } else { format!("{said}: ") }, wrong_key(*.sealed_to, .current.as_deref()))]
    WrongKey { said: String, sealed_to: Option<Kid>, current: Option<String> },
    #[error("{at} does not know job {job}: {}", forgotten(.at, .key))]
    Forgotten { at: String, job: JobId, key: Key },
    /// An answer that does not open, or is not the one to this request.
    #[error("{0:#}")]
    Unopened(anyhow::Error),
}

/// What became of the one-time key of a job that is not known.
#[derive(Debug)]
pub enum Key {
    /// The queue that had the job has lost it: nothing is there to be opened.
    Removed,
    /// Another one may know the job. `sent_to`: where it was sent, when that was kept.
    Stays { path: PathBuf, sent_to: Option<String> },
}

impl SubmitError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            SubmitError::Usage(_) => exit::USAGE,
            SubmitError::Unreachable { .. } | SubmitError::Unserved { .. } => exit::UNAVAILABLE,
            SubmitError::NotYet { .. } => exit::NOT_YET,
            SubmitError::WrongKey { .. } | SubmitError::Unopened(_) => exit::PROTOCOL,
            SubmitError::Forgotten { .. } => exit::FAILED,
        }
    }
}

/// How to go on with a job.
pub fn how_to_go_on(job: &JobId) -> String {
    format!("go on with: cloister submit --resume {job}")
}

/// What to do about a request that was sealed to a key that the worker has not. `current`: the kid of the one that it
/// has, when it tells.
pub fn wrong_key(sealed_to: Option<Kid>, current: Option<&str>) -> String {
    let ours = sealed_to.map_or_else(String::new, |kid| format!(" (kid {kid})"));
    let theirs = current.map_or_else(|| "another one".to_owned(), |kid| format!("kid {kid}"));
    format!(
        "the key is wrong: this was sealed to SERVER_PUBLIC_KEY_B64 or --key{ours}, and the worker holds {theirs}; \
         `cloister keygen --from FILE` on its host shows its public key"
    )
}

fn then(job: Option<&JobId>) -> String {
    job.map_or_else(String::new, |job| format!("; {}", how_to_go_on(job)))
}

fn forgotten(at: &str, key: &Key) -> String {
    match key {
        Key::Removed => "its queue is in memory, and a restart loses it; an ended job is kept for jobs.keep (30 min). \
                         Submit it again; the one-time key of this one was of no more use and is removed"
            .to_owned(),
        Key::Stays { path, sent_to: Some(sent_to) } if sent_to != at => {
            format!(
                "it was sent to {sent_to}; name that with --url or --endpoint (its one-time key is in {})",
                path.display()
            )
        }
        Key::Stays { path, .. } => format!(
            "it is gone there, or was never there. Submit it again; the one-time key of this one is still in {}",
            path.display()
        ),
    }
}
