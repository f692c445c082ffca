//! The GPU side of a daemon: the key ring, ComfyUI's engine, the sources of jobs, and what large outputs go through.
//!
//! It is on when there is a ComfyUI (`comfy.dir`), when RunPod started the worker, or when jobs are only tried
//! (`jobs.dry_run`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use slog::Logger;
use zeroize::Zeroizing;

use super::exit::Exit;
use super::host::Home;
use super::http::{self, Tls};
use super::instances;
use super::parts::Parts;
use crate::adapters::bucket::{Attempts, Clients, S3Store};
use crate::adapters::comfy::{self, ComfyEngine as HostComfy};
use crate::adapters::fetch::{self, Hosts, HttpFetcher};
use crate::adapters::gpu::NvmlGpus;
use crate::adapters::keyring::{Keyring, KeyringError, Sources};
use crate::adapters::local_queue::{Bounds, LocalQueue};
use crate::adapters::process::HostSpawner;
use crate::adapters::replay_log::SqliteReplayLog;
use crate::adapters::runpod::{self, BadUrl, RunPod, Templates};
use crate::config::{self, Config};
use crate::domain::bucket::{Bucket, region_of};
use crate::domain::egress::Reach;
use crate::domain::instance::InstanceSpec;
use crate::ports::clock::Clock;
use crate::ports::replay::ReplayError;

/// How long an answer that may be on its way is waited for when polling ends.
const LAST_ANSWER: Duration = Duration::from_millis(250);
/// For one input image, redirects included.
const FETCH_WITHIN: Duration = Duration::from_secs(60);

