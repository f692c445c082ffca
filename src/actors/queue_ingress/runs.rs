//! Runs: on an instance, or in the pool's sandboxes.

use actix::prelude::*;
use uuid::Uuid;

use super::QueueIngress;
use super::work::Outcome;
use crate::domain::execution::{Call, FilesForm, validate_env};
use crate::domain::id::{ExecutionId, RequestId};
use crate::domain::instance::InstanceName;
use crate::domain::job::{ExecuteInput, FailureCode, JobId};
use crate::domain::lease::{Event, RunFault};
use crate::domain::placement::NotRun;
use crate::domain::quota::Work;
use crate::domain::time::whole_millis;
use crate::messages::comfy_process::{InterruptJob, RunJob, RunRefused};
use crate::messages::handle::HandleError;
use crate::messages::sandbox_pool::{CancelExecution, Execute};

impl QueueIngress {
    pub(super) fn run(&mut self, job: JobId, on: InstanceName, ctx: &mut Context<Self>) {
        let uptime = self.deps.clock.uptime();
        let instance = self.deps.instances.iter().find(|instance| instance.name == on);
        let (Some(instance), Some(work)) = (instance, self.works.get_mut(&job)) else { return };
        let Some(comfy) = work.comfy.clone() else { return };
        work.queue_ms = whole_millis(uptime.saturating_sub(work.taken));
        let (run, progress) = (instance.run.clone(), ctx.address().recipient());
        let asked = async move { run.ask(RunJob { job: comfy, progress }).await };
        self.spawn(ctx, asked, move |ingress, ran, ctx| {
            let fault = match ran {
                Ok(Ok(mut report)) => {
                    let was_taken =
                        report.failure.as_ref().is_none_or(|failure| failure.code != FailureCode::Unavailable);
                    if let Some(work) = ingress.works.get_mut(&job) {
                        report.timings.queue_ms = work.queue_ms;
                        work.outcome = Some(Outcome::Comfy(Box::new(report)));
                        if was_taken {
                            // The prompt and its images are needed no more.
                            work.comfy = None;
                        }
                    }
                    if was_taken {
                        return ingress.step(Event::RunEnded { job }, ctx);
                    }
                    // ComfyUI never had it, so another may have it; should that be the last try, the report tells why.
                    RunFault::Lost
                }
                Ok(Err(RunRefused::Busy)) => RunFault::NotRun(NotRun::Busy),
                Ok(Err(RunRefused::NotReady)) => RunFault::NotRun(NotRun::NotReady),
                Err(HandleError::Absent) => RunFault::NotRun(NotRun::Absent),
                Err(HandleError::Lost) => {
                    if let Some(work) = ingress.works.get_mut(&job) {
                        work.outcome = None;
                    }
                    RunFault::Lost
                }
            };
            ingress.step(Event::RunFailed { job, fault }, ctx);
        });
    }

    pub(super) fn execute(&mut self, job: JobId, ctx: &mut Context<Self>) {
        let Some(work) = self.works.get_mut(&job) else { return };
        let Some(input) = work.handler.take() else { return };
        let execution = ExecutionId(Uuid::now_v7());
        work.execution = Some(execution);
        let ExecuteInput { environment, data, env, timeout_ms, memory_mb, .. } = *input;
        let valid = validate_env(&env);
        let request = RequestId::accept(job.as_str()).unwrap_or_else(|| RequestId::from_uuid(execution.0));
        let limits = self.deps.settings.limits.resolve(timeout_ms, memory_mb);
        let tenant = work.tenant.clone();
        let call = Call { execution, environment, request, data, env, limits, files: FilesForm::None };
        let (handle, clock, render) = (self.deps.execute.clone(), self.deps.clock.clone(), self.deps.render);
        let asked = async move {
            valid.map_err(|error| format!("execute: {error}"))?;
            match handle.ask(Execute { call, tenant, work: Work::QueuedCall, following: None }).await {
                Ok(Ok(report)) => Ok(render(report, clock.wall())),
                Ok(Err(error)) => Err(format!("execution_failed: {error}")),
                Err(error) => Err(format!("execution_failed: {error}")),
            }
        };
        self.spawn(ctx, asked, move |ingress, called, ctx| {
            if let Some(work) = ingress.works.get_mut(&job) {
                work.execution = None;
                work.outcome = Some(Outcome::Handler(called));
            }
            ingress.step(Event::RunEnded { job }, ctx);
        });
    }

    pub(super) fn interrupt(&mut self, job: &JobId, on: Option<InstanceName>, ctx: &mut Context<Self>) {
        let instance = on.and_then(|name| self.deps.instances.iter().find(|instance| instance.name == name));
        if let Some(instance) = instance {
            let (interrupt, message) = (instance.interrupt.clone(), InterruptJob { job: job.clone() });
            // Should the instance be gone, its run ends all the same.
            let asked = async move {
                let _ = interrupt.ask(message).await;
            };
            ctx.spawn(asked.into_actor(self));
            return;
        }
        let Some(execution) = self.works.get(job).and_then(|work| work.execution) else { return };
        let cancel = self.deps.cancel.clone();
        let asked = async move {
            let _ = cancel.ask(CancelExecution { execution }).await;
        };
        ctx.spawn(asked.into_actor(self));
    }
}
