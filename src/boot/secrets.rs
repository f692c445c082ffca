//! Secrets that came by the environment: taken out of it at the start, so that `/proc/<pid>/environ` shows none of them
//! and no child inherits one.

use zeroize::Zeroizing;

use crate::sys::environ::{self, TakeError};

/// The server's private key.
const PRIVATE_KEY: &str = "WORKER_PRIVATE_KEY_B64";
/// Those that the configuration has read already.
const READ: [&str; 4] = ["BEARER_TOKEN", "RUNPOD_AI_API_KEY", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"];

/// What was taken.
#[derive(Default)]
pub struct Taken {
    pub private_key: Option<Zeroizing<String>>,
    /// What is still there, and why.
    pub problems: Vec<TakeError>,
}

/// Takes all of them. The configuration must have been read.
pub fn take() -> Taken {
    let mut taken = Taken::default();
    match environ::take(PRIVATE_KEY) {
        Ok(key) => taken.private_key = key,
        Err(problem) => taken.problems.push(problem),
    }
    taken.problems.extend(READ.into_iter().filter_map(|name| environ::take(name).err()));
    taken
}
