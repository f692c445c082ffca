//! What a cold call costs beside a bare `runsc run` of the same bundle. Not a test of right and wrong:
//! `cargo test --release --bin cloister measure -- --ignored --nocapture`.

use super::*;
use crate::adapters::runsc::channel::Incoming;
use crate::adapters::runsc::frame::encode;
use crate::adapters::runsc::stopwatch::Stopwatch;
use crate::adapters::runsc::{flags, line, spec};
use crate::ports::process::SpawnRequest;

const ROUNDS: usize = 25;
const HANDLER: &str = "export const handler = (e) => e.data.n + 1";

#[tokio::test]
#[ignore = "a measurement, for a quiet machine"]
async fn measure_a_cold_call_beside_a_bare_run() {
    let world = World::gvisor();
    for runtime in Runtime::ALL {
        let environment = world.environment(HANDLER).await;
        let mut spans: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for round in 0..=ROUNDS {
            let mut note = |name: &'static str, millis: f64| {
                // The first round fills the page cache.
                if round > 0 {
                    spans.entry(name).or_default().push(millis);
                }
            };
            let (ready, result, whole) = bare(&world, runtime, environment).await;
            note("bare: spawn to ready", ready);
            note("bare: spawn to result", result);
            note("bare: spawn to exit", whole);

            let slot = SlotId(Uuid::new_v4());
            let purpose = Purpose::Execute {
                environment,
                permissions: Permissions::default(),
            };
            let engine = world.engine();
            let watch = Stopwatch::start();
            engine
                .create(SlotSpec {
                    slot,
                    runtime,
                    purpose,
                    memory_mb: 128,
                })
                .await
                .unwrap();
            let made = watch.millis();
            note("engine: create", made);
            let evidence = engine
                .run(slot, call(environment, USUAL), "main.js".into())
                .await
                .unwrap();
            assert_eq!(judge(&evidence), Outcome::Ok);
            let answered = watch.millis();
            note("engine: run", answered - made);
            note("engine: create to result", answered);
            engine.destroy(slot).await.unwrap();
            note("engine: destroy", watch.millis() - answered);
            note("engine: create to destroyed", watch.millis());
        }
        println!("{runtime}");
        for (name, mut millis) in spans {
            millis.sort_by(f64::total_cmp);
            println!(
                "  {name:30} p50 {:6.1}  min {:6.1}  p95 {:6.1} ms",
                millis[ROUNDS / 2],
                millis[0],
                millis[ROUNDS * 95 / 100]
            );
        }
    }
}

/// The same bundle by the same command line, without cgroup, without a watch.
async fn bare(world: &World, runtime: Runtime, environment: EnvironmentId) -> (f64, f64, f64) {
    let dir = world.dir.path().join("bare");
    fs::create_dir_all(&dir).unwrap();
    let tools = world.engine().tools().await.unwrap();
    let bundle = spec::Bundle {
        runtime,
        gvisor: true,
        permissions: Permissions::default(),
        memory_mb: 128,
        tmp_mb: 64,
        rootfs: fs::canonicalize(Path::new(IMAGES).join(runtime.as_str()).join("rootfs")).unwrap(),
        runner: tools.runners.of(runtime),
        workspace: Some(world.volumes.path(&environment.volume_name()).join("workspace")),
        host_ids: Some(spec::host_ids_of(0)),
    };
    fs::write(dir.join("config.json"), spec::config_json(&bundle).unwrap()).unwrap();
    let watch = Stopwatch::start();
    let (mut line, far) = line::make(world.engine().capture_caps()).unwrap();
    let request = SpawnRequest {
        program: tools.engine.program.clone(),
        args: flags::run(tools.engine.kind, &dir),
        env: Vec::new(),
        cwd: dir.clone(),
        descriptors: far,
        cgroup_entry: Vec::new(),
    };
    let process = HostSpawner.spawn(request).await.unwrap();
    line.frames.set_cap(1 << 20);
    assert!(matches!(line.frames.next().await, Incoming::Frame(_)));
    let ready = watch.millis();
    let asked = br#"{"nonce":"n","task":"execute","main":"main.js","event":{"data":{"n":1},"env":{}},"context":{},"limits":{"resultBytes":1000,"logBytes":1000,"messageBytes":1000}}"#;
    line.request.try_write(&encode(asked).unwrap()).unwrap();
    while let Incoming::Frame(frame) = line.frames.next().await {
        if String::from_utf8_lossy(&frame).contains(r#""type":"result""#) {
            break;
        }
    }
    let result = watch.millis();
    process.wait().await;
    let whole = watch.millis();
    fs::remove_dir_all(&dir).unwrap();
    (ready, result, whole)
}
