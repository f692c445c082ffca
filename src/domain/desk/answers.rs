//! Answers that are kept in memory for whoever asks again: bounded in size and in time, the oldest go first.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::domain::id::ExecutionId;
use crate::domain::time::WallTime;

/// An answer as it was given: its HTTP status and its JSON. User data.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Arc<str>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, body } = self;
        f.debug_struct("Answer").field("status", status).field("bytes", &body.len()).finish()
    }
}

/// The answers of this life of the daemon.
#[derive(Debug)]
pub struct Answers {
    by_call: BTreeMap<ExecutionId, (Answer, WallTime)>,
    /// In the order in which they were given.
    order: VecDeque<ExecutionId>,
    bytes: usize,
    most_bytes: usize,
}

impl Answers {
    /// Room for `most_bytes` of JSON.
    pub fn new(most_bytes: usize) -> Self {
        Self { by_call: BTreeMap::new(), order: VecDeque::new(), bytes: 0, most_bytes }
    }

    /// Keeps an answer; older ones make way. One that is larger than all the room is not kept.
    pub fn put(&mut self, call: ExecutionId, answer: Answer, now: WallTime) {
        let size = answer.body.len();
        if size > self.most_bytes || self.by_call.contains_key(&call) {
            return;
        }
        while self.bytes + size > self.most_bytes {
            self.drop_oldest();
        }
        self.bytes += size;
        self.by_call.insert(call, (answer, now));
        self.order.push_back(call);
    }

    /// The answer to a call, while it is kept.
    pub fn get(&self, call: ExecutionId) -> Option<Answer> {
        self.by_call.get(&call).map(|(answer, _)| answer.clone())
    }

    /// Drops what was given before that time.
    pub fn forget(&mut self, before: WallTime) {
        let is_old = |call: &ExecutionId| self.by_call.get(call).is_none_or(|(_, given)| *given < before);
        for _ in 0..self.order.iter().take_while(|call| is_old(call)).count() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front().and_then(|call| self.by_call.remove(&call));
        self.bytes -= oldest.map_or(0, |(answer, _)| answer.body.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ExecutionId {
        ExecutionId(Uuid::from_u128(n))
    }

    fn answer(size: usize) -> Answer {
        Answer { status: 200, body: "x".repeat(size).into() }
    }

    proptest! {
        #[test]
        fn the_newest_that_fit_are_kept(sizes in prop::collection::vec(0_usize..40, 0..30)) {
            let mut answers = Answers::new(100);
            for (n, size) in (0_u128..).zip(&sizes) {
                answers.put(id(n), answer(*size), WallTime(0));
                prop_assert!(answers.bytes <= 100 && answers.order.len() == answers.by_call.len());
                prop_assert_eq!(answers.get(id(n)), Some(answer(*size)));
            }
            let kept: usize = answers.by_call.values().map(|(answer, _)| answer.body.len()).sum();
            prop_assert_eq!(kept, answers.bytes);
        }
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_what_is_old_is_forgotten() {
        let mut answers = Answers::new(10);
        answers.put(id(1), answer(4), WallTime(1));
        answers.put(id(2), answer(11), WallTime(2));
        answers.put(id(3), answer(4), WallTime(3));
        assert_eq!((answers.get(id(1)), answers.get(id(2))), (Some(answer(4)), None));
        answers.forget(WallTime(3));
        assert_eq!((answers.get(id(1)), answers.get(id(3)), answers.bytes), (None, Some(answer(4)), 4));
    }
}
