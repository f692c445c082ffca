//! The bounds, and all orders of everything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn bounds() -> Bounds {
    Bounds { waiting: 3, waiting_bytes: 100, keep: Duration::from_secs(60), kept_bytes: 3_000, answer_bytes: 1 << 20 }
}

fn job(n: u32, bytes: usize) -> Job {
    Job { id: id(n), tenant: TenantName::operator(), input: Secret::new(vec![b' '; bytes]), bucket: None }
}

fn id(n: u32) -> JobId {
    format!("job-{n}").parse().unwrap()
}

fn status(ledger: &Ledger, n: u32) -> Option<JobStatus> {
    ledger.view(&id(n)).map(|view| view.status)
}

#[test]
fn jobs_are_handed_out_in_turn_and_their_answers_kept_for_a_while() {
    let mut ledger = Ledger::new(bounds());
    ledger.submit(job(1, 10), Moment(0)).unwrap();
    ledger.submit(job(2, 10), Moment(5)).unwrap();
    let taken: Vec<JobId> = ledger.take(5, Moment(7)).into_iter().map(|job| job.id).collect();
    assert_eq!(taken, [id(1), id(2)]);
    ledger.settle(&id(1), &Answer::done(Secret::from("{}".to_owned())), Moment(27));
    ledger.settle(&id(2), &Answer::failed("no"), Moment(27));
    let view = ledger.view(&id(1)).unwrap();
    assert_eq!((view.status, view.delay_ms, view.execution_ms), (JobStatus::Completed, Some(7), Some(20)));
    assert_eq!(status(&ledger, 2), Some(JobStatus::Failed));
    ledger.settle(&id(1), &Answer::failed("late"), Moment(28));
    assert_eq!(status(&ledger, 1), Some(JobStatus::Completed), "an end never changes");
    ledger.forget_old(Moment(60_026));
    assert_eq!(status(&ledger, 1), Some(JobStatus::Completed));
    ledger.forget_old(Moment(60_027));
    assert_eq!((status(&ledger, 1), ledger.jobs.len(), ledger.kept_bytes), (None, 0, 0));
    let operator = TenantName::operator();
    assert_eq!(ledger.counts(&operator), JobCounts { completed: 1, failed: 1, ..JobCounts::default() });
    assert_eq!(ledger.counts(&"acme".parse().unwrap()), JobCounts::default(), "another tenant's jobs");
}

#[test]
fn a_tenants_many_jobs_do_not_keep_another_ones_waiting() {
    let mut ledger = Ledger::new(bounds());
    let theirs = |n| Job { tenant: "acme".parse().unwrap(), ..job(n, 1) };
    ledger.submit(job(1, 1), Moment(0)).unwrap();
    ledger.submit(job(2, 1), Moment(0)).unwrap();
    ledger.submit(theirs(3), Moment(0)).unwrap();
    let taken: Vec<JobId> = ledger.take(2, Moment(1)).into_iter().map(|job| job.id).collect();
    assert_eq!(taken, [id(1), id(3)]);
    ledger.submit(theirs(4), Moment(2)).unwrap();
    ledger.settle(&id(3), &Answer::failed("no"), Moment(3));
    let taken: Vec<JobId> = ledger.take(5, Moment(4)).into_iter().map(|job| job.id).collect();
    assert_eq!(taken, [id(4), id(2)], "who has none under way is next");
}

#[test]
fn a_full_queue_refuses_by_number_and_by_bytes_but_takes_one_large_job() {
    let mut ledger = Ledger::new(bounds());
    ledger.submit(job(1, 1_000), Moment(0)).unwrap();
    assert!(matches!(ledger.submit(job(2, 1), Moment(0)), Err(QueueRefusal::Full { .. })));
    ledger.take(1, Moment(0));
    for n in 2..=4 {
        ledger.submit(job(n, 1), Moment(0)).unwrap();
    }
    assert!(matches!(ledger.submit(job(5, 1), Moment(0)), Err(QueueRefusal::Full { .. })));
    ledger.close();
    assert_eq!(ledger.submit(job(6, 1), Moment(0)), Err(QueueRefusal::Draining));
}

