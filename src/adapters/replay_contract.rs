//! What every replay log must do, whatever is behind it. A log's own tests call [`hold`] with a function that makes
//! an empty log; each clause gets a fresh one.

use crate::domain::envelope::{Kid, ReplayTag};
use crate::domain::replay::Seen;
use crate::domain::time::WallTime;
use crate::ports::replay::ReplayLog;

const NOW: WallTime = WallTime(1_700_000_000_000);
const RING: [Kid; 1] = [Kid([1; 8])];
const DEAD: Kid = Kid([2; 8]);

pub fn seen(tag: u8, kid: Kid, job: &str, until: Option<WallTime>) -> Seen {
    Seen { tag: ReplayTag([tag; 32]), kid, job: job.parse().expect("an id"), until }
}

async fn loaded(log: &impl ReplayLog) -> Vec<Seen> {
    let mut all = log.load().await.expect("loads");
    all.sort_by_key(|seen| seen.tag);
    all
}

/// Checks every clause.
pub async fn hold<L: ReplayLog>(make: impl AsyncFn() -> L) {
    what_was_remembered_is_loaded_as_it_was(&make().await).await;
    a_tag_stays_with_its_first_job(&make().await).await;
    what_is_over_is_forgotten_and_nothing_else(&make().await).await;
    an_empty_ring_forgets_no_endless_request(&make().await).await;
}

async fn what_was_remembered_is_loaded_as_it_was(log: &impl ReplayLog) {
    assert_eq!(loaded(log).await, []);
    let all = [seen(1, RING[0], "00000000-u1", None), seen(2, DEAD, "b", Some(NOW))];
    for seen in &all {
        log.remember(seen).await.expect("remembers");
    }
    assert_eq!(loaded(log).await, all);
}

async fn a_tag_stays_with_its_first_job(log: &impl ReplayLog) {
    for job in ["a", "a", "b"] {
        log.remember(&seen(1, RING[0], job, None)).await.expect("remembers");
    }
    assert_eq!(loaded(log).await, [seen(1, RING[0], "a", None)]);
}

async fn what_is_over_is_forgotten_and_nothing_else(log: &impl ReplayLog) {
    let before = WallTime(NOW.0 - 1);
    let stays = [seen(1, RING[0], "a", None), seen(2, DEAD, "b", Some(NOW))];
    let goes = [seen(3, DEAD, "c", None), seen(4, RING[0], "d", Some(before))];
    for seen in stays.iter().chain(&goes) {
        log.remember(seen).await.expect("remembers");
    }
    assert_eq!(log.forget(NOW, &RING).await.expect("forgets"), 2);
    assert_eq!(loaded(log).await, stays);
    assert_eq!(log.forget(NOW, &RING).await.expect("forgets"), 0);
}

async fn an_empty_ring_forgets_no_endless_request(log: &impl ReplayLog) {
    log.remember(&seen(1, DEAD, "a", None)).await.expect("remembers");
    assert_eq!(log.forget(NOW, &[]).await.expect("forgets"), 0);
    assert_eq!(loaded(log).await.len(), 1);
}