/// Why the GPU side cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("the private key cannot be used")]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("RunPod's address cannot be used")]
    RunPod(#[from] BadUrl),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    #[error("cannot set up HTTP")]
    Http(#[from] reqwest::Error),
    #[error("reading the host's root certificates was given up")]
    Roots,
}

/// Everything of the GPU side that outlives its actors.
pub struct GpuParts {
    pub vault: Arc<Keyring>,
    pub replay: Arc<SqliteReplayLog>,
    pub engine: Arc<HostComfy>,
    pub gpus: Arc<NvmlGpus>,
    pub instances: Vec<InstanceSpec>,
    pub runpod: Option<Arc<RunPod>>,
    pub local: Arc<LocalQueue>,
    pub fetcher: Arc<HttpFetcher>,
    pub objects: Arc<S3Store>,
    pub bucket: Option<Bucket>,
}

/// Whether this host does GPU work, or passes jobs of a queue on.
pub fn is_on(config: &Config) -> bool {
    config.comfy.dir.is_some() || config.runpod.take_url.is_some() || config.jobs.dry_run
}

impl GpuError {
    /// The exit code it leads to.
    pub fn exit(&self) -> Exit {
        match self {
            GpuError::Keys(_) | GpuError::RunPod(_) => Exit::Config,
            GpuError::Replay(_) | GpuError::Tls(_) | GpuError::Http(_) | GpuError::Roots => Exit::Unavailable,
        }
    }
}

impl GpuParts {
    /// Builds all of it where it [`is_on`].
    ///
    /// # Errors
    /// See [`GpuError`].
    pub async fn build_if_on(
        config: &Config,
        home: &Home,
        parts: &Parts,
        key: Option<Zeroizing<String>>,
        log: &Logger,
    ) -> Result<Option<Self>, GpuError> {
        if !is_on(config) {
            engine(config, home, parts, log).end_others(&[]).await;
            return Ok(None);
        }
        let built = Self::build(config, home, parts, key, log).await;
        if built.is_err() {
            // No instance starts that would sweep its own.
            engine(config, home, parts, log).end_others(&[]).await;
        }
        built.map(Some)
    }

    /// Builds all of it. `key`: the value that `WORKER_PRIVATE_KEY_B64` had.
    ///
    /// # Errors
    /// See [`GpuError`].
    async fn build(
        config: &Config,
        home: &Home,
        parts: &Parts,
        key: Option<Zeroizing<String>>,
        log: &Logger,
    ) -> Result<Self, GpuError> {
        // Beside the rest, for it takes as long as all of that.
        let tls = tokio::task::spawn_blocking(Tls::of_this_host);
        let crypto = &config.crypto;
        let credentials = config::variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let sources = Sources::new(crypto.private_key_file.clone(), crypto.former_key_files.clone(), credentials, key)?;
        let vault = Keyring::open(sources, crypto.overlap, parts.clock.now())?;
        let replay = SqliteReplayLog::open(&crypto.replay_path).await?;
        let gpus = NvmlGpus::new(None, log.new(slog::o!("part" => "gpu")));
        let devices = if config.comfy.dir.is_some() { gpus.devices().await } else { Vec::new() };
        let instances = if config.comfy.dir.is_some() { instances::specs(&config.comfy, &devices) } else { Vec::new() };
        let engine = engine(config, home, parts, log);
        engine.end_others(&instances).await;
        let tls = tls.await.map_err(|_| GpuError::Roots)??;
        let http = http::builder(&tls).build()?;
        let guarded = fetch::guarded(http::builder(&tls), Reach::public()).build()?;
        let clients = Clients {
            own: http.clone(),
            guarded: guarded.clone(),
            may_reach: Arc::new(|url| fetch::may_reach(url, &Reach::public())),
        };
        let fetched = fetch::Settings {
            hosts: Hosts::new(config.jobs.url_hosts.iter().cloned()),
            most_bytes: config.jobs.fetch_bytes,
            within: FETCH_WITHIN,
            reach: Reach::public(),
        };
        Ok(Self {
            vault: Arc::new(vault),
            replay: Arc::new(replay),
            engine: Arc::new(engine),
            gpus: Arc::new(gpus),
            instances,
            runpod: source(&config.runpod, http, log)?.map(Arc::new),
            local: Arc::new(LocalQueue::new(bounds(&config.jobs), parts.clock.clone())),
            fetcher: Arc::new(HttpFetcher::new(guarded, fetched)),
            objects: Arc::new(S3Store::new(clients, parts.clock.clone(), Attempts::default())),
            bucket: config.bucket.access.as_ref().map(bucket),
        })
    }
}

fn engine(config: &Config, home: &Home, parts: &Parts, log: &Logger) -> HostComfy {
    let comfy = &config.comfy;
    let environment = |name: &&str| Some((OsString::from(*name), OsString::from(config::variable(name)?)));
    let settings = comfy::Settings {
        dir: comfy.dir.clone(),
        python: Some(PathBuf::from(&comfy.python)),
        args: comfy.args.clone(),
        environment: comfy::INHERITED.iter().filter_map(environment).collect(),
        mark: home.instance.clone(),
        model_dir: Some(comfy.model_dir.clone()),
        silent: comfy.silent,
        start_deadline: comfy.start_deadline,
        ram_dir: comfy.ram_dir.clone(),
        ram_mib: comfy.ram_mib,
        memory_mib: comfy.memory_mib,
        output_bytes: comfy.ram_mib << 20,
        keep_models: true,
    };
    let log = log.new(slog::o!("part" => "comfy"));
    HostComfy::new(settings, Arc::new(HostSpawner), parts.cgroups.clone(), log)
}

fn bounds(jobs: &config::Jobs) -> Bounds {
    Bounds {
        waiting: jobs.queue,
        waiting_bytes: jobs.queue_bytes,
        keep: jobs.keep,
        kept_bytes: jobs.keep_bytes,
        answer_bytes: jobs.answer_bytes,
    }
}

fn source(runpod: &config::Runpod, http: reqwest::Client, log: &Logger) -> Result<Option<RunPod>, BadUrl> {
    let (Some(take), Some(done)) = (&runpod.take_url, &runpod.done_url) else { return Ok(None) };
    let templates = Templates {
        take: take.clone(),
        done: done.clone(),
        ping: runpod.ping_url.clone(),
        gpu_type: runpod.gpu_type.clone(),
    };
    let settings = runpod::Settings {
        templates,
        pod_id: runpod.pod_id.clone(),
        api_key: runpod.api_key.clone(),
        ping_every: runpod.ping_every,
        poll: runpod.poll,
        grace: LAST_ANSWER,
        result_bytes: runpod.result_bytes,
        sync_result_bytes: runpod.sync_result_bytes,
    };
    RunPod::new(settings, http, log.new(slog::o!("source" => "runpod"))).map(Some)
}

fn bucket(access: &config::BucketAccess) -> Bucket {
    Bucket {
        endpoint: access.endpoint.clone(),
        name: access.name.clone().unwrap_or_default(),
        region: access.region.clone().unwrap_or_else(|| region_of(&access.endpoint)),
        access_id: access.access_key_id.expose_secret().to_owned(),
        access_secret: access.secret_access_key.expose_secret().to_owned(),
        prefix: access.prefix.clone(),
        brought: false,
    }
}
