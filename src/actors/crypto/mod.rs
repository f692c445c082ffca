//! Crypto: opens sealed jobs and seals what goes back; the replay guard is its own.
//!
//! ```text
//!   Open ─► compute.rs: read the input, open the box, read what is in it ─► domain::replay ─► ports::replay ─► Request
//!   Seal ─► compute.rs ─► SealedPart              (more than 64 KiB: on a thread that may block, a few at a time)
//!   ReloadKeys, and every few seconds ─► ports::vault: a new current key, former ones destroyed on time
//! ```
//!
//! What holds:
//! * nothing is handed out before the guard's log has it;
//! * a large job delays no small one, and a computation that panics fails its own job only;
//! * while the log cannot be read, nothing sealed is opened: an empty guard would let a replay pass;
//! * the log and the errors name keys by their kid and jobs by their id; nothing of an input, sealed or not.

mod compute;

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{self, LocalBoxActorFuture};
use actix::prelude::*;
use slog::{Logger, debug, error, info, warn};
use tokio::sync::Semaphore;

use crate::actors::seat::Seat;
use crate::domain::job::{JobId, OpenError, Request};
use crate::domain::replay::{Effect, Event, Guard, Policy, Question, Refusal};
use crate::messages::child::Drain;
use crate::messages::crypto::{CryptoPicture, GetCrypto, Open, ReloadKeys, Seal, SealError};
use crate::ports::clock::Clock;
use crate::ports::replay::ReplayLog;
use crate::ports::vault::{KeyInfo, Vault};

use compute::{Ready, Workbench};

#[cfg(test)]
mod doubles;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire_tests;

/// How often keys whose time is over are destroyed.
const RETIRE_EVERY: Duration = Duration::from_secs(10);
/// How often the guard forgets.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How often a log that could not be read is tried again.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// What Crypto works with.
#[derive(Clone)]
pub struct Deps {
    pub vault: Arc<dyn Vault>,
    pub replay: Arc<dyn ReplayLog>,
    pub clock: Arc<dyn Clock>,
    /// True: a workflow in clear is refused.
    pub encryption_required: bool,
    pub policy: Policy,
    pub log: Logger,
}

/// The actor.
pub struct Crypto {
    deps: Deps,
    seat: Seat,
    bench: Workbench,
    guard: Guard,
    /// Why the guard knows nothing of earlier lives; none once it does.
    unloaded: Option<String>,
    /// Why the last request could not be written down; none once one could.
    unwritten: Option<String>,
    /// Why the keys could not be read anew.
    unreloaded: Option<String>,
    asked: Question,
    in_hand: usize,
    draining: bool,
    opened: u64,
    refused: u64,
}

type Opening = LocalBoxActorFuture<Crypto, Result<Request, OpenError>>;

