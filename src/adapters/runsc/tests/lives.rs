//! Slots that end early, twice, from outside, and across lives of the daemon.

use super::*;

#[tokio::test]
async fn to_destroy_a_slot_ends_its_run_promptly() {
    let world = World::gvisor();
    let (slot, environment) = world
        .ready(Runtime::Deno, "export const handler = () => new Promise(() => setInterval(() => {}, 1e3))", 128)
        .await;
    let engine = world.engine();
    let watch = stopwatch::Stopwatch::start();
    let call = call(environment, USUAL);
    let (ran, destroyed) = tokio::join!(engine.run(slot, &call, "main.js", false, None), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine.destroy(slot).await
    });
    destroyed.unwrap();
    assert!(matches!(ran, Err(SandboxError::Unknown(id)) if id == slot), "{ran:?}");
    assert!(watch.elapsed() < Duration::from_secs(2), "{:?}", watch.elapsed());
    world.assert_clean().await;
}

#[tokio::test]
async fn a_slot_can_be_destroyed_twice_at_once_and_again_and_while_it_boots() {
    let world = World::gvisor();
    let (slot, environment) = world.ready(Runtime::Bun, "export const handler = () => 1", 128).await;
    let engine = world.engine();
    let (first, second) = tokio::join!(engine.destroy(slot), engine.destroy(slot));
    first.unwrap();
    second.unwrap();
    engine.destroy(slot).await.unwrap();
    let gone = engine.run(slot, &call(environment, USUAL), "main.js", false, None).await;
    assert!(matches!(gone, Err(SandboxError::Unknown(_))), "{gone:?}");

    for delay in [0, 1, 3, 10, 40, 120] {
        let slot = SlotId(Uuid::new_v4());
        let volume = environment.volume_name();
        let purpose =
            Purpose::Execute { environment, volume, permissions: Permissions::default(), secrets: Vec::new() };
        let spec = SlotSpec { slot, runtime: Runtime::Bun, purpose, memory_mb: 64 };
        let (made, gone) = tokio::join!(engine.create(spec), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            engine.destroy(slot).await
        });
        gone.unwrap();
        assert!(made.is_err(), "after {delay} ms");
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_once_destroyed() {
    let world = World::gvisor();
    let environment = world.environment("export const handler = () => 1").await;
    for millis in [0, 2, 5, 20, 100] {
        let slot = SlotId(Uuid::new_v4());
        let volume = environment.volume_name();
        let purpose =
            Purpose::Execute { environment, volume, permissions: Permissions::default(), secrets: Vec::new() };
        let spec = SlotSpec { slot, runtime: Runtime::Bun, purpose, memory_mb: 64 };
        let _ = tokio::time::timeout(Duration::from_millis(millis), world.engine().create(spec)).await;
        world.engine().destroy(slot).await.unwrap();
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn the_next_life_of_the_daemon_finds_and_destroys_what_the_last_one_left() {
    let mut world = World::gvisor();
    let (first, _) = world.ready(Runtime::Deno, "export const handler = () => 1", 128).await;
    let (second, _) = world.ready(Runtime::Bun, "export const handler = () => 1", 128).await;
    // Its pipes stay open: a runner whose daemon hangs up would leave by itself.
    let former = world.restart();
    let engine = world.engine();
    let left = engine.leftovers().await.unwrap();
    for slot in [first, second] {
        let kinds: Vec<_> = left.iter().filter(|found| found.slot == slot).map(|found| found.kind).collect();
        assert_eq!(kinds, ["bundle", "cgroup", "process", "runtime state"]);
        engine.destroy(slot).await.unwrap();
    }
    world.assert_clean().await;
    drop(former);
}

#[tokio::test]
async fn sandboxes_whose_daemon_is_gone_are_found_whether_or_not_they_left_by_themselves() {
    let mut world = World::gvisor();
    let (slot, _) = world.ready(Runtime::Bun, "export const handler = () => 1", 128).await;
    drop(world.restart());
    let left = world.engine().leftovers().await.unwrap();
    assert!(left.contains(&Leftover { slot, kind: "cgroup" }), "{left:?}");
    world.engine().destroy(slot).await.unwrap();
    world.assert_clean().await;
}

#[tokio::test]
async fn calls_at_once_do_not_meet() {
    let world = World::gvisor();
    let sources: Vec<_> = (0..4).map(|n| format!("export const handler = () => {n}")).collect();
    let made =
        futures_util::future::join_all(sources.iter().map(|source| world.ready(Runtime::Bun, source, 128))).await;
    let engine = world.engine();
    let calls: Vec<_> = made.iter().map(|&(slot, environment)| (slot, call(environment, USUAL))).collect();
    let runs = calls.iter().map(|(slot, call)| engine.run(*slot, call, "main.js", false, None));
    for (n, evidence) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(evidence.unwrap().settlement, Some(Settlement::Result(n.to_string())));
    }
    for (slot, _) in made {
        engine.destroy(slot).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn a_sandbox_killed_from_outside_ends_its_call_at_once() {
    let world = World::gvisor();
    let (slot, environment) = world
        .ready(Runtime::Deno, "export const handler = () => new Promise(() => setInterval(() => {}, 1e3))", 128)
        .await;
    let engine = world.engine();
    let call = call(environment, USUAL);
    let (ran, ()) = tokio::join!(engine.run(slot, &call, "main.js", false, None), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine.slots.get(slot).unwrap().process.get().unwrap().kill();
    });
    let evidence = ran.unwrap();
    assert_eq!((judge(&evidence), evidence.process), (Outcome::SandboxCrashed, ProcessEnd::Signalled(9)));
    assert!(evidence.handler_time < Duration::from_secs(2), "{:?}", evidence.handler_time);
    engine.destroy(slot).await.unwrap();
    world.assert_clean().await;
}

#[tokio::test]
async fn of_a_ready_sandbox_only_what_maps_memory_lets_others_finish() {
    let world = World::gvisor();
    let (slot, _) = world.ready(Runtime::Deno, "export const handler = () => 1", 128).await;
    let processes = world.engine().slots.get(slot).unwrap().cgroup().unwrap().processes().unwrap();
    let policies: Vec<(bool, bool)> = processes
        .into_iter()
        .flat_map(|pid| procfs::process::Process::new(pid).unwrap().tasks().unwrap())
        .map(|thread| {
            let thread = thread.unwrap();
            // The guest's threads and those that map memory for them have no program of their own any more.
            let of_the_engine = !std::fs::read(format!("/proc/{}/cmdline", thread.pid)).unwrap().is_empty();
            let policy = thread.stat().unwrap().policy;
            (of_the_engine, policy == Some(libc::SCHED_BATCH as u32))
        })
        .collect();
    let count = |of| policies.iter().filter(|found| **found == of).count();
    assert!(count((true, false)) > 10, "the engine's own: {policies:?}");
    assert_eq!(count((true, true)), 0, "{policies:?}");
    assert!(count((false, false)) >= 1, "the guest's threads: {policies:?}");
    assert!((1..=3).contains(&count((false, true))), "what maps memory: {policies:?}");
    world.engine().destroy(slot).await.unwrap();
    world.assert_clean().await;
}
