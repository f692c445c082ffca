//! How the children of the GPU side are made: Crypto, one ComfyProcess for each instance, one QueueIngress for each
//! source of jobs.

use std::sync::{Arc, Mutex};

use actix::prelude::*;
use tokio::sync::Semaphore;

use super::gpu::GpuParts;
use super::instances;
use super::parts::{self, Parts};
use crate::actors::comfy_process::{self, ComfyProcess};
use crate::actors::crypto::{self, Crypto};
use crate::actors::queue_ingress::{self, Instance, QueueIngress};
use crate::actors::supervisor::{ChildSpec, RunningChild};
use crate::api::{self, Handles};
use crate::config::Config;
use crate::domain::admission::AdmissionPolicy;
use crate::domain::instance::{InstanceSpec, StartRecord};
use crate::domain::lease::LeasePolicy;
use crate::domain::replay;
use crate::messages::comfy_process::{GetInstance, InstanceStood};
use crate::messages::crypto::{ReloadKeys, Seal};
use crate::messages::handle::Handle;
use crate::messages::queue_ingress::GetIngress;
use crate::messages::supervisor::Abandon;
use crate::ports::job_queue::JobQueue;
use crate::ports::job_source::JobSource;

/// Beside the doors' handles: who of the GPU side speaks to whom.
#[derive(Clone, Default)]
pub struct GpuHandles {
    pub seal: Handle<Seal>,
    pub reload: Handle<ReloadKeys>,
    pub abandon: Handle<Abandon>,
}

/// The doors' handles, with a place for each part of the GPU side.
pub fn handles(gpu: Option<&GpuParts>) -> Handles {
    let sources = gpu.map_or(0, |gpu| 1 + usize::from(gpu.runpod.is_some()));
    let instances = gpu.map_or(0, |gpu| gpu.instances.len());
    Handles {
        instances: (0..instances).map(|_| Handle::default()).collect(),
        ingresses: (0..sources).map(|_| Handle::default()).collect(),
        ..Handles::default()
    }
}

/// The children in their start order; they are stopped in the reverse of it, so that sources settle what they hold first.
pub fn specs(parts: &Parts, gpu: &GpuParts, config: &Config, handles: &Handles, ours: &GpuHandles) -> Vec<ChildSpec> {
    let instance =
        |spec: &InstanceSpec| Instance { name: spec.name, run: Handle::default(), interrupt: Handle::default() };
    let instances: Vec<Instance> = gpu.instances.iter().map(instance).collect();
    let local: Arc<dyn JobSource> = gpu.local.clone();
    let queue: Arc<dyn JobQueue> = gpu.local.clone();
    let runpod = gpu.runpod.clone().map(|source| ("queue_runpod", source as Arc<dyn JobSource>, None));
    let sources: Vec<_> = std::iter::once(("queue_local", local, Some(queue))).chain(runpod).collect();
    let stood: Vec<Handle<InstanceStood>> = sources.iter().map(|_| Handle::default()).collect();
    let mut specs = vec![crypto(parts, gpu, config, handles, ours)];
    let starts = Arc::new(Semaphore::new(config.comfy.starts_at_once));
    for ((spec, instance), picture) in gpu.instances.iter().zip(&instances).zip(&handles.instances) {
        let deps = comfy_process::Deps {
            spec: spec.clone(),
            engine: gpu.engine.clone(),
            gpus: gpu.gpus.clone(),
            clock: parts.clock.clone(),
            policy: instances::policy(&config.comfy),
            starts: Arc::clone(&starts),
            record: Arc::new(Mutex::new(StartRecord::default())),
            ingresses: stood.clone(),
            log: parts.log.new(slog::o!("actor" => spec.name)),
        };
        specs.push(comfy(deps, instance.clone(), picture.clone()));
    }
    for (((name, source, queue), stood), picture) in sources.into_iter().zip(stood).zip(&handles.ingresses) {
        let is_local = queue.is_some();
        let deps = queue_ingress::Deps {
            source,
            queue,
            open: handles.open.clone(),
            seal: ours.seal.clone(),
            instances: instances.clone(),
            execute: handles.execute.clone(),
            cancel: handles.cancel.clone(),
            render: api::dto::execution_json,
            fetcher: gpu.fetcher.clone(),
            objects: gpu.objects.clone(),
            bucket: gpu.bucket.clone(),
            abandon: ours.abandon.clone(),
            clock: parts.clock.clone(),
            log: parts.log.new(slog::o!("actor" => name)),
            settings: ingress_settings(parts, config, is_local),
        };
        let told = Told { stood, picture: picture.clone(), doors: is_local.then(|| handles.clone()) };
        specs.push(ingress(name, deps, told));
    }
    specs
}

