//! The poll for jobs that is open: one at a time, and its answer is never lost.
//!
//! The poll belongs to this holder and not to the caller that waits for it. A caller that goes away leaves it open with
//! all that has arrived of its answer, and the next one goes on with it.
//!
//! ```text
//!            take                  its caller is dropped           take again
//!    none ─────────► open, driven ─────────────────────► open, left ─────────► open, driven ──answer──► none
//!                      │ stop                              │ stop
//!                      └──────────────┬────────────────────┘
//!                                     ▼
//!                   no head yet: what comes within `grace` still counts, then the connection is closed
//!                   head is there: read to its end
//! ```
//!
//! A stop therefore ends an idle poll at once, but for the grace: an answer that was sent before the connection closed is
//! received. What the platform sends in the very moment of the close it cannot deliver, and its send fails.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::ports::job_source::{SourceError, Taken};

/// For an answer whose head has come to be read to its end after a stop.
const REST_WITHIN: Duration = Duration::from_secs(30);

/// Set by a poll once its answer's head is there.
pub(super) type Arriving = Arc<AtomicBool>;

/// A poll under way.
pub(super) struct Poll {
    pub(super) answer: Pin<Box<dyn Future<Output = Result<Taken, SourceError>> + Send>>,
    pub(super) arriving: Arriving,
}

/// Holds the open poll.
pub(super) struct Polls {
    open: Mutex<Option<Poll>>,
    /// Held by the one caller that waits, so that no other takes its wake-up.
    turn: tokio::sync::Mutex<()>,
    /// How many stops there were.
    stops: watch::Sender<u64>,
    grace: Duration,
}

impl Polls {
    pub(super) fn new(grace: Duration) -> Self {
        let turn = tokio::sync::Mutex::new(());
        Self { open: Mutex::new(None), turn, stops: watch::Sender::new(0), grace }
    }

    /// The answer of the open poll, or of one that is begun now. A stop that comes meanwhile ends the wait with nothing.
    pub(super) async fn take(&self, begin: impl FnOnce() -> Poll) -> Result<Taken, SourceError> {
        let mut stops = self.stops.subscribe();
        let _turn = self.turn.lock().await;
        if stops.has_changed().unwrap_or(false) {
            return Ok(Taken::default());
        }
        self.open().get_or_insert_with(begin);
        tokio::select! {
            biased;
            answer = self.answer() => answer,
            _ = stops.changed() => Ok(Taken::default()),
        }
    }

    /// Ends the open poll. What its answer held, if one was on its way. It does not need the caller that waits to wake.
    pub(super) async fn stop(&self) -> Taken {
        self.stops.send_modify(|stops| *stops += 1);
        let mut answer = timeout(self.grace, self.answer()).await;
        if answer.is_err() && self.is_arriving() {
            answer = timeout(REST_WITHIN, self.answer()).await;
        }
        *self.open() = None;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Whether the head of the open poll's answer is there.
    pub(super) fn is_arriving(&self) -> bool {
        self.open().as_ref().is_some_and(|poll| poll.arriving.load(Ordering::Acquire))
    }

    /// Drives the open poll to its answer, and then it is no longer open. Nothing when there is none.
    async fn answer(&self) -> Result<Taken, SourceError> {
        poll_fn(|context| {
            let mut open = self.open();
            let Some(poll) = open.as_mut() else { return task::Poll::Ready(Ok(Taken::default())) };
            let answer = poll.answer.as_mut().poll(context);
            if answer.is_ready() {
                *open = None;
            }
            answer
        })
        .await
    }

    fn open(&self) -> MutexGuard<'_, Option<Poll>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::runpod::jobs;
    use crate::ports::job_source::Empty;

    fn idle(after: Duration) -> Poll {
        let answer = async move {
            tokio::time::sleep(after).await;
            Ok(jobs::none(Empty::Idle))
        };
        Poll { answer: Box::pin(answer), arriving: Arriving::default() }
    }

    const LONG: Duration = Duration::from_secs(80);

    #[tokio::test(start_paused = true)]
    async fn a_poll_whose_caller_left_is_gone_on_with() {
        let polls = Polls::new(Duration::from_millis(200));
        assert!(timeout(Duration::from_secs(60), polls.take(|| idle(LONG))).await.is_err());
        let rest = timeout(Duration::from_secs(21), polls.take(|| panic!("a second poll"))).await;
        assert_eq!(rest.expect("in time").expect("an answer").empty, Some(Empty::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_wakes_the_caller_and_costs_the_grace() {
        let polls = Arc::new(Polls::new(Duration::from_millis(200)));
        let (taken, stopped) = tokio::join!(polls.take(|| idle(LONG)), async {
            tokio::task::yield_now().await;
            timeout(Duration::from_millis(201), polls.stop()).await
        });
        assert_eq!(taken.expect("nothing").empty, None);
        assert!(stopped.is_ok());
        assert!(timeout(LONG * 2, polls.take(|| idle(LONG))).await.is_ok(), "a later take begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_a_caller_that_sleeps() {
        let polls = Polls::new(Duration::from_millis(200));
        let mut waiting = Box::pin(polls.take(|| idle(LONG)));
        assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        assert!(timeout(Duration::from_millis(201), polls.stop()).await.is_ok());
        assert!(waiting.await.expect("nothing").jobs.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_begun_is_read_to_its_end_at_a_stop() {
        let polls = Polls::new(Duration::from_millis(200));
        let poll = idle(Duration::from_secs(20));
        poll.arriving.store(true, Ordering::Release);
        assert!(timeout(Duration::from_millis(1), polls.take(|| poll)).await.is_err());
        assert_eq!(polls.stop().await.empty, Some(Empty::Idle));
    }
}
