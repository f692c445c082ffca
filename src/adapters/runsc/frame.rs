//! Length-framed messages: four bytes of length, big-endian, then that many bytes. Pure; the pipes are in `channel`.

/// Bytes of a frame's header.
const HEADER: usize = 4;

/// Why a stream holds no further frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame without content")]
    Empty,
    #[error("a frame of {0} bytes, which is more than any that is expected")]
    Oversized(u32),
}

/// Cuts a byte stream into frames. Never holds more than one frame of `cap` bytes and one chunk that was pushed.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the first byte that was not yet handed out lies.
    start: usize,
    cap: usize,
}

impl FrameBuffer {
    pub(super) fn new(cap: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, cap }
    }

    /// The largest frame that is taken from now on.
    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// When a header is no honest one. The stream cannot be read any further then.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*header);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.cap {
            return Err(FrameError::Oversized(announced));
        }
        let Some(frame) = body.get(..length) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.start += HEADER + length;
        Ok(Some(frame))
    }
}

/// A frame around `body`, or nothing when its length cannot be said in four bytes.
pub(super) fn encode(body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len()).ok()?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..12),
            cut in 1_usize..97,
        ) {
            let stream: Vec<u8> = bodies.iter().filter_map(|body| encode(body)).flatten().collect();
            let mut buffer = FrameBuffer::new(200);
            let mut seen = Vec::new();
            for chunk in stream.chunks(cut) {
                buffer.push(chunk);
                while let Some(frame) = buffer.next().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn garbage_never_makes_it_hold_more_than_a_frame_and_a_chunk(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..64)) {
            let mut buffer = FrameBuffer::new(128);
            for chunk in chunks {
                buffer.push(&chunk);
                loop {
                    match buffer.next() {
                        Ok(Some(frame)) => prop_assert!(!frame.is_empty() && frame.len() <= 128),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(buffer.bytes.len() <= HEADER + 128 + 64);
            }
        }
    }

    #[test]
    fn a_header_over_the_cap_or_of_zero_is_refused_before_its_body_comes() {
        let mut buffer = FrameBuffer::new(16);
        buffer.push(&17_u32.to_be_bytes());
        assert_eq!(buffer.next(), Err(FrameError::Oversized(17)));
        let mut buffer = FrameBuffer::new(16);
        buffer.push(&[0; 4]);
        assert_eq!(buffer.next(), Err(FrameError::Empty));
    }
}
