//! An answer in pieces: what is kept elsewhere is shared with it and not copied, however many callers read it at once,
//! and however slowly.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use crate::domain::secret::Secret;

/// The most that is handed to a connection at once. It copies what it is given into a buffer of its own.
const SLICE: usize = 32 << 10;

/// A body of known length. A secret in it lives until its last byte has been handed out.
#[derive(Default)]
pub struct Pieces {
    waiting: VecDeque<Bytes>,
    left: u64,
}

impl Pieces {
    /// Adds bytes of its own.
    pub fn with(self, bytes: impl Into<Bytes>) -> Self {
        self.and(bytes.into())
    }

    /// Adds bytes that others hold too.
    pub fn sharing(self, secret: &Secret) -> Self {
        self.and(Bytes::from_owner(secret.clone()))
    }

    fn and(mut self, bytes: Bytes) -> Self {
        self.left += bytes.len() as u64;
        self.waiting.push_back(bytes);
        self
    }

    fn take(&mut self) -> Option<Bytes> {
        while let Some(first) = self.waiting.front_mut() {
            let slice = first.split_to(first.len().min(SLICE));
            if first.is_empty() {
                self.waiting.pop_front();
            }
            if !slice.is_empty() {
                self.left -= slice.len() as u64;
                return Some(slice);
            }
        }
        None
    }
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.take().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_shared_by_all_answers_and_handed_out_in_slices() {
        let kept = Secret::new(vec![b'x'; (5 << 20) + 7]);
        let mut answers: Vec<Pieces> =
            (0..40).map(|_| Pieces::default().with("{").sharing(&Secret::default()).sharing(&kept).with("}")).collect();
        let within = kept.bytes().as_ptr_range();
        for answer in &mut answers {
            assert!(matches!(answer.size(), BodySize::Sized(length) if length == kept.len() as u64 + 2));
            assert_eq!(answer.take().unwrap(), "{");
            let mut read = 0;
            while read < kept.len() {
                let slice = answer.take().unwrap();
                assert!(slice.len() <= SLICE && within.contains(&slice.as_ptr()), "a copy of what is kept");
                read += slice.len();
            }
            assert_eq!((read, answer.take().unwrap().as_ref()), (kept.len(), b"}".as_slice()));
            assert!(answer.take().is_none());
        }
    }

    #[test]
    fn a_secret_is_let_go_with_its_last_byte() {
        let kept = Secret::new(vec![b'x'; SLICE + 1]);
        let at = kept.bytes().as_ptr();
        let mut answer = Pieces::default().sharing(&kept).with("}");
        answer.take();
        answer.take();
        // Moved, not copied: nobody else holds it.
        let moved = kept.into_bytes();
        assert_eq!(moved.as_ptr(), at);
        assert_eq!(answer.take().unwrap(), "}");
    }
}
