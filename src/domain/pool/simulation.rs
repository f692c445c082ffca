//! The pool against patterns of calls, in simulated time: what a policy gives and what it costs.
//!
//! Every boot takes 300 ms and one of two cores, as the measured ones do (`docs/performance.md`); a call takes 5 ms.
//! `cargo test simulation -- --nocapture` prints the table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::domain::environment::Runtime;
use crate::domain::time::Moment;

const BOOT_MS: u64 = 300;
const CALL_MS: u64 = 5;
const DESTROY_MS: u64 = 20;

/// When an environment is called.
type Pattern = Vec<(u64, u128)>;

/// Five calls a second of one environment, for a minute.
fn steady() -> Pattern {
    (0..300).map(|n| (n * 200, 1)).collect()
}

/// A hundred calls of ten environments at once, after each of them was called now and then.
fn burst() -> Pattern {
    let before = (0..50).map(|n| (n * 500, u128::from(n % 10)));
    before.chain((0..100).map(|n| (40_000, n % 10))).collect()
}

/// A thousand environments that are called once each, three a second.
fn many_cold() -> Pattern {
    (0..1000).map(|n| (n * 333, u128::from(n))).collect()
}

/// One environment that is called twice a second, beside a hundred that are called once.
fn one_hot() -> Pattern {
    let hot = (0..120).map(|n| (n * 500, 0));
    let mut all: Pattern = hot.chain((0..100).map(|n| (n * 600 + 50, u128::from(n + 1)))).collect();
    all.sort_unstable();
    all
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    environment: usize,
    runtime: usize,
    cold: usize,
    /// Of those who waited longest but for one in twenty.
    p95_wait_ms: u64,
    boots: usize,
    /// The most that stood at once.
    most_standing: usize,
}

impl Outcome {
    fn calls(&self) -> usize {
        self.environment + self.runtime + self.cold
    }
}

struct Simulation {
    pool: Pool,
    /// What happens when, in the order it was asked for.
    agenda: BTreeMap<(u64, u64), Event>,
    asked: u64,
    came: BTreeMap<ExecutionId, u64>,
    waits: Vec<u64>,
    gone: BTreeSet<SlotId>,
    outcome: Outcome,
}

impl Simulation {
    fn run(standing: StandingPolicy, pattern: &Pattern) -> Outcome {
        let policy = PoolPolicy {
            max_executions: 50,
            queue: 1000,
            queue_wait: Duration::from_secs(30),
            set_ups: 10,
            boots_at_once: 2,
            standing,
        };
        let mut simulation = Self {
            pool: Pool::new(policy, Uuid::from_u128(1 << 100)),
            agenda: BTreeMap::new(),
            asked: 0,
            came: BTreeMap::new(),
            waits: Vec::new(),
            gone: BTreeSet::new(),
            outcome: Outcome::default(),
        };
        simulation.at(0, Event::Swept);
        let end = pattern.last().map_or(0, |(at, _)| at + 30_000);
        for second in 0..=end / 1000 {
            simulation.at(second * 1000, Event::Tick);
        }
        for (n, (at, environment)) in pattern.iter().enumerate() {
            let execution = ExecutionId(Uuid::from_u128(1 + n as u128));
            let environment = EnvironmentId(Uuid::from_u128(1 + environment));
            // The stock of the runtimes has its time before the first call.
            simulation.came.insert(execution, at + 2000);
            simulation.at(at + 2000, Event::CallCame { execution, environment, tenant: TenantName::operator() });
        }
        while let Some(((now, _), event)) = simulation.agenda.pop_first() {
            for effect in simulation.pool.step(event, Moment(now)) {
                simulation.perform(now, effect);
            }
            simulation.outcome.most_standing = simulation.outcome.most_standing.max(simulation.pool.picture().standing);
        }
        simulation.waits.sort_unstable();
        simulation.outcome.p95_wait_ms = simulation.waits[simulation.waits.len() * 95 / 100];
        simulation.outcome
    }

    fn at(&mut self, when: u64, event: Event) {
        self.asked += 1;
        self.agenda.insert((when, self.asked), event);
    }

