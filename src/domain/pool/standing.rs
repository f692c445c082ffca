//! Which sandboxes stand ready before anybody calls: how many of each kind, what is made next, and what makes room.
//!
//! Two kinds stand: for an environment, its module imported; for a runtime, for whichever environment comes. A call takes
//! the first, else the second, else a sandbox of its own. The stock of an environment follows from its rate of calls (`demand`); that of a
//! runtime is at least `runtimes`. All of it stays within a budget of memory, by what such sandboxes were last charged.
//!
//! The budget is shared out first: to the runtimes, then one sandbox to each environment that is called often, the most called first,
//! then a second to each that needs it, and so on. What an environment has had counts for it twice, so that two of like rates do not
//! take the room from each other. Of what has a share, that which is furthest below it is made first, so that a
//! burst of one environment does not keep the others waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use super::demand::Demand;
use crate::domain::environment::Runtime;
use crate::domain::id::EnvironmentId;
use crate::domain::image::Digest;
use crate::domain::time::Moment;

/// What may stand ready.
#[derive(Debug, Clone, Default)]
pub struct StandingPolicy {
    /// Of all that stand, in MiB. 0: none does.
    pub memory_mb: u64,
    /// How many stand for each runtime that is named, at the least.
    pub runtimes: BTreeMap<Runtime, usize>,
    /// How many may stand for one environment.
    pub per_environment: usize,
    /// How many of Deno's compilers stand for set-ups.
    pub compilers: usize,
    /// One that has stood for so long is replaced.
    pub age: Duration,
    /// The memory that they are made for: calls that ask for another cannot take one of Deno's, whose heap has its size by then.
    pub call_memory_mb: u64,
    /// So many calls are served by one sandbox where the environment shares it among its calls.
    pub reuses: u32,
    /// Such a one is ended when nobody has called it for so long.
    pub reuse_idle: Duration,
}

/// Whom a sandbox stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StandsFor {
    Runtime(Runtime),
    Environment(EnvironmentId),
    /// Set-ups that compile TypeScript.
    SetUps,
}

/// What a call needs of its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    pub runtime: Runtime,
    pub memory_mb: u64,
    /// Its environment has no permissions and no way out.
    pub plain: bool,
    /// It brings no variables: a module that was imported before it came cannot have missed any.
    pub bare: bool,
    /// The most calls of its environment at once; none: as many as there are places.
    pub concurrency: Option<usize>,
    /// It may be served where another call of its environment was served before.
    pub shares: bool,
}

/// Before one was made, a sandbox is taken to need this, in MiB (measured with an idle runtime: 75 to 95).
const MEMORY_GUESS_MB: u64 = 96;
const LEAD_GUESS: Duration = Duration::from_secs(1);
/// The first wait after one could not be made; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A rate of less than one call in three hours is not remembered.
const FORGOTTEN: f64 = 1e-4;
/// Environments whose rate is remembered.
const REMEMBERED: usize = 4096;

/// How the making of one kind goes.
#[derive(Debug, Clone, Copy, Default)]
struct Making {
    failures: u32,
    not_before: Moment,
}

impl Making {
    fn failed(&mut self, now: Moment) {
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.after(wait);
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    runtime: Runtime,
    demand: Demand,
    making: Making,
}

/// What making one of a runtime takes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    memory_mb: u64,
    lead: Duration,
    making: Making,
}

/// The pool's knowledge of what should stand ready.
#[derive(Debug)]
pub(super) struct Standing {
    policy: StandingPolicy,
    environments: BTreeMap<EnvironmentId, Known>,
    costs: BTreeMap<Runtime, Cost>,
    compilers: Making,
    /// How many of each kind should stand, as last counted.
    stock: BTreeMap<StandsFor, usize>,
    /// What new sandboxes are made of, of the runtimes that come from images, as far as that was told.
    images: BTreeMap<Runtime, Digest>,
}

/// What to do about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Make(StandsFor),
    /// More stand for this one than should, and take the room.
    MakeRoom(StandsFor),
}

/// Those that stand or are being made, by whom for.
pub(super) type Have = BTreeMap<StandsFor, usize>;

impl Standing {
    pub(super) fn new(policy: StandingPolicy) -> Self {
        let cost = Cost { memory_mb: MEMORY_GUESS_MB, lead: LEAD_GUESS, making: Making::default() };
        let costs = policy.runtimes.keys().map(|runtime| (*runtime, cost)).collect();
        let (environments, stock, images) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut new = Self { policy, environments, costs, compilers: Making::default(), stock, images };
        new.count(Moment(0));
        new
    }

    /// Whether a call may take a sandbox that stands for this one.
    pub(super) fn fits(&self, stands_for: StandsFor, environment: EnvironmentId, wants: &Wants) -> bool {
        let roomy = wants.runtime == Runtime::Bun || wants.memory_mb == self.policy.call_memory_mb;
        roomy
            && match stands_for {
                StandsFor::Runtime(runtime) => wants.plain && runtime == wants.runtime,
                StandsFor::Environment(of) => wants.bare && of == environment,
                StandsFor::SetUps => false,
            }
    }

