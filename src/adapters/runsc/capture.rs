//! A handler's stdout or stderr: its beginning is kept, the rest is counted, and too much of it ends the call.

use std::io;

use tokio::net::unix::pipe::Receiver;

use crate::domain::execution::Captured;

const CHUNK: usize = 16 * 1024;
/// The most that a pipe holds unless a privileged process enlarged it, and once more for what comes meanwhile.
const DRAIN: usize = 128 * 1024;

/// How much is kept and how much more is thrown away.
#[derive(Debug, Clone, Copy)]
pub(super) struct CaptureCaps {
    pub keep: usize,
    pub discard: u64,
}

/// One captured stream.
#[derive(Debug)]
pub(super) struct Capture {
    /// None once the stream has ended.
    pipe: Option<Receiver>,
    text: Kept,
}

impl Capture {
    pub(super) fn new(pipe: Receiver, caps: CaptureCaps) -> Self {
        Self { pipe: Some(pipe), text: Kept::new(caps) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// True when more came than is even thrown away.
    pub(super) fn is_flooded(&self) -> bool {
        self.text.dropped > self.text.caps.discard
    }

    /// Waits for output and takes some of it. Safe to drop at any point.
    pub(super) async fn fill(&mut self) {
        if let Some(pipe) = &self.pipe {
            // An error of this pipe shows at the read that follows.
            let _ = pipe.readable().await;
        }
        self.take_once();
    }

    /// Takes what is in the pipe already, bounded, without waiting.
    pub(super) fn drain(&mut self) {
        for _ in 0..DRAIN / CHUNK {
            if !self.take_once() {
                return;
            }
        }
    }

    /// What was captured so far; what comes from now on is another's.
    pub(super) fn take(&mut self) -> Captured {
        let caps = self.text.caps;
        std::mem::replace(&mut self.text, Kept::new(caps)).finish()
    }

    /// What stands in the stream now, on one line, at most `chars` characters.
    pub(super) fn printed_so_far(&mut self, chars: usize) -> String {
        self.drain();
        let text = String::from_utf8_lossy(&self.text.bytes);
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars).collect()
    }

    /// False when there is nothing to take now.
    fn take_once(&mut self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut chunk = [0; CHUNK];
        match pipe.try_read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.pipe = None;
                false
            }
            Ok(length) => {
                self.text.push(chunk.get(..length).unwrap_or_default());
                true
            }
        }
    }
}

/// The beginning of a stream.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    dropped: u64,
    caps: CaptureCaps,
}

impl Kept {
    fn new(caps: CaptureCaps) -> Self {
        Self { bytes: Vec::new(), dropped: 0, caps }
    }

    fn push(&mut self, chunk: &[u8]) {
        let room = self.caps.keep.saturating_sub(self.bytes.len());
        let (kept, dropped) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
        self.bytes.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(u64::try_from(dropped.len()).unwrap_or(u64::MAX));
    }

    /// As text: bytes that are not UTF-8 become U+FFFD; a character that the cap cut in two is left out.
    fn finish(self) -> Captured {
        let mut bytes = self.bytes;
        let mut dropped_bytes = self.dropped;
        if dropped_bytes > 0 {
            let cut = split_character(&bytes);
            bytes.truncate(bytes.len() - cut);
            dropped_bytes = dropped_bytes.saturating_add(u64::try_from(cut).unwrap_or(0));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        Captured { text, dropped_bytes }
    }
}

/// Bytes at the end that begin a UTF-8 character and do not finish it.
fn split_character(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&length| {
            let tail = bytes.get(bytes.len() - length..).unwrap_or_default();
            std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(keep: usize, chunks: &[&[u8]]) -> Kept {
        let mut kept = Kept::new(CaptureCaps { keep, discard: 10 });
        for chunk in chunks {
            kept.push(chunk);
        }
        kept
    }

    #[test]
    fn the_beginning_is_kept_and_the_rest_counted() {
        let captured = kept(5, &[b"abc", b"defg"]).finish();
        assert_eq!(captured, Captured { text: "abcde".into(), dropped_bytes: 2 });
    }

    #[test]
    fn a_character_cut_in_two_is_left_out_and_counted() {
        let captured = kept(4, &["abc€".as_bytes()]).finish();
        assert_eq!(captured, Captured { text: "abc".into(), dropped_bytes: 3 });
    }

    #[test]
    fn bytes_that_are_no_text_become_the_replacement_character() {
        assert_eq!(kept(9, &[b"a\xff\0\x1b[0m"]).finish().text, "a\u{fffd}\0\u{1b}[0m");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_from_the_count(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20), keep in 0_usize..100) {
            let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let total: usize = parts.iter().map(|part| part.len()).sum();
            let kept = kept(keep, &parts);
            prop_assert!(kept.bytes.len() <= keep);
            prop_assert_eq!(kept.bytes.len() as u64 + kept.dropped, total as u64);
            let captured = kept.finish();
            prop_assert!(captured.text.len() <= keep * 3);
        }
    }
}