impl Crypto {
    /// A Crypto for one life.
    pub fn new(deps: Deps, seat: Seat) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let bench = Workbench {
            vault: Arc::clone(&deps.vault),
            encryption_required: deps.encryption_required,
            places: Arc::new(Semaphore::new(threads)),
        };
        Self {
            guard: Guard::new(deps.policy),
            unloaded: Some("it was not read yet".to_owned()),
            unwritten: None,
            unreloaded: None,
            asked: 0,
            in_hand: 0,
            draining: false,
            opened: 0,
            refused: 0,
            deps,
            seat,
            bench,
        }
    }

    fn complaints(&self) -> Vec<String> {
        let keyless = self.deps.encryption_required && self.deps.vault.keys().is_empty();
        let no_key = "no private key: set WORKER_PRIVATE_KEY_B64, or crypto.private_key_file";
        let unloaded = self.unloaded.as_ref().map(|why| format!("the replay guard's log: {why}"));
        let unwritten = self.unwritten.as_ref().map(|why| format!("no sealed request is taken: {why}"));
        let unreloaded = self.unreloaded.as_ref().map(|why| format!("the keys could not be read anew: {why}"));
        let room = self.deps.policy.room;
        let crowded = self.guard.remembered() >= room - room / 10;
        let crowded = crowded.then_some("the replay guard is nearly full: rotate the key, or raise crypto.replay_room");
        let told = [keyless.then_some(no_key), crowded].into_iter().flatten().map(str::to_owned);
        told.chain(unloaded).chain(unwritten).chain(unreloaded).collect()
    }

    /// Reads what earlier lives remembered.
    fn load(&self) -> LocalBoxActorFuture<Self, ()> {
        let replay = Arc::clone(&self.deps.replay);
        let work = async move { replay.load().await }.into_actor(self);
        Box::pin(work.map(|loaded, actor, _| match loaded {
            Ok(seen) => {
                let now = actor.deps.clock.wall();
                actor.guard.step(Event::Loaded(seen), now);
                actor.unloaded = None;
                debug!(actor.deps.log, "crypto.guard"; "remembered" => actor.guard.remembered());
            }
            Err(failure) => {
                error!(actor.deps.log, "crypto.guard_failed"; "reason" => %Told(&failure));
                actor.unloaded = Some(Told(&failure).to_string());
            }
        }))
    }

    fn forget(&mut self, ctx: &mut Context<Self>) {
        let ring: Vec<_> = self.deps.vault.keys().iter().map(|key| key.kid).collect();
        let now = self.deps.clock.wall();
        if self.unloaded.is_some()
            || !self.guard.step(Event::Tick { ring: ring.clone() }, now).contains(&Effect::Forget)
        {
            return;
        }
        let replay = Arc::clone(&self.deps.replay);
        let work = async move { replay.forget(now, &ring).await };
        ctx.spawn(work.into_actor(self).map(|done, actor, _| match done {
            Ok(0) => {}
            Ok(forgotten) => debug!(actor.deps.log, "crypto.forgot"; "requests" => forgotten),
            Err(failure) => warn!(actor.deps.log, "crypto.guard_failed"; "reason" => %Told(&failure)),
        }));
    }

    fn retire(&mut self) {
        let destroyed = self.deps.vault.retire(self.deps.clock.now());
        if destroyed > 0 {
            info!(self.deps.log, "crypto.retired"; "keys" => destroyed);
            self.tell_keys(&self.deps.vault.keys());
        }
    }

    fn tell_keys(&self, keys: &[KeyInfo]) {
        let kids = |current| keys.iter().filter(move |key| key.current == current).map(|key| key.kid.to_string());
        let (current, former) = (kids(true).collect::<Vec<_>>().join(" "), kids(false).collect::<Vec<_>>().join(" "));
        info!(self.deps.log, "crypto.keys"; "current" => current, "former" => former);
        if keys.iter().any(|key| !key.locked) {
            warn!(self.deps.log, "crypto.unlocked_memory"; "hint" => "a key may be swapped out: raise RLIMIT_MEMLOCK");
        }
    }

    /// Asks the guard about a request that opened; one in clear needs no leave.
    fn admit(&mut self, ready: Ready, job: JobId) -> Opening {
        let Ready { request, guarded } = ready;
        let Some(compute::Guarded { tag, kid, sealed_at }) = guarded else {
            return Box::pin(fut::ready(Ok(request)));
        };
        if let Some(why) = &self.unloaded {
            return Box::pin(fut::ready(Err(unguarded(why.clone()))));
        }
        self.asked += 1;
        let asked = Event::Asked { question: self.asked, tag, kid, job, sealed_at };
        let effect = self.guard.step(asked, self.deps.clock.wall()).pop();
        let Some(Effect::Remember { question, seen }) = effect else {
            return Box::pin(fut::ready(self.answer(effect, request, None)));
        };
        let replay = Arc::clone(&self.deps.replay);
        let work = async move { replay.remember(&seen).await }.into_actor(self);
        Box::pin(work.map(move |written, actor, _| {
            let why = written.err().map(|failure| Told(&failure).to_string());
            if let Some(why) = why.as_ref().filter(|_| actor.unwritten.is_none()) {
                warn!(actor.deps.log, "crypto.guard_failed"; "reason" => why);
            }
            actor.unwritten.clone_from(&why);
            let told =
                if why.is_none() { Event::Written { question, tag } } else { Event::NotWritten { question, tag } };
            let effect = actor.guard.step(told, actor.deps.clock.wall()).pop();
            actor.answer(effect, request, why)
        }))
    }

    fn answer(&self, effect: Option<Effect>, request: Request, why: Option<String>) -> Result<Request, OpenError> {
        match effect {
            Some(Effect::Admit(_)) => Ok(request),
            Some(Effect::Refuse(_, Refusal::Replayed)) => Err(OpenError::Replayed),
            Some(Effect::Refuse(_, Refusal::Stale)) => Err(OpenError::Stale(self.deps.policy.window.as_secs())),
            Some(Effect::Refuse(_, Refusal::Full)) => {
                let room = self.deps.policy.room;
                Err(unguarded(format!("it remembers as many requests as it may ({room}): rotate the key")))
            }
            _ => Err(unguarded(why.unwrap_or_else(|| "it gave no answer".to_owned()))),
        }
    }

    /// A job is done with; the last one ends a drain.
    fn let_go(&mut self, ctx: &mut Context<Self>) {
        self.in_hand = self.in_hand.saturating_sub(1);
        self.leave_if_done(ctx);
    }

    fn leave_if_done(&mut self, ctx: &mut Context<Self>) {
        if self.draining && self.in_hand == 0 {
            self.seat.leave();
            ctx.stop();
        }
    }
}

