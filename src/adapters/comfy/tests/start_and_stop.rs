//! A life: started, ready, ended, and nothing left; over the double.

use std::net::TcpListener;
use std::time::Duration;

use super::support::World;
use crate::ports::comfy::{ComfyEnd, ComfyEngine as _, ComfyError};

#[tokio::test]
async fn an_instance_becomes_ready_answers_and_leaves_nothing_behind() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    instance.probe().await.expect("answers");
    assert_eq!(instance.memory(), None, "without cgroups it cannot be told");
    assert_eq!(world.processes(), 1);
    world.end(&instance).await;
    assert_eq!(instance.ended().await, ComfyEnd { end: "signal 15 (SIGTERM)".to_owned(), out_of_memory: false });
    instance.stop(Duration::ZERO).await.expect("again");
    assert!(instance.probe().await.is_err());
}

#[tokio::test]
async fn one_that_ignores_term_and_has_hidden_children_is_killed_all_the_same() {
    let world = World::of_double(&["IGNORE_SIGTERM=1", "CHILDREN=2:detached"], |_| {});
    let instance = world.ready().await;
    assert!(world.processes() >= 3);
    instance.stop(Duration::from_millis(50)).await.expect("stops");
    world.assert_nothing_left();
    assert_eq!(instance.ended().await.end, "signal 9 (SIGKILL)");
}

#[tokio::test]
async fn an_early_end_is_told_with_what_was_printed() {
    let world = World::of_double(&[], |settings| {
        let script = settings.dir.as_ref().expect("home").join("python");
        std::fs::write(&script, "#!/bin/sh\necho no module named torch >&2\nexit 3\n").expect("script");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        settings.python = Some(script);
    });
    let instance = world.engine.start(&world.spec).await.expect("starts");
    let error = instance.ready().await.expect_err("it ended");
    assert!(
        matches!(&error, ComfyError::DiedEarly { end, last } if end == "exit code 3" && last == "no module named torch"),
        "{error}"
    );
    world.end(&instance).await;
}

#[tokio::test]
async fn one_that_never_answers_is_given_up_at_the_deadline() {
    let world = World::of_double(&["STARTS=never,ok"], |settings| settings.start_deadline = Duration::from_millis(300));
    let instance = world.engine.start(&world.spec).await.expect("starts");
    assert!(matches!(instance.ready().await, Err(ComfyError::NotReady(_))));
    world.end(&instance).await;
    drop(instance);
    let again = world.ready().await;
    world.end(&again).await;
}

#[tokio::test]
async fn a_port_is_never_shared() {
    let world = World::of_double(&[], |_| {});
    let listener = TcpListener::bind(("127.0.0.1", world.spec.port)).expect("taken by another");
    let refused = world.engine.start(&world.spec).await.err().expect("refused");
    assert!(matches!(&refused, ComfyError::Off(text) if text.contains("cannot be taken")), "{refused}");
    world.assert_nothing_left();
    drop(listener);

    let instance = world.ready().await;
    let mut second = world.spec.clone();
    second.name = "comfy-1";
    let refused = world.engine.start(&second).await.err().expect("refused");
    assert!(matches!(&refused, ComfyError::Off(text) if text.contains("another instance")), "{refused}");
    world.end(&instance).await;
}

#[tokio::test]
async fn another_comfyui_on_the_port_is_not_taken_for_ours() {
    let first = World::of_double(&[], |_| {});
    let mut second = World::of_double(&["STARTS=never"], |_| {});
    second.spec.port = first.spec.port;
    // Ours loads for long; meanwhile the other takes the port.
    let ours = second.engine.start(&second.spec).await.expect("starts");
    let theirs = first.ready().await;
    let error = ours.ready().await.expect_err("not ours");
    assert!(matches!(&error, ComfyError::Off(text) if text.contains("another ComfyUI")), "{error}");
    second.end(&ours).await;
    first.end(&theirs).await;
}

#[tokio::test]
async fn what_an_earlier_life_left_is_removed_first() {
    let world = World::of_double(&["CHILDREN=1:detached"], |_| {});
    let earlier = world.ready().await;
    std::fs::write(world.room().join("out/plaintext.png"), "x").expect("file");
    // The earlier life ends without a word: its process, its child, its room and its mount are still there.
    drop(earlier);
    assert!(world.processes() >= 2);
    let instance = world.ready().await;
    assert!(!world.room().join("out/plaintext.png").exists());
    world.end(&instance).await;
    world.engine.sweep(&world.spec).await.expect("nothing to sweep");
}

#[tokio::test]
async fn without_a_checkout_there_is_no_comfyui() {
    let world = World::of_double(&[], |settings| settings.dir = None);
    assert!(matches!(world.engine.start(&world.spec).await, Err(ComfyError::Off(_))));
    let world = World::of_double(&[], |settings| settings.dir = Some("/nowhere".into()));
    let refused = world.engine.start(&world.spec).await.err().expect("refused");
    assert!(refused.to_string().contains("COMFYUI_DIR"), "{refused}");
}

#[tokio::test]
async fn its_files_are_its_owners_alone_and_it_leaves_no_core_dump() {
    let world = World::of_double(&[], |_| {});
    let instance = world.ready().await;
    let pid = procfs::process::all_processes()
        .expect("proc")
        .filter_map(Result::ok)
        .find(|process| process.cwd().is_ok_and(|cwd| cwd == world.room()))
        .expect("the process stands in its room");
    let core = pid.limits().expect("limits").max_core_file_size;
    assert!(matches!(core.hard_limit, procfs::process::LimitValue::Value(0)));
    assert_eq!(pid.status().expect("status").umask, Some(0o077));
    instance.abort();
    assert_eq!(instance.ended().await.end, "signal 6 (SIGABRT)");
    world.end(&instance).await;
}