#[test]
fn a_waiting_job_is_cancelled_at_once_and_a_running_one_is_stopped() {
    let mut ledger = Ledger::new(bounds());
    ledger.submit(job(1, 1), Moment(0)).unwrap();
    ledger.submit(job(2, 1), Moment(0)).unwrap();
    ledger.take(1, Moment(0));
    for n in [1, 2] {
        assert_eq!(ledger.cancel(&id(n), Moment(1)).map(|view| view.status), Some(JobStatus::Cancelled));
    }
    assert_eq!(ledger.stops(), [id(1)], "the other never ran");
    assert!(ledger.take(5, Moment(2)).is_empty());
    ledger.settle(&id(1), &Answer::failed("interrupted"), Moment(3));
    assert_eq!(status(&ledger, 1), Some(JobStatus::Cancelled));
    assert!(ledger.cancel(&id(9), Moment(4)).is_none());
}

#[test]
fn the_latest_progress_is_shown_and_a_stream_gets_each_update_once() {
    let mut ledger = Ledger::new(bounds());
    ledger.submit(job(1, 1), Moment(0)).unwrap();
    let text = |n: u32| Secret::from(n.to_string());
    ledger.update(&id(1), text(0));
    assert!(ledger.view(&id(1)).unwrap().progress.is_none(), "it does not run yet");
    ledger.take(1, Moment(0));
    for n in 1..=100 {
        ledger.update(&id(1), text(n));
    }
    assert_eq!(ledger.view(&id(1)).unwrap().progress, Some(text(100)));
    let chunks = ledger.chunks(&id(1)).unwrap();
    assert_eq!((chunks.len(), chunks.last()), (CHUNKS, Some(&text(100))));
    assert_eq!(ledger.chunks(&id(1)), Some(vec![]));
    ledger.update(&id(1), text(101));
    ledger.settle(&id(1), &Answer::done(text(7)), Moment(1));
    assert_eq!(ledger.chunks(&id(1)), Some(vec![text(101)]));
    assert_eq!((ledger.chunks(&id(2)), ledger.view(&id(1)).unwrap().progress), (None, None));
}

#[test]
fn a_job_that_its_ingress_lost_ends_with_an_error() {
    let mut ledger = Ledger::new(bounds());
    ledger.submit(job(1, 1), Moment(0)).unwrap();
    ledger.submit(job(2, 1), Moment(0)).unwrap();
    ledger.take(2, Moment(0));
    assert!(!ledger.end_lost(&[id(2)], Moment(1)));
    assert!(ledger.end_lost(&[id(2)], Moment(2)));
    assert_eq!((status(&ledger, 1), status(&ledger, 2)), (Some(JobStatus::Failed), Some(JobStatus::InProgress)));
}

proptest! {
    #[test]
    fn every_history_keeps_the_bounds(acts in prop::collection::vec((0..7u8, 0..12u32, 0..2_000u64), 1..200)) {
        let mut ledger = Ledger::new(bounds());
        let (mut now, mut handed_out) = (0, BTreeSet::new());
        for (kind, n, number) in acts {
            let moment = Moment(now);
            match kind {
                0 | 1 => drop(ledger.submit(job(n, (number % 60) as usize), moment)),
                2 => for job in ledger.take(2, moment) {
                    prop_assert!(handed_out.insert(job.id), "handed out once");
                },
                3 => {
                    ledger.settle(&id(n), &Answer::done(Secret::new(vec![b' '; number as usize])), moment);
                }
                4 => drop(ledger.cancel(&id(n), moment)),
                5 => ledger.update(&id(n), Secret::new(vec![b' '; number as usize])),
                _ => { now += number * 20; ledger.forget_old(Moment(now)); }
            }
            handed_out.retain(|id| ledger.jobs.contains_key(id));
            let kept: usize = ledger.ended.iter().map(|id| ledger.jobs[id].kept_bytes()).sum();
            prop_assert_eq!(kept, ledger.kept_bytes);
            prop_assert!(ledger.kept_bytes <= bounds().kept_bytes || ledger.ended.len() == 1);
            let waiting: Vec<&Entry> = ledger.jobs.values().filter(|entry| entry.job.is_some()).collect();
            prop_assert_eq!(waiting.len(), ledger.waiting.len());
            prop_assert!(ledger.waiting.len() <= bounds().waiting && (ledger.waiting_bytes <= 100 || waiting.len() == 1));
            prop_assert_eq!(ledger.jobs.len(), ledger.ended.len() + ledger.waiting.len() + ledger.counts(&TenantName::operator()).in_progress as usize);
        }
    }
}
