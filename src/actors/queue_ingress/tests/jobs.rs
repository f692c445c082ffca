//! Jobs on good days: every kind of request, and how its answer goes back.

use std::time::Duration;

use super::world::{Mode, Plan, World, job};
use crate::messages::queue_ingress::GetIngress;

#[actix_rt::test]
async fn a_job_is_run_and_posted_and_the_next_is_asked_for_before_the_post_is_acknowledged() {
    tokio::time::pause();
    let world = World::ready(1).await;
    *world.platform.hold_posts.lock().unwrap() = true;
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(2_000).await;
    let told = world.platform.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("take")).collect::<Vec<_>>(), ["take 1", "take 1 busy"]);
    assert!(!told.iter().any(|line| line.contains(" done")), "the post is not through: {told:?}");
    assert_eq!(world.platform.held.lock().unwrap().len(), 1, "a heartbeat names it until its answer is off");
    world.platform.hand_out(&[job("b", "plain")]);
    world.pass(2_000).await;
    assert_eq!(world.gpus[0].ran(), ["a", "b"], "the next runs meanwhile");
    world.platform.release.notify_one();
    world.pass(1_500).await;
    assert_eq!(world.platform.held.lock().unwrap().len(), 1);
}

#[actix_rt::test]
async fn updates_are_throttled_and_come_before_the_answer_even_when_they_are_slow() {
    tokio::time::pause();
    let world = World::ready(1).await;
    *world.platform.slow_updates.lock().unwrap() = Duration::from_millis(700);
    world.platform.hand_out(&[job("a", "plain")]);
    world.pass(10_000).await;
    let posts = world.platform.posts();
    let steps: Vec<&str> =
        posts.iter().filter_map(|line| line.split_once("\"value\":")).map(|(_, v)| &v[..3]).collect();
    assert_eq!(steps, ["1.0", "3.0"], "the latest wins: {posts:?}");
    assert!(posts.last().is_some_and(|line| line.starts_with("a done - {\"status\":\"ok\"")), "{posts:?}");
    assert!(posts[0].starts_with(r#"a update {"type":"progress","id":"a","seq":0,"#), "{posts:?}");
}

#[actix_rt::test]
async fn a_sealed_request_gets_updates_and_answer_sealed() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.platform.hand_out(&[job("a", "sealed")]);
    world.pass(3_000).await;
    let posts = world.platform.posts();
    assert!(posts.len() >= 2);
    for line in &posts {
        assert!(line.contains(r#""encrypted":true,"v":2,"kid":"0101010101010101""#), "{line}");
        assert!(!line.contains("x.png") && !line.contains("seq"), "{line}");
    }
}

#[actix_rt::test]
async fn an_answer_that_is_too_large_goes_to_a_bucket_or_says_so() {
    tokio::time::pause();
    for (bucket, kind, shown) in [
        (true, "plain", r#""type":"s3_url","data":"https://s3.example/object""#),
        (true, "sealed", r#""ciphertext_url":"https://s3.example/object""#),
        (false, "plain", "a done result_too_large: "),
        (false, "sealed", "a done result_too_large: "),
    ] {
        let world = World::build(Plan { bucket, ..Plan::default() });
        *world.platform.limit.lock().unwrap() = 450;
        world.gpus[0].is_ready();
        world.platform.hand_out(&[job("a", kind)]);
        world.pass(3_000).await;
        let posts = world.platform.posts();
        assert!(posts.last().is_some_and(|line| line.contains(shown)), "{bucket} {kind}: {posts:?}");
        let uploads = world.uploads.lock().unwrap().clone();
        assert_eq!(uploads.len(), usize::from(bucket));
        let ending = if kind == "sealed" { ".box" } else { ".png" };
        assert!(uploads.iter().all(|(key, _)| key.starts_with("a/") && key.ends_with(ending)), "{uploads:?}");
    }
}

#[actix_rt::test]
async fn an_answer_that_nothing_takes_is_not_sealed_first() {
    tokio::time::pause();
    for (bucket, limit, sealed) in [(false, 500, 0), (true, 500, 1), (false, 50_000, 1)] {
        let world = World::build(Plan { bucket, ..Plan::default() });
        *world.platform.limit.lock().unwrap() = limit;
        world.gpus[0].is_ready();
        world.platform.hand_out(&[job("a", "sealed")]);
        world.pass(3_000).await;
        let posts = world.platform.posts();
        assert_eq!(posts.last().is_some_and(|line| line.contains("result_too_large: ")), sealed == 0, "{posts:?}");
        assert_eq!(world.replies_sealed(), sealed, "bucket: {bucket}, limit: {limit}");
    }
}

#[actix_rt::test]
async fn a_request_that_does_not_open_is_answered_at_once() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.platform.hand_out(&[job("a", "refuse")]);
    world.pass(5).await;
    assert_eq!(world.platform.posts(), ["a done invalid ciphertext -"]);
    assert_eq!(world.gpus[0].ran(), Vec::<String>::new());
}

#[actix_rt::test]
async fn an_image_that_cannot_be_fetched_fails_the_job_with_its_reason() {
    tokio::time::pause();
    let world = World::ready(1).await;
    world.platform.hand_out(&[job("a", "image")]);
    world.pass(100).await;
    let posts = world.platform.posts();
    assert!(posts[0].starts_with("a done execution_failed: input: images.example is not among"), "{posts:?}");
}

#[actix_rt::test]
async fn a_handlers_call_goes_to_the_pool_and_a_dry_run_goes_nowhere() {
    tokio::time::pause();
    let world = World::build(Plan { instances: 0, ..Plan::default() });
    world.platform.hand_out(&[job("a", "execute")]);
    world.pass(100).await;
    assert_eq!(world.platform.posts(), [r#"a done - {"outcome":"cancelled"}"#]);
    assert_eq!(world.platform.takes(), 2);

    let world = World::build(Plan { dry_run: true, ..Plan::default() });
    world.platform.hand_out(&[job("a", "plain"), job("b", "sealed")]);
    world.pass(100).await;
    let posts = world.platform.posts();
    assert_eq!(posts[0], r#"a done - {"status":"ok","prompt_id":"dry-run"}"#);
    assert!(posts[1].starts_with(r#"b done - {"status":"ok","prompt_id":"dry-run","encrypted":true"#), "{posts:?}");
    assert_eq!(world.gpus[0].ran(), Vec::<String>::new());
}

#[actix_rt::test]
async fn several_free_instances_are_asked_for_at_once_and_each_runs_one() {
    tokio::time::pause();
    let world = World::ready(3).await;
    world.platform.hand_out(&[job("a", "plain"), job("b", "plain"), job("c", "plain")]);
    world.pass(500).await;
    let told = world.platform.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("take")).collect::<Vec<_>>(), ["take 1"]);
    let ran: Vec<usize> = world.gpus.iter().map(|gpu| gpu.ran().len()).collect();
    assert_eq!(ran, [1, 1, 1]);
    world.pass(2_000).await;
    assert!(world.platform.told().contains(&"take 1 busy".to_owned()) || world.platform.takes() == 2);
    let picture = world.ingress.send(GetIngress).await.unwrap();
    assert_eq!((picture.taken, picture.settled, picture.instances_ready), (3, 3, 3));
}

#[actix_rt::test]
async fn stopping_one_of_three_interrupts_that_one_and_posts_nothing_for_it() {
    tokio::time::pause();
    let world = World::ready(3).await;
    for gpu in &world.gpus {
        gpu.behaves(Mode::Hold);
    }
    world.platform.hand_out(&[job("a", "plain"), job("b", "plain"), job("c", "plain")]);
    world.pass(1_000).await;
    world.platform.stop("b");
    world.pass(3_000).await;
    let ran: Vec<String> = world.gpus.iter().flat_map(|gpu| gpu.ran()).filter(|line| line.contains(' ')).collect();
    assert_eq!(ran, ["interrupt b"]);
    assert!(!world.platform.posts().iter().any(|line| line.starts_with("b done")), "{:?}", world.platform.posts());
    let held: Vec<String> = world.platform.held.lock().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(held, ["a", "c"]);
    world.platform.hand_out(&[job("b", "plain")]);
    world.gpus.iter().for_each(|gpu| gpu.behaves(Mode::Steps));
    world.pass(3_000).await;
    assert!(world.platform.posts().iter().any(|line| line.starts_with("b done - {")), "a retry of it runs");
}
