//! Sandboxes that stand ready before they are claimed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::ports::sandbox::Preparation;

const SOURCE: &str = r#"
    import { twice } from "./twice.js";
    console.log("imported");
    export function handler(event) {
        return { twice: twice(event.data.n), url: import.meta.url, env: event.env.GREETING };
    }"#;
const RESULT: &str = r#"{"twice":40,"url":"file:///workspace/main.js","env":"hello"}"#;

impl World {
    /// A sandbox that rests, with this module imported or with none.
    async fn standing(&self, runtime: Runtime, tier: Tier) -> (SlotId, EnvironmentId) {
        let environment = self.environment(SOURCE).await;
        let twice = ("workspace/twice.js".to_owned(), b"export const twice = (n) => 2 * n;".to_vec());
        self.volumes.make(&environment.volume_name(), [twice].into()).await.unwrap();
        let slot = SlotId(Uuid::new_v4());
        let purpose = match tier {
            Tier::Environment => for_environment(environment),
            Tier::Runtime => Purpose::StandForRuntime,
        };
        self.engine().create(SlotSpec { slot, runtime, purpose, memory_mb: 128 }).await.unwrap();
        if tier == Tier::Environment {
            let preparation = Preparation { main_module: "main.js".into(), limits: USUAL };
            self.engine().prepare(slot, preparation).await.unwrap();
        }
        assert!(self.engine().rest(slot).await.unwrap().memory_bytes > 1 << 20);
        (slot, environment)
    }

    /// As the pool claims it.
    async fn claim(&self, (slot, environment): (SlotId, EnvironmentId), tier: Tier) -> Result<Evidence, SandboxError> {
        if tier == Tier::Runtime {
            self.engine().attach(slot, &environment.volume_name()).await?;
        }
        self.engine().run(slot, &call(environment, USUAL), "main.js", false, None).await
    }

    /// One that stood, and the evidence of the call that it answered as it should.
    async fn answers(&self, runtime: Runtime, tier: Tier) -> ((SlotId, EnvironmentId), Evidence) {
        let standing = self.standing(runtime, tier).await;
        let evidence = self.claim(standing, tier).await.unwrap();
        let result = Some(Settlement::Result(RESULT.to_owned()));
        assert_eq!(evidence.settlement, result, "{runtime} {tier:?}: {evidence:?}");
        (standing, evidence)
    }
}

