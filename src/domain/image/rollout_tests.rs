//! Images that come, pass, fail and take over.

use proptest::prelude::*;

use super::*;

const DENO: Runtime = Runtime::Deno;
const SECOND: Duration = Duration::from_secs(1);

fn digest(fill: u8) -> Digest {
    Digest::of_bytes(&[fill; 32])
}

/// Rollouts, a clock, and what is to be done.
struct World {
    rollouts: Rollouts,
    now: Moment,
    due: Vec<Effect>,
}

impl World {
    fn new(serving: Option<u8>, soak: u32) -> Self {
        Self { rollouts: Rollouts::new([(DENO, serving.map(digest))], soak), now: Moment(0), due: Vec::new() }
    }

    fn step(&mut self, event: Event) -> &mut Self {
        let effects = self.rollouts.step(DENO, event, self.now);
        self.due = effects;
        self
    }

    fn found(&mut self, fill: u8) -> &mut Self {
        self.step(Event::Check).step(Event::Found { digest: digest(fill), stale: None })
    }

    /// As many good starts as are asked for; the last effects stay.
    fn pass(&mut self, starts: u32) -> &mut Self {
        for _ in 0..starts {
            assert!(self.due.iter().any(|effect| matches!(effect, Effect::Try { .. })), "{:?}", self.due);
            self.step(Event::Passed { took: SECOND });
            self.now = self.now.after(SECOND);
            if !self.due.iter().any(|effect| matches!(effect, Effect::Record { .. })) {
                self.step(Event::Tick);
            }
        }
        self
    }

    fn picture(&self) -> RolloutPicture {
        self.rollouts.pictures().remove(0)
    }
}

#[test]
fn the_first_image_serves_after_one_start() {
    let mut world = World::new(None, 200);
    world.found(1).pass(1);
    assert_eq!(world.due, [Effect::Record { runtime: DENO, digest: digest(1) }]);
    world.step(Event::Recorded);
    assert_eq!(world.picture().serving, Some(digest(1).to_string()));
    assert_eq!(world.rollouts.complaints(), [""; 0]);
}

#[test]
fn a_new_image_is_soaked_while_the_former_one_serves() {
    let mut world = World::new(Some(1), 3);
    world.found(2).pass(2);
    let picture = world.picture();
    assert_eq!((picture.serving, picture.on_trial), (Some(digest(1).to_string()), Some(digest(2).to_string())));
    assert_eq!((picture.passed, picture.needed), (2, 3));
    assert_eq!(
        world.rollouts.complaints(),
        ["deno: image 020202020202 is on trial, 2 of 3 starts; 010101010101 serves until then"]
    );
    world.pass(1).step(Event::Recorded);
    assert_eq!(world.picture().serving, Some(digest(2).to_string()));
}

#[test]
fn an_image_that_fails_keeps_the_former_and_is_not_tried_again_by_itself() {
    let mut world = World::new(Some(1), 3);
    world.found(2).pass(1).step(Event::Failed { reason: "it died".into() });
    assert_eq!(world.due, []);
    let told = "image 020202020202 failed at start 2 of 3 (it died); 010101010101 serves on";
    assert_eq!(world.picture().problem.as_deref(), Some(told));
    assert_eq!(world.picture().serving, Some(digest(1).to_string()));
    world.found(2);
    assert_eq!(world.due, [Effect::Try { runtime: DENO, digest: digest(2) }], "whoever asks again gets another trial");
}

#[test]
fn what_disturbs_a_trial_does_not_end_it() {
    let mut world = World::new(Some(1), 2);
    world.found(2).pass(1).step(Event::Disturbed { reason: "no cgroup".into() });
    assert_eq!(world.due, [Effect::WakeIn(SECOND)]);
    assert!(world.picture().problem.is_some_and(|text| text.contains("no cgroup")));
    world.now = world.now.after(SECOND);
    world.step(Event::Tick).pass(1);
    assert_eq!(world.due, [Effect::Record { runtime: DENO, digest: digest(2) }]);
}