/// An error with what is below it, in one line.
struct Told<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.source() {
            Some(source) => write!(f, ": {}", Told(source)),
            None => Ok(()),
        }
    }
}

fn unguarded(cause: String) -> OpenError {
    OpenError::Host { doing: "the replay guard", cause }
}

impl Actor for Crypto {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tell_keys(&self.deps.vault.keys());
        self.seat.beat(self.complaints());
        ctx.run_interval(self.seat.beat_every(), |actor, _| actor.seat.beat(actor.complaints()));
        ctx.run_interval(RETIRE_EVERY, |actor, _| actor.retire());
        ctx.run_interval(FORGET_EVERY, Self::forget);
        ctx.run_interval(LOAD_EVERY, |actor, ctx| {
            if actor.unloaded.is_some() {
                ctx.wait(actor.load());
            }
        });
        // Whatever is sent in the meantime waits in the mailbox.
        ctx.wait(self.load());
    }
}

impl Handler<Open> for Crypto {
    type Result = ResponseActFuture<Self, Result<Request, OpenError>>;

    fn handle(&mut self, Open { job, input }: Open, _: &mut Self::Context) -> Self::Result {
        if self.draining {
            let cause = "the daemon is stopping".to_owned();
            return Box::pin(fut::ready(Err(OpenError::Host { doing: "opening", cause })));
        }
        self.in_hand += 1;
        let work = self.bench.clone().open(job.clone(), input).into_actor(self);
        let id = job.clone();
        let admitted = work.then(move |ready, actor: &mut Self, _| match ready {
            Ok(ready) => actor.admit(ready, job),
            Err(refused) => Box::pin(fut::ready(Err(refused))),
        });
        Box::pin(admitted.map(move |result, actor, ctx| {
            match &result {
                Ok(_) => actor.opened += 1,
                Err(refused) => {
                    actor.refused += 1;
                    info!(actor.deps.log, "crypto.refused"; "requestId" => %id, "reason" => %refused);
                }
            }
            actor.let_go(ctx);
            result
        }))
    }
}

impl Handler<Seal> for Crypto {
    type Result = ResponseActFuture<Self, <Seal as Message>::Result>;

    fn handle(&mut self, Seal { to, plaintext }: Seal, _: &mut Self::Context) -> Self::Result {
        self.in_hand += 1;
        let work = self.bench.clone().seal(to, plaintext).into_actor(self);
        Box::pin(work.map(|sealed: Result<_, SealError>, actor, ctx| {
            if let Err(failure) = &sealed {
                warn!(actor.deps.log, "crypto.unsealed"; "reason" => %failure);
            }
            actor.let_go(ctx);
            sealed
        }))
    }
}

impl Handler<ReloadKeys> for Crypto {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: ReloadKeys, _: &mut Self::Context) -> Self::Result {
        let (vault, now) = (Arc::clone(&self.deps.vault), self.deps.clock.now());
        let work = tokio::task::spawn_blocking(move || vault.reload(now)).into_actor(self);
        Box::pin(work.map(|reloaded, actor, _| match reloaded.unwrap_or_else(|_| Err("it panicked".to_owned())) {
            Ok(keys) => {
                actor.unreloaded = None;
                actor.tell_keys(&keys);
            }
            Err(why) => {
                warn!(actor.deps.log, "crypto.reload_failed"; "reason" => &why);
                actor.unreloaded = Some(why);
            }
        }))
    }
}

impl Handler<GetCrypto> for Crypto {
    type Result = CryptoPicture;

    fn handle(&mut self, _: GetCrypto, _: &mut Self::Context) -> CryptoPicture {
        let keys = self.deps.vault.keys();
        CryptoPicture {
            kids: keys.iter().map(|key| key.kid.to_string()).collect(),
            public_key: keys.into_iter().find(|key| key.current).map(|key| key.public_key),
            remembered: self.guard.remembered(),
            opened: self.opened,
            refused: self.refused,
        }
    }
}

impl Handler<Drain> for Crypto {
    type Result = ();

    fn handle(&mut self, Drain { hurry }: Drain, ctx: &mut Self::Context) {
        self.draining = true;
        if hurry {
            self.in_hand = 0;
        }
        self.leave_if_done(ctx);
    }
}