fn crypto(parts: &Parts, gpu: &GpuParts, config: &Config, handles: &Handles, ours: &GpuHandles) -> ChildSpec {
    let deps = crypto::Deps {
        vault: gpu.vault.clone(),
        replay: gpu.replay.clone(),
        clock: parts.clock.clone(),
        encryption_required: config.crypto.required,
        policy: replay::Policy { window: config.crypto.replay_window, room: config.crypto.replay_room },
        log: parts.log.new(slog::o!("actor" => "crypto")),
    };
    let (handles, ours) = (handles.clone(), ours.clone());
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = Crypto::start_in_arbiter(&arbiter.handle(), move |_| Crypto::new(deps, seat));
        handles.open.publish(&address);
        handles.crypto.publish(&address);
        ours.seal.publish(&address);
        ours.reload.publish(&address);
        let (handles, ours) = (handles.clone(), ours.clone());
        let dismiss = move || {
            handles.open.withdraw();
            handles.crypto.withdraw();
            ours.seal.withdraw();
            ours.reload.withdraw();
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    ChildSpec { name: "crypto", essential: true, start: Box::new(start) }
}

fn comfy(deps: comfy_process::Deps, instance: Instance, picture: Handle<GetInstance>) -> ChildSpec {
    let name = deps.spec.name;
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = ComfyProcess::start_in_arbiter(&arbiter.handle(), move |_| ComfyProcess::new(deps, seat));
        instance.run.publish(&address);
        instance.interrupt.publish(&address);
        picture.publish(&address);
        let (instance, picture) = (instance.clone(), picture.clone());
        let dismiss = move || {
            instance.run.withdraw();
            instance.interrupt.withdraw();
            picture.withdraw();
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    ChildSpec { name, essential: false, start: Box::new(start) }
}

/// Where an ingress is reached.
#[derive(Clone)]
struct Told {
    stood: Handle<InstanceStood>,
    picture: Handle<GetIngress>,
    /// The doors that lead to the ingress of this host's own queue.
    doors: Option<Handles>,
}

fn ingress(name: &'static str, deps: queue_ingress::Deps, told: Told) -> ChildSpec {
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = QueueIngress::start_in_arbiter(&arbiter.handle(), move |_| QueueIngress::new(deps, seat));
        told.stood.publish(&address);
        told.picture.publish(&address);
        if let Some(doors) = &told.doors {
            doors.submit.publish(&address);
            doors.cancel_job.publish(&address);
            doors.ingress.publish(&address);
        }
        let told = told.clone();
        let dismiss = move || {
            told.stood.withdraw();
            told.picture.withdraw();
            if let Some(doors) = told.doors {
                doors.submit.withdraw();
                doors.cancel_job.withdraw();
                doors.ingress.withdraw();
            }
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    ChildSpec { name, essential: true, start: Box::new(start) }
}

fn ingress_settings(parts: &Parts, config: &Config, is_local: bool) -> queue_ingress::Settings {
    let jobs = &config.jobs;
    let leases = LeasePolicy {
        instance_wait: jobs.instance_wait,
        progress_every: jobs.progress_every,
        spool_bytes: jobs.spool_bytes,
        sandbox_slots: jobs.sandbox_slots,
        without_instances: jobs.dry_run || config.comfy.dir.is_none(),
        max_failed_starts: (!is_local).then_some(config.runpod.max_failed_starts),
        ..LeasePolicy::default()
    };
    queue_ingress::Settings {
        leases,
        admission: AdmissionPolicy::default(),
        limits: parts::limit_policy(&config.sandbox),
        dry_run: jobs.dry_run,
        no_history: jobs.no_history,
        refresh_worker: config.runpod.refresh_worker && !is_local,
        link_lasts: config.bucket.link_lasts,
        seed: parts.seed(),
    }
}
