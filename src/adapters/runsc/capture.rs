//! A handler's stdout or stderr: its beginning is kept, the rest is counted, and too much of it ends the call.

use std::io;

use tokio::net::unix::pipe::Receiver;

use super::live::{Live, unfinished};
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
pub(super) struct Capture {
    /// None once the stream has ended.
    pipe: Option<Receiver>,
    text: Kept,
    /// Where what is kept is told as it comes.
    live: Option<Live>,
}

impl Capture {
    pub(super) fn new(pipe: Receiver, caps: CaptureCaps) -> Self {
        Self { pipe: Some(pipe), text: Kept::new(caps), live: None }
    }

    /// Tells what is kept already, and from now on whatever else will be.
    pub(super) fn follow(&mut self, mut live: Live) {
        live.push(&self.text.bytes);
        self.live = Some(live);
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

    /// Takes what is in the pipe already, bounded, without waiting. The kernel is asked, not the runtime: that has not heard yet of
    /// what was written since it last looked, and the last words of a call come right before its result.
    pub(super) fn drain(&mut self) {
        for _ in 0..DRAIN / CHUNK {
            let Some(pipe) = &self.pipe else { return };
            let mut chunk = [0; CHUNK];
            match nix::unistd::read(pipe, &mut chunk) {
                Ok(length) if length > 0 => self.keep(chunk.get(..length).unwrap_or_default()),
                _ => return,
            }
        }
    }

    /// What was captured so far; what comes from now on is another's.
    pub(super) fn take(&mut self) -> Captured {
        if let Some(live) = self.live.take() {
            live.end(self.text.dropped > 0);
        }
        let caps = self.text.caps;
        std::mem::replace(&mut self.text, Kept::new(caps)).finish()
    }

    /// What stands in the stream now, on one line, at most `chars` characters.
    pub(super) fn printed_so_far(&mut self, chars: usize) -> String {
        self.drain();
        let text = String::from_utf8_lossy(&self.text.bytes);
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars).collect()
    }

    fn take_once(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut chunk = [0; CHUNK];
        match pipe.try_read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => self.keep(chunk.get(..length).unwrap_or_default()),
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        let kept = self.text.push(chunk);
        if let Some(live) = &mut self.live {
            live.push(kept);
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

    /// What is kept of the chunk.
    fn push<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        let room = self.caps.keep.saturating_sub(self.bytes.len());
        let (kept, dropped) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
        self.bytes.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(u64::try_from(dropped.len()).unwrap_or(u64::MAX));
        kept
    }

    /// As text: bytes that are not UTF-8 become U+FFFD; a character that the cap cut in two is left out.
    fn finish(self) -> Captured {
        let mut bytes = self.bytes;
        let mut dropped_bytes = self.dropped;
        if dropped_bytes > 0 {
            let cut = unfinished(&bytes);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::execution::Said;

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

    #[tokio::test]
    async fn what_was_written_a_moment_ago_is_drained() {
        use std::io::Write;
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut capture =
            Capture::new(Receiver::from_owned_fd(reader.into()).unwrap(), CaptureCaps { keep: 10_000, discard: 10 });
        // Nothing here awaits: the runtime learns of none of it.
        for _ in 0..3 {
            writer.write_all(&[b'z'; 2000]).unwrap();
            capture.drain();
        }
        assert_eq!(capture.take().text.len(), 6000);
    }

    /// Remembers all that it hears.
    #[derive(Default)]
    struct Ear(std::sync::Mutex<String>);

    impl crate::domain::execution::Follower for Ear {
        fn hear(&self, said: Said) {
            let Said::Stdout(text) = said else { panic!("of stdout") };
            assert!(!text.is_empty());
            self.0.lock().unwrap().push_str(&text);
        }
    }

    proptest! {
        #[test]
        fn a_follower_hears_exactly_what_the_answer_will_hold(
            text in prop::collection::vec(prop_oneof![Just("é"), Just("€"), Just("😀"), Just("a"), Just("\n")], 0..40),
            noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in 1_usize..9,
            keep in 0_usize..120,
            before in 0_usize..10,
        ) {
            let mut bytes = text.concat().into_bytes();
            for (at, byte) in noise {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let ear = Arc::new(Ear::default());
            let mut kept = Kept::new(CaptureCaps { keep, discard: 10 });
            let mut live = Live::new(Arc::clone(&ear) as _, Said::Stdout);
            let (early, late) = bytes.split_at(before.min(bytes.len()));
            kept.push(early);
            live.push(&kept.bytes);
            for chunk in late.chunks(cut) {
                live.push(kept.push(chunk));
            }
            live.end(kept.dropped > 0);
            prop_assert_eq!(&*ear.0.lock().unwrap(), &kept.finish().text);
        }

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
