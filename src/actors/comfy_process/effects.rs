//! What the machine decides, done: every effect is a call, or a future that ends in one event.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, ActorStreamExt, wrap_stream};
use actix::prelude::*;
use futures_util::stream;
use slog::{debug, info, warn};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::ComfyProcess;
use super::pending::{failed, failure};
use crate::domain::instance::{Effect, Event, Leaving, Verdict};
use crate::domain::job::{FailureCode, JobTimings, PromptId};
use crate::domain::time::whole_millis;
use crate::messages::comfy_process::JobProgressed;
use crate::ports::comfy::{ComfyError, ComfyUi, RunEvent};
use crate::telemetry::error_chain;

/// Steps of a run on their way. A run that shows more waits for nobody: the engine drops what finds no place.
const STEPS: usize = 64;
/// Above what the engine itself allows for a probe, an interrupt, and the verification of an end.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
const INTERRUPT_WITHIN: Duration = Duration::from_secs(10);
const STOP_MARGIN: Duration = Duration::from_secs(60);

impl ComfyProcess {
    pub(super) fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Spawn => self.await_turn(ctx),
            Effect::Run { prompt } => self.run(prompt, ctx),
            // Answered where it was asked.
            Effect::Refuse(_) => {}
            Effect::Interrupt { prompt } => self.interrupt(prompt, ctx),
            Effect::Abort => {
                warn!(self.deps.log, "instance.aborting"; "reason" => "a job does not end");
                if let Some(ui) = &self.ui {
                    ui.abort();
                }
            }
            Effect::Stop { grace } => self.stop(grace, ctx),
            Effect::Probe => self.probe(ctx),
            Effect::Clean { prompt } => self.clean(prompt, ctx),
            Effect::Answer { prompt, failure } => self.answer(prompt, failure, ctx),
            Effect::Tell(standing) => {
                self.tell(&standing);
                // Readiness need not wait for the next beat.
                self.seat.beat(self.machine.complaints(self.deps.clock.now()));
            }
            Effect::Leave(leaving) => {
                // A start that failed has just said why.
                let record = self.machine.record();
                let last = record.last_failure.clone().filter(|_| record.failed_in_a_row == 0);
                match &self.ui {
                    Some(_) => info!(self.deps.log, "instance.gone"; "leaving" => ?leaving, "last_failure" => last),
                    None => debug!(self.deps.log, "instance.gone"; "leaving" => ?leaving),
                }
                match leaving {
                    Leaving::Requested => self.seat.leave(),
                    Leaving::Recycled => self.seat.recycle(),
                    Leaving::Crashed => {}
                }
                ctx.stop();
            }
        }
    }

    /// Does `work` and turns what comes of it into an event.
    fn then<F>(&self, ctx: &mut Context<Self>, work: F, event: fn(F::Output) -> Event) -> SpawnHandle
    where
        F: Future + 'static,
    {
        ctx.spawn(work.into_actor(self).map(move |output, actor, ctx| actor.step(event(output), ctx)))
    }

    fn await_turn(&mut self, ctx: &mut Context<Self>) {
        let turn = Arc::clone(&self.deps.starts).acquire_owned().into_actor(self);
        self.starting = Some(ctx.spawn(turn.map(|permit, actor, ctx| {
            actor.step(Event::Spawning, ctx);
            // Nobody closes the semaphore; without it all would start at once, which is no reason not to start.
            actor.spawn(permit.ok(), ctx);
        })));
    }

    fn spawn(&mut self, permit: Option<OwnedSemaphorePermit>, ctx: &mut Context<Self>) {
        let (engine, spec) = (Arc::clone(&self.deps.engine), self.deps.spec.clone());
        let start = async move { engine.start(&spec).await }.into_actor(self);
        self.starting = Some(ctx.spawn(start.map(|started, actor, ctx| match started {
            Ok(ui) => {
                info!(actor.deps.log, "instance.spawned"; "port" => actor.deps.spec.port);
                actor.ui = Some(Arc::clone(&ui));
                actor.await_ready(ui, permit, ctx);
            }
            Err(error) => actor.start_failed(&error, ctx),
        })));
    }

    /// The turn ends when the process answers, or does not.
    fn await_ready(&mut self, ui: Arc<dyn ComfyUi>, permit: Option<OwnedSemaphorePermit>, ctx: &mut Context<Self>) {
        let began = self.deps.clock.now();
        let ready = async move { (ui.ready().await, ui) }.into_actor(self);
        self.starting = Some(ctx.spawn(ready.map(move |(ready, ui), actor, ctx| {
            drop(permit);
            if let Err(error) = ready {
                return actor.start_failed(&error, ctx);
            }
            actor.starting = None;
            let took = actor.deps.clock.now().since(began);
            info!(actor.deps.log, "instance.ready"; "took_ms" => whole_millis(took));
            actor.step(Event::Ready, ctx);
            let ended = async move { ui.ended().await };
            actor.then(ctx, ended, |end| Event::ProcessEnded { end: end.end, out_of_memory: end.out_of_memory });
        })));
    }

    fn start_failed(&mut self, error: &ComfyError, ctx: &mut Context<Self>) {
        let reason = error_chain(error).to_string();
        let record = self.machine.record();
        // It may be tried for hours: what was said once is not said again.
        let again = record.last_failure.as_ref() == Some(&reason);
        let said = if again { "as before" } else { reason.as_str() };
        warn!(self.deps.log, "instance.start_failed"; "reason" => said, "in_a_row" => record.failed_in_a_row + 1);
        self.starting = None;
        self.step(Event::StartFailed { reason }, ctx);
    }

    fn run(&mut self, prompt: PromptId, ctx: &mut Context<Self>) {
        let (Some(pending), Some(ui)) = (&mut self.pending, &self.ui) else { return };
        let Some(job) = pending.job.take() else { return };
        let (ui, id, progress) = (Arc::clone(ui), job.id.clone(), pending.progress.clone());
        let (events, mut told) = mpsc::channel(STEPS);
        let run = async move { ui.run(&job, prompt, events).await }.into_actor(self);
        let run = ctx.spawn(run.map(move |report, actor, ctx| {
            if let Some(pending) = actor.pending.as_mut().filter(|pending| pending.prompt == prompt) {
                pending.run = None;
            }
            let failure = report.failure.as_ref().map(|failure| failure.code);
            actor.report = Some(report);
            actor.step(Event::RunEnded { prompt, failure }, ctx);
            actor.report = None;
        }));
        if let Some(pending) = &mut self.pending {
            pending.run = Some(run);
        }
        let steps = wrap_stream::<_, Self>(stream::poll_fn(move |cx| told.poll_recv(cx)));
        let follow = steps.map(move |event, actor, ctx| {
            // What is told after the answer is no news.
            if actor.pending.as_ref().is_none_or(|pending| pending.prompt != prompt) {
                return;
            }
            actor.step(
                if matches!(event, RunEvent::Accepted) { Event::Accepted { prompt } } else { Event::Sign { prompt } },
                ctx,
            );
            if let RunEvent::Progress(step) = event {
                drop(progress.try_send(JobProgressed { job: id.clone(), progress: step }));
            }
        });
        ctx.spawn(follow.finish());
    }

    fn answer(&mut self, prompt: PromptId, verdict: Option<Verdict>, ctx: &mut Context<Self>) {
        let Some(pending) = self.pending.take_if(|pending| pending.prompt == prompt) else { return };
        if let Some(run) = pending.run {
            ctx.cancel_future(run);
        }
        let run_ms = whole_millis(self.deps.clock.now().since(pending.began));
        let mut report = self.report.take().unwrap_or_else(|| {
            let summary = "ComfyUI told nothing of the job's end".to_owned();
            let empty = failed(prompt, Verdict { code: FailureCode::Crashed, summary });
            crate::domain::job::ComfyReport { timings: JobTimings { run_ms, ..JobTimings::default() }, ..empty }
        });
        if let Some(verdict) = verdict {
            report.failure = Some(failure(verdict));
        }
        let outcome = report.failure.as_ref().map_or("ok", |failure| failure.code.as_str());
        info!(self.deps.log, "instance.job_ended"; "prompt" => %prompt, "outcome" => outcome, "took_ms" => run_ms);
        pending.reply.send(report);
    }

    fn interrupt(&self, prompt: PromptId, ctx: &mut Context<Self>) {
        let Some(ui) = self.ui.clone() else { return };
        let log = self.deps.log.clone();
        let asked = async move {
            let heard = timeout(INTERRUPT_WITHIN, ui.interrupt(prompt)).await;
            if let Err(error) = heard.unwrap_or(Err(ComfyError::Silent(INTERRUPT_WITHIN))) {
                warn!(log, "instance.interrupt_failed"; "prompt" => %prompt, "error" => error_chain(&error));
            }
        };
        ctx.spawn(asked.into_actor(self));
    }

    fn probe(&self, ctx: &mut Context<Self>) {
        let Some(ui) = self.ui.clone() else { return };
        let answered = async move { matches!(timeout(PROBE_WITHIN, ui.probe()).await, Ok(Ok(()))) };
        self.then(ctx, answered, |answered| if answered { Event::ProbeAnswered } else { Event::ProbeSilent });
    }

    fn clean(&self, prompt: PromptId, ctx: &mut Context<Self>) {
        let Some(ui) = self.ui.clone() else { return };
        let cleaned = async move {
            match ui.clean(prompt).await {
                Ok(()) => Event::Cleaned { prompt, memory: ui.memory() },
                Err(error) => Event::CleanFailed { prompt, reason: error_chain(&error).to_string() },
            }
        };
        self.then(ctx, cleaned, |event| event);
    }

    /// Without a process there may still be one of an earlier life, or of a start that was cut off.
    fn stop(&mut self, grace: Duration, ctx: &mut Context<Self>) {
        if let Some(starting) = self.starting.take() {
            ctx.cancel_future(starting);
        }
        let (engine, spec, ui) = (Arc::clone(&self.deps.engine), self.deps.spec.clone(), self.ui.clone());
        if ui.is_some() {
            info!(self.deps.log, "instance.stopping"; "grace_ms" => whole_millis(grace));
        }
        let within = grace + STOP_MARGIN;
        let end = async move {
            let ended = async {
                match &ui {
                    Some(ui) => ui.stop(grace).await,
                    None => engine.sweep(&spec).await,
                }
            };
            timeout(within, ended).await.unwrap_or(Err(ComfyError::Silent(within)))
        };
        let log = self.deps.log.clone();
        ctx.spawn(end.into_actor(self).map(move |ended, actor, ctx| match ended {
            Ok(()) => actor.step(Event::Stopped, ctx),
            Err(error) => {
                let reason = error_chain(&error).to_string();
                warn!(log, "instance.wedged"; "reason" => &reason);
                actor.step(Event::StopFailed { reason }, ctx);
            }
        }));
    }
}
