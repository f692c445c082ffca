//! A stream of the handler's, told while it comes: whole characters only, however the pipe cuts them.

use std::sync::Arc;

use crate::domain::execution::{Follower, Said};

/// One stream on its way to a follower.
pub(super) struct Live {
    follower: Arc<dyn Follower>,
    said: fn(String) -> Said,
    /// The beginning of a character whose rest has not come yet: three bytes at the most.
    tail: Vec<u8>,
}

impl Live {
    pub(super) fn new(follower: Arc<dyn Follower>, said: fn(String) -> Said) -> Self {
        Self { follower, said, tail: Vec::new() }
    }

    /// Tells what is whole of `bytes` and of what came before. Bytes that are no UTF-8 become U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.tail);
        all.extend_from_slice(bytes);
        let (whole, tail) = all.split_at_checked(all.len() - unfinished(&all)).unwrap_or((&all, &[]));
        self.tell(&String::from_utf8_lossy(whole));
        self.tail = tail.to_vec();
    }

    /// The stream is over. A character that nobody finished is none, unless the cap cut it: then it is left out.
    pub(super) fn end(self, was_cut: bool) {
        if !was_cut {
            self.tell(&String::from_utf8_lossy(&self.tail));
        }
    }

    fn tell(&self, text: &str) {
        if !text.is_empty() {
            self.follower.hear((self.said)(text.to_owned()));
        }
    }
}

/// Bytes at the end that begin a UTF-8 character and do not finish it.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&length| {
            let tail = bytes.get(bytes.len() - length..).unwrap_or_default();
            std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}
