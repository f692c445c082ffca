//! The runtimes' images: the store, the engine that tries new ones, and the actor over both.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use slog::{Logger, warn};

use super::http::{self, Tls};
use super::parts::{self, Parts};
use crate::actors::images::{self as actor, Images};
use crate::actors::supervisor::{ChildSpec, RunningChild};
use crate::adapters::cgroup::HostCgroups;
use crate::adapters::images::{HostImages, Settings};
use crate::adapters::process::HostSpawner;
use crate::adapters::runsc::Trials;
use crate::adapters::volumes::HostVolumes;
use crate::api::Handles;
use crate::config::Config;
use crate::domain::environment::Runtime;
use crate::messages::handle::Handle;
use crate::messages::sandbox_pool::ImageServes;
use crate::ports::cgroup::Cgroups;
use crate::ports::images::{ImageStore, ImageTrials};
use crate::ports::volumes::Volumes;
use crate::telemetry::error_chain;

/// A registry that says nothing for so long has gone away.
const SILENT: std::time::Duration = std::time::Duration::from_secs(60);

/// What this configuration's runtimes are made of. Reads what served before, and fetches nothing.
pub fn store(config: &Config, log: &Logger) -> HostImages {
    let sandbox = &config.sandbox;
    let settings = Settings {
        dir: config.daemon.state_dir.join("images"),
        sources: BTreeMap::from([
            (Runtime::Deno, sandbox.runtime_deno.clone()),
            (Runtime::Bun, sandbox.runtime_bun.clone()),
        ]),
        most_bytes: sandbox.images.bytes,
        within: sandbox.images.pull_deadline,
        auth_file: sandbox.images.auth_file.clone(),
        plain_http: sandbox.images.plain_http.clone(),
    };
    let connect = || Ok(http::builder(&Tls::of_this_host()?).read_timeout(SILENT).build()?);
    HostImages::new(settings, Arc::new(connect), log.new(slog::o!("part" => "images")))
}

/// Where new images are tried.
pub struct TrialParts {
    pub trials: Arc<dyn ImageTrials>,
    pub cgroups: Arc<dyn Cgroups>,
}

/// None where no runtime comes from an image, and where the host has no usable cgroups: the pool says why.
pub fn trials(config: &Config, instance: &str, store: &HostImages, log: &Logger) -> Option<TrialParts> {
    if !config.sandbox.enabled || store.runtimes().is_empty() {
        return None;
    }
    let parent = config.sandbox.cgroup_parent.as_ref().map(|path| path.to_string_lossy().into_owned());
    let cgroups = HostCgroups::detect(parent.as_deref(), &format!("{instance}-trial"));
    let cgroups: Arc<dyn Cgroups> = match cgroups {
        Ok(cgroups) => Arc::new(cgroups),
        Err(problem) => {
            warn!(log, "images.no_trials"; "error" => error_chain(&problem));
            return None;
        }
    };
    let mut settings = parts::engine_settings(config, Vec::new());
    settings.run_dir = config.daemon.run_dir.join("trial");
    let volumes: Arc<dyn Volumes> = Arc::new(HostVolumes::new(settings.run_dir.join("volumes")));
    let log = log.new(slog::o!("part" => "trials"));
    let trials = Trials::new(settings, Arc::new(HostSpawner), Arc::clone(&cgroups), volumes, log);
    Some(TrialParts { trials: Arc::new(trials), cgroups })
}

/// The actor, where a runtime comes from an image.
pub fn spec(parts: &Parts, config: &Config, handles: &Handles, serves: Handle<ImageServes>) -> Option<ChildSpec> {
    let deps = actor::Deps {
        store: Arc::clone(&parts.images) as Arc<dyn ImageStore>,
        trials: Arc::clone(&parts.trials.as_ref()?.trials),
        pool: handles.pool.clone(),
        serves,
        clock: parts.clock.clone(),
        soak: config.sandbox.images.soak_starts,
        log: parts.log.new(slog::o!("actor" => "images")),
    };
    let (pictures, check) = (handles.images.clone(), handles.check_images.clone());
    let start = move |seat| {
        let arbiter = Arbiter::new();
        let deps = deps.clone();
        let address = Images::start_in_arbiter(&arbiter.handle(), move |_| Images::new(deps, seat));
        pictures.publish(&address);
        check.publish(&address);
        let (pictures, check) = (pictures.clone(), check.clone());
        let dismiss = move || {
            pictures.withdraw();
            check.withdraw();
            arbiter.stop();
        };
        RunningChild { drain: address.recipient(), dismiss: Box::new(dismiss) }
    };
    Some(ChildSpec { name: "images", essential: false, start: Box::new(start) })
}