    pub(super) fn age(&self) -> Duration {
        self.policy.age
    }

    pub(super) fn reuse_idle(&self) -> Duration {
        self.policy.reuse_idle
    }

    /// Whether a sandbox that has begun its `uses`th call, this one, may serve another of its environment after it.
    pub(super) fn may_keep(&self, environment: EnvironmentId, wants: &Wants, uses: u32) -> bool {
        uses < self.policy.reuses && self.may_share(environment, wants)
    }

    /// Whether a call may be served where another of its environment was.
    pub(super) fn may_share(&self, environment: EnvironmentId, wants: &Wants) -> bool {
        wants.shares && self.fits(StandsFor::Environment(environment), environment, wants)
    }

    /// Whether one more fits beside those that stand or are being made, which hold `held_mb` beside their idle runtimes.
    pub(super) fn has_room(&self, stands_for: StandsFor, have: &Have, held_mb: u64) -> bool {
        self.used(have).saturating_add(held_mb).saturating_add(self.memory_mb(stands_for)) <= self.policy.memory_mb
    }

    fn used(&self, have: &Have) -> u64 {
        have.iter().map(|(stands_for, count)| self.memory_mb(*stands_for).saturating_mul(as_u64(*count))).sum()
    }

    /// A call came. Only those that a sandbox for its environment would have served count for its stock; where calls share
    /// one, it is the one before that makes it.
    pub(super) fn note_call(&mut self, environment: EnvironmentId, wants: &Wants, now: Moment) {
        let counts = !wants.shares
            && self.costs.contains_key(&wants.runtime)
            && self.policy.per_environment > 0
            && self.fits(StandsFor::Environment(environment), environment, wants);
        if !counts {
            return;
        }
        let new = Known { runtime: wants.runtime, demand: Demand::default(), making: Making::default() };
        self.environments.entry(environment).or_insert(new).demand.note(now);
        if self.environments.len() > REMEMBERED {
            self.forget_coldest(now);
        }
        let stands_for = StandsFor::Environment(environment);
        if self.wanted(environment, now) != self.stock(stands_for) {
            self.count(now);
        }
    }

    pub(super) fn forget(&mut self, environment: EnvironmentId) {
        self.environments.remove(&environment);
        self.stock.remove(&StandsFor::Environment(environment));
    }

    fn forget_coldest(&mut self, now: Moment) {
        let rate = |known: &Known| known.demand.rate(now);
        let coldest = self.environments.iter().min_by(|(_, a), (_, b)| rate(a).total_cmp(&rate(b)));
        if let Some(environment) = coldest.map(|(environment, _)| *environment) {
            self.forget(environment);
        }
    }

    /// One stands ready, after `took`.
    pub(super) fn note_stood(&mut self, stands_for: StandsFor, took: Duration) {
        if let Some(making) = self.making(stands_for) {
            *making = Making::default();
        }
        if let Some(cost) = self.cost(stands_for) {
            cost.lead = (cost.lead * 3 + took) / 4;
        }
    }

    /// One that stands was found to be charged this much.
    pub(super) fn note_memory(&mut self, stands_for: StandsFor, memory_mb: u64) {
        if let Some(cost) = self.cost(stands_for) {
            cost.memory_mb = (cost.memory_mb * 3 + memory_mb) / 4;
        }
    }

    /// One could not be made, or ended while it stood.
    pub(super) fn note_failed(&mut self, stands_for: StandsFor, now: Moment) {
        if let Some(making) = self.making(stands_for) {
            making.failed(now);
        }
    }

    /// Notes what new sandboxes of a runtime are made of. True when what was begun before may be of another image: of the
    /// first one that is told nobody knows since when it serves. What could not be made of the other may be made of this one.
    pub(super) fn note_image(&mut self, runtime: Runtime, image: Digest) -> bool {
        if self.images.get(&runtime) == Some(&image) {
            return false;
        }
        self.images.insert(runtime, image);
        if let Some(cost) = self.costs.get_mut(&runtime) {
            cost.making = Making::default();
        }
        if runtime == Runtime::Deno {
            self.compilers = Making::default();
        }
        for known in self.environments.values_mut().filter(|known| known.runtime == runtime) {
            known.making = Making::default();
        }
        true
    }

    /// Whether it stands for the runtime, or for an environment of it. Of one that nobody calls any more that is forgotten:
    /// what still stands for it is one too many anyway.
    pub(super) fn may_be_of(&self, stands_for: StandsFor, runtime: Runtime) -> bool {
        self.runtime_of(stands_for).is_none_or(|of| of == runtime)
    }

    fn making(&mut self, stands_for: StandsFor) -> Option<&mut Making> {
        match stands_for {
            StandsFor::Runtime(runtime) => self.costs.get_mut(&runtime).map(|cost| &mut cost.making),
            StandsFor::SetUps => Some(&mut self.compilers),
            StandsFor::Environment(id) => self.environments.get_mut(&id).map(|known| &mut known.making),
        }
    }

