//! How each child of the Supervisor is made: a thread of its own, its handles published, and both taken back.

use std::sync::Arc;

use actix::prelude::*;

use super::egress::WayOut;
use super::gpu;
use super::images;
use super::parts::{self, Parts};
use crate::actors::call_desk::CallDesk;
use crate::actors::egress::{self, Egress};
use crate::actors::reaper::{self, Reaper};
use crate::actors::sandbox_pool::SandboxPool;
use crate::actors::supervisor::{ChildSpec, RunningChild};
use crate::api::Handles;
use crate::config::Config;
use crate::domain::health::{Part, PartState};
use crate::messages::handle::Handle;
use crate::ports::egress::EgressProxy;

/// The parts that the configuration turned off.
pub fn off(config: &Config) -> Vec<Part> {
    let off = |name: &str, reason: &str| Part {
        name: name.to_owned(),
        state: PartState::Off,
        essential: false,
        restarts: 0,
        beat_age_ms: None,
        reasons: vec![reason.to_owned()],
    };
    let mut parts = Vec::new();
    if !config.sandbox.enabled {
        parts.extend(["sandbox_pool", "reaper", "call_desk"].map(|name| off(name, "sandbox.enabled is false")));
    }
    if config.sandbox.enabled && !config.sandbox.egress.enabled {
        parts.push(off("egress", "sandbox.egress.enabled is false"));
    }
    if !gpu::is_on(config) {
        parts.push(off("gpu", "there is no ComfyUI here: COMFYUI_DIR (comfy.dir) is not set"));
    }
    parts
}

/// The children in their start order; they are stopped in the reverse of it.
pub fn specs(parts: &Parts, config: &Config, handles: &Handles) -> Vec<ChildSpec> {
    if !config.sandbox.enabled {
        return Vec::new();
    }
    let (holdings, expire, retire) = (Handle::default(), Handle::default(), Handle::default());
    let image_serves = Handle::default();
    let pool_deps = parts::pool_deps(parts, config);
    let reaper_deps = reaper::Deps {
        engine: Arc::clone(&parts.engine),
        volumes: Arc::clone(&parts.volumes),
        packages: Arc::clone(&parts.packages),
        keep_sets: parts::keep_sets(config),
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        zombies: Arc::clone(&parts.zombies),
        holdings: holdings.clone(),
        expire: expire.clone(),
        retire: retire.clone(),
        interval: config.reaper.interval,
        idle_ttl_seconds: config.reaper.idle_ttl.map_or(0, |span| span.as_secs()),
        keep_executions: config.store.keep_executions,
        log: parts.log.new(slog::o!("actor" => "reaper")),
    };
    let pool = {
        let (handles, image_serves) = (handles.clone(), image_serves.clone());
        move |seat| {
            let arbiter = Arbiter::new();
            let deps = pool_deps.clone();
            let address = SandboxPool::start_in_arbiter(&arbiter.handle(), move |_| SandboxPool::new(deps, seat));
            handles.set_up.publish(&address);
            handles.execute.publish(&address);
            handles.cancel.publish(&address);
            handles.delete.publish(&address);
            handles.pool.publish(&address);
            holdings.publish(&address);
            expire.publish(&address);
            retire.publish(&address);
            image_serves.publish(&address);
            handles.revisions.clone.publish(&address);
            handles.revisions.update.publish(&address);
            handles.revisions.set_ttl.publish(&address);
            let (handles, holdings) = (handles.clone(), holdings.clone());
            let (expire, retire, image_serves) = (expire.clone(), retire.clone(), image_serves.clone());
            let dismiss = move || {
                handles.set_up.withdraw();
                handles.execute.withdraw();
                handles.cancel.withdraw();
                handles.delete.withdraw();
                handles.pool.withdraw();
                holdings.withdraw();
                expire.withdraw();
                retire.withdraw();
                image_serves.withdraw();
                handles.revisions.clone.withdraw();
                handles.revisions.update.withdraw();
                handles.revisions.set_ttl.withdraw();
                arbiter.stop();
            };
            RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
        }
    };
    let reaper = {
        let handle = handles.reaper.clone();
        move |seat| {
            let arbiter = Arbiter::new();
            let deps = reaper_deps.clone();
            let address = Reaper::start_in_arbiter(&arbiter.handle(), move |_| Reaper::new(deps, seat));
            handle.publish(&address);
            let handle = handle.clone();
            let dismiss = move || {
                handle.withdraw();
                arbiter.stop();
            };
            RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
        }
    };
    let mut specs = Vec::from_iter(parts.egress.clone().map(|way_out| egress(way_out, parts, handles)));
    specs.extend(images::spec(parts, config, handles, image_serves));
    specs.push(desk(parts, config, handles));
    specs.extend([
        // On a host that does GPU work a missing sandbox is told, and does not keep jobs away.
        ChildSpec { name: "sandbox_pool", essential: !gpu::is_on(config), start: Box::new(pool) },
        ChildSpec { name: "reaper", essential: false, start: Box::new(reaper) },
    ]);
    specs
}

/// Before the pool, so that it goes after it: it hears how what it handed to the pool ended, and has keys settled.
fn desk(parts: &Parts, config: &Config, handles: &Handles) -> ChildSpec {
    let deps = parts::desk_deps(parts, config, handles);
    let desk = handles.desk.clone();
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = CallDesk::start_in_arbiter(&arbiter.handle(), move |_| CallDesk::new(deps, seat));
        desk.accept.publish(&address);
        desk.cancel.publish(&address);
        desk.execution.publish(&address);
        desk.executions.publish(&address);
        desk.claim.publish(&address);
        desk.settle.publish(&address);
        desk.release.publish(&address);
        let desk = desk.clone();
        let dismiss = move || {
            desk.accept.withdraw();
            desk.cancel.withdraw();
            desk.execution.withdraw();
            desk.executions.withdraw();
            desk.claim.withdraw();
            desk.settle.withdraw();
            desk.release.withdraw();
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    ChildSpec { name: "call_desk", essential: false, start: Box::new(start) }
}

/// Before the pool, so that it goes after it: calls that are being drained may still reach what they may reach.
fn egress(WayOut { proxy, credentials }: WayOut, parts: &Parts, handles: &Handles) -> ChildSpec {
    let deps = egress::Deps {
        proxy: proxy as Arc<dyn EgressProxy>,
        credentials,
        clock: parts.clock.clone(),
        log: parts.log.new(slog::o!("actor" => "egress")),
    };
    let handles = handles.clone();
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = Egress::start_in_arbiter(&arbiter.handle(), move |_| Egress::new(deps, seat));
        handles.egress.publish(&address);
        handles.put_secret.publish(&address);
        handles.remove_secret.publish(&address);
        handles.secrets.publish(&address);
        let handles = handles.clone();
        let dismiss = move || {
            handles.egress.withdraw();
            handles.put_secret.withdraw();
            handles.remove_secret.withdraw();
            handles.secrets.withdraw();
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    ChildSpec { name: "egress", essential: false, start: Box::new(start) }
}
