//! What a running call says, kept for a reader until he takes it, within bounds.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::execution::{Follower, Said};

/// The most text, and the most pieces, that wait for a reader. A piece that finds no room is dropped.
const MOST_BYTES: usize = 256 << 10;
const MOST_PIECES: usize = 1024;

/// What a reader is given.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Said(Said),
    /// So many pieces were dropped here, since the reader was too slow.
    Dropped(u64),
}

/// Between a call and its reader: filled without ever waiting, and never with more than its bounds.
#[derive(Default)]
pub struct Ears {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    heard: VecDeque<Heard>,
    bytes: usize,
    pieces: usize,
}

impl Ears {
    /// Waits until there is something, and takes all of it.
    pub async fn listen(&self) -> Vec<Heard> {
        loop {
            let heard = self.take();
            if !heard.is_empty() {
                return heard;
            }
            self.news.notified().await;
        }
    }

    /// Takes what there is now.
    pub fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.waiting()).heard.into()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Ears {
    fn hear(&self, said: Said) {
        let mut waiting = self.waiting();
        let size = said.size();
        if waiting.bytes + size <= MOST_BYTES && waiting.pieces < MOST_PIECES {
            waiting.bytes += size;
            waiting.pieces += 1;
            waiting.heard.push_back(Heard::Said(said));
        } else if let Some(Heard::Dropped(count)) = waiting.heard.back_mut() {
            *count += 1;
        } else {
            waiting.heard.push_back(Heard::Dropped(1));
        }
        drop(waiting);
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(size: usize) -> Said {
        Said::Stdout("x".repeat(size))
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_and_every_piece_is_given_or_counted(
            steps in prop::collection::vec(prop_oneof![9 => (1_usize..60_000).prop_map(Some), 1 => Just(None)], 0..200),
        ) {
            let ears = Ears::default();
            let (mut said, mut given) = (0_u64, 0_u64);
            let mut count = |heard: Vec<Heard>| {
                for piece in heard {
                    given += match piece { Heard::Said(_) => 1, Heard::Dropped(count) => count };
                }
            };
            for step in steps {
                match step {
                    Some(size) => {
                        ears.hear(out(size));
                        said += 1;
                    }
                    None => count(ears.take()),
                }
                let waiting = ears.waiting();
                prop_assert!(waiting.bytes <= MOST_BYTES && waiting.heard.len() <= 2 * MOST_PIECES + 1);
            }
            count(ears.take());
            prop_assert_eq!(said, given);
        }
    }

    #[test]
    fn a_gap_is_marked_where_it_is() {
        let ears = Ears::default();
        for size in [MOST_BYTES, 1, 1] {
            ears.hear(out(size));
        }
        assert_eq!(ears.take(), [Heard::Said(out(MOST_BYTES)), Heard::Dropped(2)]);
        ears.hear(out(1));
        assert_eq!(ears.take(), [Heard::Said(out(1))]);
    }

    #[tokio::test]
    async fn who_listens_is_woken() {
        let ears = Ears::default();
        let (heard, ()) = tokio::join!(ears.listen(), async { ears.hear(out(1)) });
        assert_eq!(heard, [Heard::Said(out(1))]);
    }
}