/// With no permissions and no secrets.
fn for_environment(environment: EnvironmentId) -> Purpose {
    Purpose::StandForEnvironment {
        environment,
        volume: environment.volume_name(),
        permissions: Permissions::default(),
        secrets: Vec::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Environment,
    Runtime,
}
const TIERS: [Tier; 2] = [Tier::Environment, Tier::Runtime];

#[tokio::test]
async fn a_standing_sandbox_answers_as_a_cold_one_does() {
    let world = World::gvisor();
    for (runtime, tier) in Runtime::ALL.into_iter().flat_map(|runtime| TIERS.map(|tier| (runtime, tier))) {
        let (standing, evidence) = world.answers(runtime, tier).await;
        assert_eq!(evidence.logs.len(), 1, "what the module logged is the call's");
        assert!(!world.engine().lost(standing.0).await, "it was claimed");
        assert!(matches!(world.claim(standing, tier).await, Err(SandboxError::Unknown(_))), "and only once");
        world.engine().destroy(standing.0).await.unwrap();
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn one_that_was_woken_rests_again_or_answers_and_is_charged_for_each_moment_once() {
    let world = World::gvisor();
    for (runtime, tier) in Runtime::ALL.into_iter().flat_map(|runtime| TIERS.map(|tier| (runtime, tier))) {
        let standing = world.standing(runtime, tier).await;
        for _ in 0..2 {
            world.engine().wake(standing.0).await.unwrap();
        }
        let rested = world.engine().rest(standing.0).await.unwrap();
        assert!(rested.cpu < Duration::from_secs(1), "{rested:?}");
        let again = world.engine().rest(standing.0).await.unwrap();
        assert_eq!(again.cpu, Duration::ZERO, "it stood still: {runtime} {tier:?}");
        world.engine().wake(standing.0).await.unwrap();
        let evidence = world.claim(standing, tier).await.unwrap();
        assert_eq!(evidence.settlement, Some(Settlement::Result(RESULT.to_owned())), "{runtime} {tier:?}");
        assert!(matches!(world.engine().wake(standing.0).await, Err(SandboxError::Unknown(_))), "it was claimed");
        assert!(matches!(world.engine().rest(standing.0).await, Err(SandboxError::Unknown(_))));
        world.engine().destroy(standing.0).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn directories_that_are_closed_to_others_cost_the_ids_and_not_the_tier() {
    let world = World::gvisor();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    for (runtime, tier) in Runtime::ALL.into_iter().flat_map(|runtime| TIERS.map(|tier| (runtime, tier))) {
        let (standing, _) = world.answers(runtime, tier).await;
        world.engine().destroy(standing.0).await.unwrap();
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn typescript_that_set_up_emitted_is_found_in_a_sandbox_that_was_made_without_it() {
    let world = World::gvisor();
    let slot = SlotId(Uuid::new_v4());
    let spec = SlotSpec {
        slot,
        runtime: Runtime::Deno,
        purpose: Purpose::Transpile { dependencies: Vec::new() },
        memory_mb: 256,
    };
    world.engine().create(spec).await.unwrap();
    let typescript = "export const handler = (event: { data: { n: number } }): number => event.data.n;";
    let modules = BTreeMap::from([("main.ts".to_owned(), typescript.to_owned())]);
    let answer = world.engine().transpile(slot, modules, limits(60_000, 256)).await.unwrap();
    world.engine().destroy(slot).await.unwrap();
    let crate::ports::sandbox::Transpiled::Modules(emitted) = answer else { panic!("{answer:?}") };
    let sources = BTreeMap::from([("main.ts".to_owned(), typescript.to_owned())]);
    let environment = EnvironmentId(Uuid::new_v4());
    let files = crate::domain::layout::files(sources, emitted);
    world.volumes.make(&environment.volume_name(), files).await.unwrap();

    let slot = SlotId(Uuid::new_v4());
    let spec = SlotSpec { slot, runtime: Runtime::Deno, purpose: Purpose::StandForRuntime, memory_mb: 128 };
    world.engine().create(spec).await.unwrap();
    world.engine().rest(slot).await.unwrap();
    world.engine().attach(slot, &environment.volume_name()).await.unwrap();
    let evidence = world.engine().run(slot, &call(environment, USUAL), "main.ts", false, None).await.unwrap();
    assert_eq!(evidence.settlement, Some(Settlement::Result("20".to_owned())), "{evidence:?}");
    world.engine().destroy(slot).await.unwrap();
    world.assert_clean().await;
}

#[tokio::test]
async fn a_resting_sandbox_uses_no_time_and_its_death_is_told() {
    let world = World::gvisor();
    for tier in TIERS {
        let standing = world.standing(Runtime::Bun, tier).await;
        let slot = world.engine().slots.get(standing.0).unwrap();
        let used = slot.cgroup().unwrap().usage().unwrap().cpu;
        let pid = Pid::from_raw(slot.process().unwrap().pid());
        // As long as another one takes to be made.
        let another = world.standing(Runtime::Bun, tier).await;
        world.engine().destroy(another.0).await.unwrap();
        assert_eq!(slot.cgroup().unwrap().usage().unwrap().cpu, used);
        let cgroup = slot.cgroup.get().unwrap();
        let lost = world.engine().lost(standing.0);
        let end = async {
            kill(pid, Signal::SIGKILL).unwrap();
            // On v1 what is frozen dies when it is thawed.
            cgroup.thaw().unwrap();
        };
        assert!(tokio::join!(lost, end).0);
        assert!(matches!(world.claim(standing, tier).await, Err(SandboxError::Spoiled(_))), "{tier:?}");
        world.engine().destroy(standing.0).await.unwrap();
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn a_module_that_cannot_be_imported_in_time_is_no_standing_sandbox() {
    let world = World::gvisor();
    for (source, outcome) in [
        ("await new Promise(() => setInterval(() => {}, 1000)); export const handler = () => 1", "timeout"),
        ("throw new Error('no')", "handler_error"),
        ("export const other = 1", "no_handler"),
    ] {
        let environment = world.environment(source).await;
        let slot = SlotId(Uuid::new_v4());
        world
            .engine()
            .create(SlotSpec { slot, runtime: Runtime::Deno, purpose: for_environment(environment), memory_mb: 128 })
            .await
            .unwrap();
        let preparation = Preparation { main_module: "main.js".into(), limits: limits(500, 128) };
        let error = world.engine().prepare(slot, preparation).await.unwrap_err();
        assert!(matches!(error, SandboxError::TaskFailed(found) if found == outcome), "{source}: {error:?}");
        world.engine().destroy(slot).await.unwrap();
        world.assert_clean().await;
    }
}

#[tokio::test]
async fn a_timer_that_is_due_while_the_sandbox_rests_does_not_keep_the_call_from_its_answer() {
    let world = World::gvisor();
    let source = "setTimeout(() => { throw new Error('late') }, 1); export const handler = () => 'never';";
    let environment = world.environment(source).await;
    let slot = SlotId(Uuid::new_v4());
    world
        .engine()
        .create(SlotSpec { slot, runtime: Runtime::Bun, purpose: for_environment(environment), memory_mb: 128 })
        .await
        .unwrap();
    world.engine().prepare(slot, Preparation { main_module: "main.js".into(), limits: USUAL }).await.unwrap();
    // Its runner waits for the call in a read, with the event loop at rest: the timer is due when the call is read.
    world.engine().rest(slot).await.unwrap();
    let evidence = world.engine().run(slot, &call(environment, USUAL), "main.js", false, None).await.unwrap();
    assert_eq!(judge(&evidence), Outcome::Ok, "{evidence:?}");
    world.engine().destroy(slot).await.unwrap();
    world.assert_clean().await;
}
