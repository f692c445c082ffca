//! Those who wait are woken by what happens, and by nothing else.

use super::*;
use crate::adapters::clock::PausedClock;
use crate::domain::job::JobStatus;
use crate::domain::tenant::TenantName;

fn queue() -> Arc<LocalQueue> {
    tokio::time::pause();
    let bounds = Bounds {
        waiting: 10,
        waiting_bytes: 1_000,
        keep: Duration::from_secs(60),
        kept_bytes: 100_000,
        answer_bytes: 5_000,
    };
    Arc::new(LocalQueue::new(bounds, Arc::new(PausedClock::start())))
}

fn job(id: &str) -> Job {
    let tenant = TenantName::operator();
    Job { id: id.parse().unwrap(), tenant, input: Secret::from("{}".to_owned()), bucket: None }
}

#[actix_rt::test]
async fn a_poll_is_held_until_a_job_comes_and_ends_at_once_when_it_is_told_to() {
    let queue = queue();
    let polling = Arc::clone(&queue);
    let poll = actix_rt::spawn(async move { polling.take(2, false).await });
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!poll.is_finished());
    queue.submit(job("a")).unwrap();
    assert_eq!(poll.await.unwrap().unwrap().jobs[0].id.as_str(), "a");
    let polling = Arc::clone(&queue);
    let poll = actix_rt::spawn(async move { polling.take(2, true).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(queue.stop_taking().await.jobs.is_empty());
    assert!(poll.await.unwrap().unwrap().jobs.is_empty());
    queue.submit(job("b")).unwrap();
    assert_eq!(queue.take(1, true).await.unwrap().jobs.len(), 1, "taking goes on");
}

#[actix_rt::test]
async fn a_wait_ends_with_the_job_or_with_its_time() {
    let queue = queue();
    queue.submit(job("a")).unwrap();
    let id = job("a").id;
    let view = queue.settled(&id, Duration::from_secs(5)).await.unwrap();
    assert_eq!(view.status, JobStatus::InQueue);
    let waiting = Arc::clone(&queue);
    let waits = id.clone();
    let wait = actix_rt::spawn(async move { waiting.settled(&waits, Duration::from_secs(500)).await });
    queue.take(1, false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    queue.settle(&id, &Answer::done(Secret::from("1".to_owned())), false).await.unwrap();
    let view = wait.await.unwrap().unwrap();
    assert!(view.status == JobStatus::Completed && view.execution_ms >= Some(2_000), "{view:?}");
    assert!(queue.settled(&job("b").id, Duration::from_secs(500)).await.is_none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(queue.view(&id).is_none(), "its time is over");
}

#[actix_rt::test]
async fn a_cancelled_job_is_told_to_the_ingress_while_it_waits_for_stops() {
    let queue = queue();
    queue.submit(job("a")).unwrap();
    queue.take(1, false).await.unwrap();
    let listening = Arc::clone(&queue);
    let stops = actix_rt::spawn(async move { listening.stops().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    queue.cancel(&job("a").id);
    assert_eq!(stops.await.unwrap(), Ok(vec![job("a").id]));
}
