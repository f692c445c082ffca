//! What differs from host to host: images, engines, ids, the probe.

use std::os::unix::fs::MetadataExt;

use super::*;

#[tokio::test]
async fn a_missing_image_and_a_broken_one_say_so() {
    let mut world = World::gvisor();
    let spec = |runtime| SlotSpec {
        slot: SlotId(Uuid::new_v4()),
        runtime,
        purpose: Purpose::Transpile { dependencies: Vec::new() },
        memory_mb: 64,
    };
    let broken = world.dir.path().join("image");
    fs::create_dir_all(broken.join("usr/bin")).unwrap();
    for dir in ["proc", "dev", "tmp", "runtime"] {
        fs::create_dir(broken.join(dir)).unwrap();
    }
    fs::write(broken.join("usr/bin/bun"), "no program").unwrap();
    fs::set_permissions(broken.join("usr/bin/bun"), fs::Permissions::from_mode(0o755)).unwrap();
    let engine = world.engine.as_mut().unwrap();
    engine.images = directories([(Runtime::Bun, broken)]);
    assert!(matches!(engine.create(spec(Runtime::Deno)).await, Err(SandboxError::RuntimeMissing(Runtime::Deno))));
    let died = engine.create(spec(Runtime::Bun)).await;
    let Err(SandboxError::DiedEarly { end, detail }) = died else { panic!("{died:?}") };
    assert!(end.contains("exit code") && detail.contains("/usr/bin/bun"), "{end}: {detail}");
    for left in engine.leftovers().await.unwrap() {
        engine.destroy(left.slot).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn typescript_becomes_what_deno_itself_would_emit_or_a_fault_with_its_place() {
    let world = World::gvisor();
    let transpile = async |modules: &[(&str, &str)]| {
        let slot = SlotId(Uuid::new_v4());
        let spec = SlotSpec {
            slot,
            runtime: Runtime::Deno,
            purpose: Purpose::Transpile { dependencies: Vec::new() },
            memory_mb: 256,
        };
        world.engine().create(spec).await.unwrap();
        let modules = modules.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let answer = world.engine().transpile(slot, modules, USUAL).await.unwrap();
        world.engine().destroy(slot).await.unwrap();
        answer
    };
    let whole = [
        ("lib/a.ts", "export enum A { One = 1 }"),
        ("b.ts", "import { A } from './lib/a.ts'; A.One as number;"),
        ("ends.ts", "await 1; Deno.exit(3); export const never: number = 1;"),
        ("odd 1.ts", "import { absent } from './b.ts'; export const odd: number = absent;"),
        ("old.cts", "exports.handler = (): number => require('node:os').absent();"),
    ];
    let Transpiled::Modules(made) = transpile(&whole).await else { panic!("no modules") };
    assert!(made.values().all(|made| made.contains("denoCacheMetadata")), "{made:?}");
    assert!(!made["b.ts"].contains("as number"), "{made:?}");
    let Transpiled::Faults(faults) = transpile(&[("a.ts", "let fine;\nexport const x: = 1")]).await else {
        panic!("no faults")
    };
    assert_eq!((faults[0].module.as_str(), faults[0].line), ("a.ts", Some(2)), "{faults:?}");
    let deep = format!("export const x: any = {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let Transpiled::Faults(faults) = transpile(&[("a.ts", &deep)]).await else { panic!("no faults") };
    assert!(faults[0].message.contains("nested too deeply"), "{faults:?}");
    let unresolved = [("a.ts", "import x from 'npm:left-pad'; export const y: number = x;")];
    let Transpiled::Modules(made) = transpile(&unresolved).await else {
        panic!("a missing import is the call's affair")
    };
    assert!(!made["a.ts"].contains("denoCacheMetadata"));
    world.assert_clean().await;
}

#[tokio::test]
async fn the_probe_finds_the_engine_and_remembers_it() {
    let mut world = World::gvisor();
    let first = world.engine().probe().await;
    assert_eq!(first.problems, Vec::<String>::new());
    assert!(first.isolated && first.engine == "runsc" && first.runtimes.len() == 2, "{first:?}");
    world.restart();
    let watch = stopwatch::Stopwatch::start();
    let second = world.engine().probe().await;
    assert!(watch.elapsed() < Duration::from_millis(20), "{:?}", watch.elapsed());
    assert_eq!(second, first);
    world.assert_clean().await;
}

#[tokio::test]
async fn without_gvisor_a_plain_container_serves_the_same_calls() {
    let world = World::new(Choice::PlainContainer);
    for runtime in Runtime::ALL {
        let evidence = world.call(runtime, "export const handler = (e) => e.data.n + 1", USUAL).await;
        assert_eq!(evidence.settlement, Some(Settlement::Result("21".into())), "{runtime}: {evidence:?}");
        let evidence = world.call(runtime, "export const handler = () => { for (;;) {} }", limits(300, 128)).await;
        assert_eq!(judge(&evidence), Outcome::Timeout, "{runtime}");
    }
}

/// The host user of every process of a slot.
fn users(world: &World, slot: SlotId) -> Vec<u32> {
    let pids = world.cgroups.open(&slot.to_string()).processes().unwrap();
    let uid = |pid| fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
    pids.into_iter().filter_map(|pid| uid(pid).ok()).collect()
}

#[tokio::test]
async fn only_the_engines_own_process_is_root_on_the_host() {
    let world = World::gvisor();
    let (slot, _) = world.ready(Runtime::Deno, "export const handler = () => 1", 128).await;
    let users = users(&world, slot);
    assert_eq!(users.iter().filter(|&&uid| uid < spec::HOST_IDS.0).count(), 1, "{users:?}");
    world.engine().destroy(slot).await.unwrap();
    world.assert_clean().await;
}

#[tokio::test]
async fn behind_a_closed_directory_sandboxes_run_without_a_user_namespace() {
    let world = World::gvisor();
    world.environment("").await;
    fs::set_permissions(&world.volumes.0, fs::Permissions::from_mode(0o700)).unwrap();
    let evidence = world.call(Runtime::Deno, "export const handler = () => 1", USUAL).await;
    assert_eq!(judge(&evidence), Outcome::Ok);
}

#[tokio::test]
async fn there_is_no_sysfs_and_no_device_of_the_host() {
    let world = World::gvisor();
    let source = r#"
        import { readdirSync } from "node:fs";
        export const handler = () => ["/sys", "/dev"].map((dir) => readdirSync(dir).sort());"#;
    let evidence = world.call(Runtime::Bun, source, USUAL).await;
    let Some(Settlement::Result(json)) = evidence.settlement else { panic!("{evidence:?}") };
    let [sys, dev]: [Vec<String>; 2] = serde_json::from_str(&json).unwrap();
    assert_eq!(sys, Vec::<String>::new());
    // All of them the sentry's own; fuse and tun need a mount or a capability, which nobody there has.
    let harmless = [
        "fd", "full", "fuse", "net", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert!(dev.iter().all(|name| harmless.contains(&name.as_str())), "{dev:?}");
}
