//! A job that is handed out in the very instant in which polling ends is not lost.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::adapters::doubles::{Server, json};
use crate::ports::job_source::JobSource;

const JOB: &str = "{\"id\":\"late-u1\",\"input\":{\"n\":1}}";

/// A platform that answers a poll when it is told to.
fn holding() -> (Server, Sender<()>) {
    let (release, released): (Sender<()>, Receiver<()>) = channel();
    let released = Mutex::new(released);
    let server = Server::start(move |_, wire| {
        if released.lock().expect("no panic").recv().is_ok() {
            json(wire, 200, JOB);
        }
    });
    (server, release)
}

fn ids(taken: &super::super::Taken) -> Vec<&str> {
    taken.jobs.iter().map(|job| job.id.as_str()).collect()
}

#[tokio::test]
async fn a_job_that_comes_after_its_caller_left_is_there_for_the_next_one() {
    let (mut server, release) = holding();
    let source = source(&server);
    tokio::select! { _ = source.take(1, false) => panic!("nothing was handed out"), _ = server.next() => () }
    release.send(()).expect("the platform waits");
    let taken = source.take(3, true).await.expect("a job");
    assert_eq!(ids(&taken), ["late-u1"]);
    assert!(server.seen.try_recv().is_err(), "there was one poll only");
}

#[tokio::test]
async fn a_job_that_comes_as_polling_ends_comes_back_from_the_stop() {
    let (mut server, release) = holding();
    let source = source(&server);
    let (taken, stopped) = tokio::join!(source.take(1, false), async {
        server.next().await;
        release.send(()).expect("the platform waits");
        source.stop_taking().await
    });
    let taken = taken.expect("no error");
    assert_eq!([ids(&taken), ids(&stopped)].concat(), ["late-u1"], "from the one or from the other");
}

#[tokio::test]
async fn a_job_that_is_sent_while_the_stop_is_under_way_counts() {
    let (mut server, release) = holding();
    let source = source(&server);
    tokio::select! { _ = source.take(1, false) => panic!("nothing was handed out"), _ = server.next() => () }
    let (stopped, ()) = tokio::join!(source.stop_taking(), async {
        tokio::task::yield_now().await;
        release.send(()).expect("the platform waits");
    });
    assert_eq!(ids(&stopped), ["late-u1"]);
}

#[tokio::test]
async fn a_job_of_which_half_has_come_is_read_to_its_end() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let mut server = Server::start(move |_, wire| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", JOB.len());
        wire.write_all(head.as_bytes()).expect("written");
        let _dropped = released.lock().expect("no panic").recv();
        wire.write_all(JOB.as_bytes()).expect("written");
    });
    let mut settings = settings(server.address);
    settings.grace = Duration::ZERO;
    let source = source_with(settings);
    tokio::select! { _ = source.take(1, false) => panic!("half of it was enough"), _ = server.next() => () }
    let head = async {
        while !source.polls.is_arriving() {
            let _half = tokio::time::timeout(Duration::from_millis(1), source.take(1, false)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), head).await.expect("the head comes");
    let (stopped, ()) = tokio::join!(source.stop_taking(), async {
        tokio::task::yield_now().await;
        release.send(()).expect("the platform waits");
    });
    assert_eq!(ids(&stopped), ["late-u1"]);
}

#[tokio::test]
async fn an_idle_poll_ends_within_its_grace_and_its_connection_is_closed() {
    let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
    let mut server = Server::start(move |_, wire| {
        let ended = wire.read(&mut [0]).is_ok_and(|read| read == 0);
        closed.send(ended).expect("the test waits");
    });
    let source = source(&server);
    let (taken, stopped) = tokio::join!(source.take(1, false), async {
        server.next().await;
        tokio::time::timeout(Duration::from_secs(2), source.stop_taking()).await
    });
    assert!(taken.expect("no error").jobs.is_empty());
    assert!(stopped.expect("at once").jobs.is_empty());
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), was_closed.recv()).await, Ok(Some(true)));
}