    fn cost(&mut self, stands_for: StandsFor) -> Option<&mut Cost> {
        self.runtime_of(stands_for).and_then(|runtime| self.costs.get_mut(&runtime))
    }

    fn runtime_of(&self, stands_for: StandsFor) -> Option<Runtime> {
        match stands_for {
            StandsFor::Runtime(runtime) => Some(runtime),
            StandsFor::SetUps => Some(Runtime::Deno),
            StandsFor::Environment(id) => self.environments.get(&id).map(|known| known.runtime),
        }
    }

    /// Counts the stock anew: rates fall by themselves. Forgets what nobody calls any more.
    pub(super) fn count(&mut self, now: Moment) {
        let cold = |known: &mut Known| !known.demand.is_hot(now) && known.demand.rate(now) < FORGOTTEN;
        self.environments.retain(|_, known| !cold(known));
        let before = std::mem::take(&mut self.stock);
        let mut left = self.policy.memory_mb;
        for (runtime, stock) in self.policy.runtimes.clone() {
            self.give(StandsFor::Runtime(runtime), stock, &mut left);
        }
        self.give(StandsFor::SetUps, self.policy.compilers, &mut left);
        let mut asking: Vec<(f64, EnvironmentId, usize)> = Vec::new();
        for environment in self.environments.keys().copied().collect::<Vec<_>>() {
            let stands_for = StandsFor::Environment(environment);
            let held = if before.contains_key(&stands_for) { 2.0 } else { 1.0 };
            asking.push((held * self.rate(environment, now), environment, self.wanted(environment, now)));
        }
        asking.retain(|(_, _, wanted)| *wanted > 0);
        asking.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        for round in 1..=self.policy.per_environment {
            for (_, environment, _) in asking.iter().filter(|(_, _, wanted)| *wanted >= round) {
                self.give(StandsFor::Environment(*environment), 1, &mut left);
            }
        }
    }

    /// Adds to a stock as much of `count` as there is memory left for.
    fn give(&mut self, stands_for: StandsFor, count: usize, left: &mut u64) {
        let each = self.memory_mb(stands_for).max(1);
        let given = count.min(usize::try_from(*left / each).unwrap_or(count));
        if given > 0 {
            *left -= each.saturating_mul(as_u64(given));
            *self.stock.entry(stands_for).or_default() += given;
        }
    }

    /// How many should stand for an environment if there were room for all.
    fn wanted(&mut self, environment: EnvironmentId, now: Moment) -> usize {
        let Some(known) = self.environments.get_mut(&environment) else { return 0 };
        let lead = self.costs.get(&known.runtime).map_or(LEAD_GUESS, |cost| cost.lead);
        known.demand.stock(lead, now).min(self.policy.per_environment)
    }

    pub(super) fn stock(&self, stands_for: StandsFor) -> usize {
        self.stock.get(&stands_for).copied().unwrap_or(0)
    }

    fn memory_mb(&self, stands_for: StandsFor) -> u64 {
        let cost = self.runtime_of(stands_for).and_then(|runtime| self.costs.get(&runtime));
        cost.map_or(MEMORY_GUESS_MB, |cost| cost.memory_mb)
    }

    /// What should be made next, with those that stand or are being made. None: all that should stand does, or nothing can
    /// be made now.
    pub(super) fn next(&self, have: &Have, held_mb: u64, now: Moment) -> Option<Next> {
        let short = |(stands_for, stock): (&StandsFor, &usize)| {
            let has = have.get(stands_for).copied().unwrap_or(0);
            let ready = self.may_be_made(*stands_for, now);
            (has < *stock && ready).then_some((*stands_for, has, *stock))
        };
        // Shares compared without fractions: has / stock.
        let order = |(_, a_has, a_of): &(StandsFor, usize, usize), (_, b_has, b_of): &(StandsFor, usize, usize)| {
            (a_has * b_of).cmp(&(b_has * a_of))
        };
        let (next, _, _) = self.stock.iter().filter_map(short).min_by(order)?;
        if self.has_room(next, have, held_mb) {
            return Some(Next::Make(next));
        }
        let surplus = have.iter().find(|(stands_for, count)| **count > self.stock(**stands_for));
        surplus.map(|(stands_for, _)| Next::MakeRoom(*stands_for))
    }

    fn may_be_made(&self, stands_for: StandsFor, now: Moment) -> bool {
        let of_runtime = self.runtime_of(stands_for).and_then(|runtime| self.costs.get(&runtime));
        let of_environment = match stands_for {
            StandsFor::Runtime(_) => None,
            StandsFor::SetUps => Some(self.compilers),
            StandsFor::Environment(id) => self.environments.get(&id).map(|known| known.making),
        };
        let waits = of_runtime.map(|cost| cost.making).into_iter().chain(of_environment);
        waits.map(|making| making.not_before).all(|not_before| now >= not_before)
    }

    fn rate(&self, environment: EnvironmentId, now: Moment) -> f64 {
        self.environments.get(&environment).map_or(0.0, |known| known.demand.rate(now))
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