    fn perform(&mut self, now: u64, effect: Effect) {
        match effect {
            Effect::LookUp { execution, .. } => {
                let wants = Wants {
                    runtime: Runtime::Bun,
                    memory_mb: 128,
                    plain: true,
                    bare: true,
                    concurrency: None,
                    shares: false,
                };
                self.at(now, Event::LookedUp { execution, wants: Some(wants) });
            }
            Effect::Boot { slot, .. } => {
                self.outcome.boots += 1;
                self.at(now + BOOT_MS, Event::Booted { slot });
            }
            Effect::Stand { slot, .. } => {
                self.outcome.boots += 1;
                self.at(now + BOOT_MS, Event::Stood { slot });
            }
            Effect::Run { slot, execution, start, .. } => {
                self.waits.push(now - self.came[&execution]);
                match start {
                    Start::Cold => self.outcome.cold += 1,
                    Start::WarmRuntime => self.outcome.runtime += 1,
                    Start::WarmEnvironment | Start::Reused => self.outcome.environment += 1,
                }
                self.at(now + CALL_MS, Event::Settled { slot });
            }
            Effect::Destroy { slot } => {
                assert!(self.gone.insert(slot), "destroyed twice");
                self.at(now + DESTROY_MS, Event::Destroyed { slot });
            }
            Effect::Answer { answer, .. } => assert_eq!(answer, Answer::Settled),
            Effect::WakeIn(after) => self.at(now + u64::try_from(after.as_millis()).unwrap(), Event::Tick),
            other => panic!("{other:?}"),
        }
    }
}

fn policy(runtimes: usize, per_environment: usize) -> StandingPolicy {
    StandingPolicy {
        memory_mb: 2048,
        runtimes: [(Runtime::Bun, runtimes)].into(),
        per_environment,
        compilers: 0,
        age: Duration::from_secs(600),
        call_memory_mb: 128,
        reuses: 1,
        reuse_idle: Duration::ZERO,
    }
}

#[test]
fn the_default_policy_against_its_alternatives() {
    let policies = [
        ("nothing stands", StandingPolicy::default()),
        ("runtimes alone", policy(4, 0)),
        ("environments alone", policy(0, 8)),
        ("both, the default", policy(2, 8)),
    ];
    let patterns = [("steady", steady()), ("burst", burst()), ("many cold", many_cold()), ("one hot", one_hot())];
    println!(
        "{:<10} {:<20} {:>6} {:>8} {:>5} {:>9} {:>6} {:>9}",
        "pattern", "policy", "own", "runtime", "cold", "p95 ms", "boots", "standing"
    );
    let mut found = BTreeMap::new();
    for (pattern, calls) in &patterns {
        for (name, standing) in &policies {
            let outcome = Simulation::run(standing.clone(), calls);
            assert_eq!(outcome.calls(), calls.len(), "every call is served");
            assert!(outcome.boots >= calls.len(), "no sandbox serves two");
            println!(
                "{pattern:<10} {name:<20} {:>6} {:>8} {:>5} {:>9} {:>6} {:>9}",
                outcome.environment,
                outcome.runtime,
                outcome.cold,
                outcome.p95_wait_ms,
                outcome.boots,
                outcome.most_standing
            );
            found.insert((*pattern, *name), outcome);
        }
    }
    let of = |pattern, name| found[&(pattern, name)];
    let default = "both, the default";
    for pattern in ["steady", "many cold", "one hot"] {
        let (ours, bare) = (of(pattern, default), of(pattern, "nothing stands"));
        assert!(ours.p95_wait_ms < 10, "{pattern}: nobody waits for a boot: {ours:?}");
        assert!(bare.p95_wait_ms >= BOOT_MS);
        // What is made and never used is what standing ready costs.
        assert!(ours.boots <= bare.boots + bare.boots / 10 + 10, "{pattern}: {ours:?}");
    }
    assert_eq!(of("many cold", default).environment, 0, "one call is no reason to keep a sandbox");
    assert!(of("steady", default).environment > 260);
    assert!(of("one hot", default).environment > 110 && of("one hot", default).runtime >= 95);
    let (ours, bare) = (of("burst", default), of("burst", "nothing stands"));
    assert!(ours.p95_wait_ms < bare.p95_wait_ms, "{ours:?} {bare:?}");
}
