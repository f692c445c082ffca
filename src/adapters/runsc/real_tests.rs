//! The engine over the real runsc, Deno and Bun. They need root and the runtimes' images: what is missing is an error
//! with its remedy, never a silent skip.
//!
//! The only place where an adapter meets others: a contract with the kernel cannot be tested over doubles.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slog::{Discard, o};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::adapters::cgroup::HostCgroups;
use crate::adapters::process::HostSpawner;
use crate::domain::environment::{Permissions, Runtime};
use crate::domain::execution::{End, Outcome, Phase, ProcessEnd, Settlement, judge};
use crate::domain::id::{EnvironmentId, ExecutionId, RequestId};
use crate::ports::sandbox::Purpose;
use crate::ports::volumes::VolumeError;

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cloister/runtimes");

/// Volumes that lie ready in a folder.
struct Folder(PathBuf);

#[async_trait]
impl Volumes for Folder {
    async fn make(&self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), VolumeError> {
        for (path, content) in files {
            let path = self.path(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Ok(())
    }

    async fn remove(&self, _name: &str) -> Result<(), VolumeError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, VolumeError> {
        Ok(Vec::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A host of its own: directories, a cgroup subtree, an engine. Asserts at its end that nothing is left.
struct World {
    engine: Option<RunscEngine>,
    cgroups: Arc<HostCgroups>,
    volumes: Arc<Folder>,
    choice: Choice,
    dir: TempDir,
}

impl World {
    fn new(choice: Choice) -> Self {
        assert!(
            Path::new(IMAGES).join("deno").exists(),
            "no runtimes in {IMAGES}: run the set-up step first"
        );
        let dir = tempfile::Builder::new().prefix("ce").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let instance = format!("test-{}", Uuid::new_v4().simple());
        let cgroups = Arc::new(HostCgroups::detect(None, &instance).unwrap());
        let volumes = Arc::new(Folder(dir.path().join("volumes")));
        let mut world = Self {
            engine: None,
            cgroups,
            volumes,
            choice,
            dir,
        };
        world.restart();
        world
    }

    fn gvisor() -> Self {
        Self::new(Choice::Gvisor { runsc: None })
    }

    /// As after a crash: a new engine that knows nothing of the former one's slots.
    fn restart(&mut self) {
        let settings = Settings {
            choice: self.choice.clone(),
            run_dir: self.dir.path().join("run"),
            state_dir: self.dir.path().to_owned(),
            images: Runtime::ALL
                .map(|runtime| (runtime, Path::new(IMAGES).join(runtime.as_str())))
                .into(),
            ready_deadline: Duration::from_secs(60),
            cpu_quota_us: Some(100_000),
            pids: 100,
            tmp_mb: 64,
            output: OutputLimits {
                keep: 64 << 10,
                discard: 8 << 20,
                ..OutputLimits::default()
            },
        };
        let log = Logger::root(Discard, o!());
        self.engine = Some(RunscEngine::new(
            settings,
            Arc::new(HostSpawner),
            Arc::clone(&self.cgroups) as _,
            Arc::clone(&self.volumes) as _,
            log,
        ));
    }

    fn engine(&self) -> &RunscEngine {
        self.engine.as_ref().unwrap()
    }

    async fn environment(&self, source: &str) -> EnvironmentId {
        let id = EnvironmentId(Uuid::new_v4());
        let files = BTreeMap::from([("workspace/main.js".to_owned(), source.as_bytes().to_vec())]);
        self.volumes.make(&id.volume_name(), files).await.unwrap();
        id
    }

    async fn ready(&self, runtime: Runtime, source: &str, memory_mb: u64) -> (SlotId, EnvironmentId) {
        let environment = self.environment(source).await;
        let slot = SlotId(Uuid::new_v4());
        let purpose = Purpose::Execute {
            environment,
            permissions: Permissions::default(),
        };
        self.engine()
            .create(SlotSpec {
                slot,
                runtime,
                purpose,
                memory_mb,
            })
            .await
            .unwrap();
        (slot, environment)
    }

    /// A whole cold call.
    async fn call(&self, runtime: Runtime, source: &str, limits: Limits) -> Evidence {
        let (slot, environment) = self.ready(runtime, source, limits.memory_mb).await;
        let evidence = self
            .engine()
            .run(slot, call(environment, limits), "main.js".into())
            .await
            .unwrap();
        self.engine().destroy(slot).await.unwrap();
        self.assert_clean().await;
        evidence
    }

    async fn assert_clean(&self) {
        assert_eq!(self.engine().leftovers().await.unwrap(), []);
        assert_eq!(processes_naming(self.dir.path()), Vec::<String>::new());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for file in self.cgroups.open("x").entry_files() {
            let _ = fs::remove_dir(file.parent().and_then(Path::parent).unwrap());
        }
    }
}

fn call(environment: EnvironmentId, limits: Limits) -> Call {
    Call {
        execution: ExecutionId(Uuid::new_v4()),
        environment,
        request: RequestId::accept("r-1").unwrap(),
        data: r#"{"n":20}"#.to_owned(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        limits,
    }
}

fn limits(millis: u64, memory_mb: u64) -> Limits {
    Limits {
        timeout: Duration::from_millis(millis),
        memory_mb,
    }
}

const USUAL: Limits = Limits {
    timeout: Duration::from_secs(10),
    memory_mb: 128,
};

fn processes_naming(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&name))
        .collect()
}

#[tokio::test]
async fn a_result_comes_back_with_its_logs_and_outputs() {
    let world = World::gvisor();
    let source = r#"
        export function handler(event, context) {
            console.warn("careful");
            const say = globalThis.Deno ? (t) => Deno.stdout.writeSync(new TextEncoder().encode(t)) : (t) => process.stdout.write(t);
            say("printed");
            return { twice: event.data.n * 2, env: event.env.GREETING, request: context.requestId };
        }"#;
    for runtime in Runtime::ALL {
        let evidence = world.call(runtime, source, USUAL).await;
        let json = r#"{"twice":40,"env":"hello","request":"r-1"}"#.to_owned();
        assert_eq!(evidence.settlement, Some(Settlement::Result(json)), "{runtime}");
        assert_eq!(judge(&evidence), Outcome::Ok);
        assert_eq!(evidence.stdout.text, "printed");
        assert_eq!(evidence.logs.len(), 1);
        assert!(
            evidence.cpu > Duration::ZERO && evidence.memory_limit_bytes == 128 << 20,
            "{evidence:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_time_limit_in_its_phase() {
    let world = World::gvisor();
    for (source, phase) in [
        ("for (;;) {}", Phase::Import),
        (
            "await new Promise((r) => setTimeout(r, 60_000)); export const handler = () => 1",
            Phase::Import,
        ),
        (
            "export const handler = () => { console.log('so far'); for (;;) {} }",
            Phase::Handler,
        ),
    ] {
        let evidence = world.call(Runtime::Deno, source, limits(400, 128)).await;
        assert_eq!(
            (judge(&evidence), evidence.phase),
            (Outcome::Timeout, phase),
            "{source}"
        );
        assert!(
            evidence.handler_time < Duration::from_millis(650),
            "{:?}",
            evidence.handler_time
        );
        assert_eq!(evidence.logs.len(), usize::from(phase == Phase::Handler));
    }
}

#[tokio::test]
async fn a_handler_that_leaves_without_a_word_is_no_result() {
    let world = World::gvisor();
    let leave = "export const handler = () => (globalThis.Deno ?? process).exit(0)";
    for runtime in Runtime::ALL {
        let evidence = world.call(runtime, leave, USUAL).await;
        assert_eq!(
            (judge(&evidence), evidence.end),
            (Outcome::NoResult, End::Closed),
            "{runtime}: {evidence:?}"
        );
        assert_eq!(evidence.process, ProcessEnd::Exited(0));
    }
}

#[tokio::test]
async fn a_forged_frame_is_never_a_result() {
    let world = World::gvisor();
    let source = r#"
        import { writeSync } from "node:fs";
        export function handler() {
            const body = Buffer.from(JSON.stringify({ type: "result", nonce: "0".repeat(32), json: "\"forged\"" }));
            const frame = Buffer.alloc(4 + body.length);
            frame.writeUInt32BE(body.length);
            body.copy(frame, 4);
            for (let fd = 1; fd < 20; fd++) { try { writeSync(fd, frame); } catch {} }
            process.exit(0);
        }"#;
    let evidence = world.call(Runtime::Bun, source, USUAL).await;
    assert_eq!(evidence.settlement, Some(Settlement::Forged), "{evidence:?}");
    assert_eq!(judge(&evidence), Outcome::NoResult);
}

#[tokio::test]
async fn memory_bombs_are_out_of_memory() {
    let world = World::gvisor();
    let arrays = "export const handler = () => { const a = []; for (;;) a.push(new Array(10_000).fill(1.5)); }";
    let buffers = "export const handler = () => { const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 7)); }";
    let buffers = format!("import {{ Buffer }} from 'node:buffer'; {buffers}");
    for runtime in Runtime::ALL {
        for source in [arrays, &buffers] {
            let evidence = world.call(runtime, source, limits(20_000, 128)).await;
            assert_eq!(
                judge(&evidence),
                Outcome::OutOfMemory,
                "{runtime} {source}: {evidence:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_flood_on_stdout_ends_the_call_and_its_beginning_is_kept() {
    let world = World::gvisor();
    let source = r#"
        export function handler() {
            const chunk = new TextEncoder().encode("x".repeat(1 << 16));
            for (;;) Deno.stdout.writeSync(chunk);
        }"#;
    let evidence = world.call(Runtime::Deno, source, USUAL).await;
    assert_eq!(judge(&evidence), Outcome::OutputLimit);
    assert_eq!(evidence.stdout.text.len(), 64 << 10);
    assert!(evidence.stdout.dropped_bytes > 8 << 20);
}

#[tokio::test]
async fn to_destroy_a_slot_ends_its_run_promptly() {
    let world = World::gvisor();
    let (slot, environment) = world
        .ready(
            Runtime::Deno,
            "export const handler = () => new Promise(() => setInterval(() => {}, 1e3))",
            128,
        )
        .await;
    let engine = world.engine();
    let watch = stopwatch::Stopwatch::start();
    let (ran, destroyed) = tokio::join!(engine.run(slot, call(environment, USUAL), "main.js".into()), async {
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
    let gone = engine.run(slot, call(environment, USUAL), "main.js".into()).await;
    assert!(matches!(gone, Err(SandboxError::Unknown(_))), "{gone:?}");

    for delay in [0, 1, 3, 10, 40, 120] {
        let slot = SlotId(Uuid::new_v4());
        let purpose = Purpose::Execute {
            environment,
            permissions: Permissions::default(),
        };
        let spec = SlotSpec {
            slot,
            runtime: Runtime::Bun,
            purpose,
            memory_mb: 64,
        };
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
        let purpose = Purpose::Execute {
            environment,
            permissions: Permissions::default(),
        };
        let spec = SlotSpec {
            slot,
            runtime: Runtime::Bun,
            purpose,
            memory_mb: 64,
        };
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
    world.restart();
    let engine = world.engine();
    let left = engine.leftovers().await.unwrap();
    for slot in [first, second] {
        let kinds: Vec<_> = left
            .iter()
            .filter(|found| found.slot == slot)
            .map(|found| found.kind)
            .collect();
        assert_eq!(kinds, ["bundle", "cgroup", "process", "runtime state"]);
        engine.destroy(slot).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn a_missing_image_and_a_broken_one_say_so() {
    let mut world = World::gvisor();
    let spec = |runtime| SlotSpec {
        slot: SlotId(Uuid::new_v4()),
        runtime,
        purpose: Purpose::Transpile,
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
    engine.settings.images = BTreeMap::from([(Runtime::Bun, broken)]);
    assert!(matches!(
        engine.create(spec(Runtime::Deno)).await,
        Err(SandboxError::RuntimeMissing(Runtime::Deno))
    ));
    let died = engine.create(spec(Runtime::Bun)).await;
    let Err(SandboxError::DiedEarly { end, detail }) = died else {
        panic!("{died:?}")
    };
    assert!(
        end.contains("exit code") && detail.contains("/usr/bin/bun"),
        "{end}: {detail}"
    );
    for left in engine.leftovers().await.unwrap() {
        engine.destroy(left.slot).await.unwrap();
    }
    world.assert_clean().await;
}

/// A runner that answers transpile tasks and nothing else.
const TRANSPILER: &str = r#"
    import { readSync, writeSync } from "node:fs";
    const send = (value) => {
        const body = Buffer.from(JSON.stringify(value));
        const header = Buffer.alloc(4);
        header.writeUInt32BE(body.length);
        writeSync(3, Buffer.concat([header, body]));
    };
    send({ type: "ready", protocol: 1, runtime: "bun", version: "0" });
    const bytes = Buffer.alloc(65536);
    const request = JSON.parse(bytes.subarray(4, readSync(4, bytes)).toString());
    const modules = {}, errors = [];
    for (const [module, source] of Object.entries(request.modules)) {
        try { modules[module] = new Bun.Transpiler({ loader: "ts" }).transformSync(source); }
        catch (error) { errors.push({ module, message: String(error.message ?? error), line: 1 }); }
    }
    const { nonce } = request;
    send(errors.length ? { type: "transpiled", nonce, errors } : { type: "transpiled", nonce, modules });
"#;

#[tokio::test]
async fn the_transpile_task_answers_with_modules_or_faults() {
    let mut world = World::gvisor();
    let engine = world.engine.as_mut().unwrap();
    let found = engine.find_tools().await.unwrap();
    let runner = found.runners.of(Runtime::Bun).join("runner.js");
    fs::write(runner, TRANSPILER).unwrap();
    engine.tools = OnceCell::new_with(Some(found));
    for (source, good) in [("export const a: number = 1;", true), ("const = 1", false)] {
        let slot = SlotId(Uuid::new_v4());
        let spec = SlotSpec {
            slot,
            runtime: Runtime::Bun,
            purpose: Purpose::Transpile,
            memory_mb: 256,
        };
        world.engine().create(spec).await.unwrap();
        let modules = BTreeMap::from([("a.ts".to_owned(), source.to_owned())]);
        let answer = world.engine().transpile(slot, modules, USUAL).await.unwrap();
        match answer {
            Transpiled::Modules(modules) => assert!(good && !modules["a.ts"].contains("number"), "{modules:?}"),
            Transpiled::Faults(faults) => assert!(!good && faults[0].module == "a.ts", "{faults:?}"),
        }
        world.engine().destroy(slot).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn the_probe_finds_the_engine_and_remembers_it() {
    let mut world = World::gvisor();
    let first = world.engine().probe().await;
    assert_eq!(first.problems, Vec::<String>::new());
    assert!(
        first.isolated && first.engine == "runsc" && first.runtimes.len() == 2,
        "{first:?}"
    );
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
        let evidence = world
            .call(runtime, "export const handler = (e) => e.data.n + 1", USUAL)
            .await;
        assert_eq!(
            evidence.settlement,
            Some(Settlement::Result("21".into())),
            "{runtime}: {evidence:?}"
        );
        let evidence = world
            .call(
                runtime,
                "export const handler = () => { for (;;) {} }",
                limits(300, 128),
            )
            .await;
        assert_eq!(judge(&evidence), Outcome::Timeout, "{runtime}");
    }
}