#[test]
fn a_place_that_does_not_answer_is_asked_again_ever_more_rarely() {
    let mut world = World::new(Some(1), 2);
    world.step(Event::Check).step(Event::NotFound { reason: "away".into(), again: true });
    assert_eq!(world.due, [Effect::WakeIn(AGAIN_FIRST)]);
    assert_eq!(world.rollouts.complaints(), ["deno: away; 010101010101 serves on"]);
    let mut waits = Vec::new();
    for _ in 0..8 {
        world.now = world.now.after(AGAIN_MOST);
        world.step(Event::Tick);
        assert_eq!(world.due, [Effect::Find { runtime: DENO }]);
        world.step(Event::Found { digest: digest(1), stale: Some("away".into()) });
        let [Effect::WakeIn(wait)] = world.due[..] else { panic!("{:?}", world.due) };
        waits.push(wait.as_secs());
    }
    assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600, 600]);
    world.step(Event::Check).step(Event::Found { digest: digest(1), stale: None });
    assert_eq!((world.due.clone(), world.rollouts.complaints()), (vec![], vec![]));
    world.step(Event::Check).step(Event::NotFound { reason: "no image".into(), again: false });
    assert_eq!(world.due, []);
}

#[test]
fn asking_while_something_is_under_way_is_not_forgotten() {
    let mut world = World::new(Some(1), 1);
    world.found(2).step(Event::Check).step(Event::Passed { took: SECOND }).step(Event::Recorded);
    assert_eq!(world.due, [Effect::Find { runtime: DENO }]);
}

/// What may happen next, as a shell could tell it.
fn events() -> impl Strategy<Value = (bool, Event, u64)> {
    let found = |(fill, stale): (u8, bool)| Event::Found { digest: digest(fill), stale: stale.then(|| "away".into()) };
    let event = prop_oneof![
        Just(Event::Check),
        (0_u8..4, any::<bool>()).prop_map(found),
        any::<bool>().prop_map(|again| Event::NotFound { reason: "none".into(), again }),
        (0_u64..9000).prop_map(|took| Event::Passed { took: Duration::from_millis(took) }),
        (0_u64..9000).prop_map(|took| Event::Passed { took: Duration::from_millis(took) }),
        Just(Event::Failed { reason: "it died".into() }),
        Just(Event::Disturbed { reason: "busy".into() }),
        Just(Event::Recorded),
        Just(Event::NotRecorded { reason: "full".into() }),
        Just(Event::Tick),
    ];
    (any::<bool>(), event, prop_oneof![Just(0_u64), 1_u64..700_000])
}

proptest! {
    #[test]
    fn nothing_serves_untried_and_one_trial_runs_at_a_time(
        script in prop::collection::vec(events(), 1..120), soak in 0_u32..4, first in prop::option::of(0_u8..4)
    ) {
        let mut rollouts = Rollouts::new([(Runtime::Deno, first.map(digest)), (Runtime::Bun, None)], soak);
        let mut now = Moment(0);
        let mut trying: Option<(Runtime, Digest)> = None;
        let mut recording: BTreeMap<Runtime, Digest> = BTreeMap::new();
        let mut good: BTreeMap<(Runtime, Digest), u32> = BTreeMap::new();
        for (is_deno, event, later) in script {
            let runtime = if is_deno { Runtime::Deno } else { Runtime::Bun };
            now = now.after(Duration::from_millis(later));
            let before = rollouts.pictures();
            let tried = trying.clone().filter(|(of, _)| *of == runtime);
            match (&event, tried) {
                (Event::Passed { .. }, Some(key)) => { *good.entry(key).or_default() += 1; trying = None; }
                (Event::Failed { .. }, Some(key)) => { good.remove(&key); trying = None; }
                (Event::Disturbed { .. }, Some(_)) => trying = None,
                (Event::Recorded, _) => if let Some(digest) = recording.remove(&runtime) { good.remove(&(runtime, digest)); },
                (Event::NotRecorded { .. }, _) => drop(recording.remove(&runtime)),
                _ => {}
            }
            for effect in rollouts.step(runtime, event, now) {
                match effect {
                    Effect::Try { runtime, digest } => {
                        prop_assert!(trying.is_none(), "two trials at once");
                        trying = Some((runtime, digest));
                    }
                    Effect::Record { runtime, digest } => {
                        let had_one = before.iter().any(|picture| picture.runtime == runtime && picture.serving.is_some());
                        let needed = if had_one { soak } else { 1 };
                        prop_assert!(good.get(&(runtime, digest.clone())).copied().unwrap_or(0) >= needed);
                        recording.insert(runtime, digest);
                    }
                    Effect::WakeIn(span) => prop_assert!(span <= AGAIN_MOST && !span.is_zero()),
                    Effect::Find { .. } => {}
                }
            }
            for (picture, earlier) in rollouts.pictures().iter().zip(&before) {
                prop_assert!(picture.serving.is_some() || earlier.serving.is_none(), "what served is gone");
            }
        }
    }
}
