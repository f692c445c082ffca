//! The environment: the only place that reads it.

use super::error::Fault;
use super::layer::{Given, Layer};
use super::origin::Origin;
use super::value::Raw;

/// Names of the first system, of RunPod and of its SDK, and what they set; the more special name comes first.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("PORT", "server.port"),
    ("BEARER_TOKEN", "server.bearer_tokens"),
    ("DISABLE_BEARER_TOKEN", "server.disable_bearer_token"),
    ("LOG_LEVEL", "log.level"),
    ("RUNTIME_IMAGE_DENO", "sandbox.runtime_deno"),
    ("RUNTIME_IMAGE", "sandbox.runtime_deno"),
    ("RUNTIME_IMAGE_BUN", "sandbox.runtime_bun"),
    ("DISABLE_GVISOR", "sandbox.disable_gvisor"),
    ("SETUP_CONCURRENCY", "sandbox.setup_concurrency"),
    ("MAX_TIMEOUT_MS", "sandbox.max_timeout_ms"),
    ("MAX_MEMORY_MB", "sandbox.max_memory_mb"),
    ("ENCRYPTION_REQUIRED", "crypto.required"),
    ("COMFYUI_DIR", "comfy.dir"),
    ("COMFYUI_PYTHON", "comfy.python"),
    ("COMFYUI_ARGS", "comfy.args"),
    ("COMFY_PORT", "comfy.port"),
    ("COMFYUI_MODEL_DIR", "comfy.model_dir"),
    ("LOG_SILENT", "comfy.silent"),
    ("CLOISTER_STATE_DIR", "daemon.state_dir"),
    ("CLOISTER_RUN_DIR", "daemon.run_dir"),
    ("RUNPOD_WEBHOOK_GET_JOB", "runpod.take_url"),
    ("RUNPOD_WEBHOOK_POST_OUTPUT", "runpod.done_url"),
    ("RUNPOD_WEBHOOK_PING", "runpod.ping_url"),
    ("RUNPOD_AI_API_KEY", "runpod.api_key"),
    ("RUNPOD_POD_ID", "runpod.pod_id"),
    ("RUNPOD_GPU_TYPE_ID", "runpod.gpu_type"),
    ("RUNPOD_PING_INTERVAL", "runpod.ping_interval_ms"),
    ("REFRESH_WORKER", "runpod.refresh_worker"),
    ("NO_HISTORY", "jobs.no_history"),
    ("DRY_RUN", "jobs.dry_run"),
    ("BUCKET_ENDPOINT_URL", "bucket.endpoint"),
    ("BUCKET_NAME", "bucket.name"),
    ("BUCKET_ACCESS_KEY_ID", "bucket.access_key_id"),
    ("BUCKET_SECRET_ACCESS_KEY", "bucket.secret_access_key"),
];

/// The first system's PostgreSQL, which is not in this version.
const POSTGRES: [&str; 5] = ["DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"];

/// Names the configuration file.
pub(super) const FILE: &str = "CLOISTER_CONFIG";

/// Begins the name that any key has: `CLOISTER__SERVER__PORT` sets `server.port`.
const PREFIX: &str = "CLOISTER__";

/// The variables of this process that concern the configuration. Values that are not UTF-8 keep a replacement
/// character, which [`layer`] refuses.
pub(super) fn of_process() -> Vec<(String, String)> {
    let concerns = |name: &str| {
        name.starts_with(PREFIX)
            || name == FILE
            || POSTGRES.contains(&name)
            || NAMES.iter().any(|(known, _)| *known == name)
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| concerns(name))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect()
}

/// One variable of this process, for the commands that are not about the configuration.
pub fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is config::environment")]
    std::env::var(name).ok()
}

/// The value of one variable; an empty one counts as unset.
pub(super) fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = variables.iter().find(|(known, _)| known == name)?;
    (!value.is_empty()).then_some(value.as_str())
}

/// The settings among `variables`, and what is wrong with them. Empty variables count as unset.
pub(super) fn layer(variables: &[(String, String)]) -> (Layer, Vec<Fault>) {
    let mut layer = Layer::default();
    let mut faults = Vec::from_iter(postgres(variables));
    let special = NAMES.iter().filter_map(|(name, key)| Some((*name, (*key).to_owned(), value(variables, name)?)));
    let general = variables.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
        (!value.is_empty()).then_some((name.as_str(), key, value.as_str()))
    });
    for (name, key, value) in special.chain(general) {
        let origin = Origin::Environment { name: name.to_owned() };
        if value.contains('\u{fffd}') {
            faults.push(Fault::at(&origin, format!("{key}: it is not UTF-8")));
            continue;
        }
        if let Some(earlier) = layer.values.get(&key) {
            let differs = !matches!(&earlier.raw, Raw::Text(text) | Raw::One(text) if text == value);
            // The first system's RUNTIME_IMAGE spoke for both runtimes; a runtime's own name outranks it.
            if differs && name != "RUNTIME_IMAGE" {
                let text = format!("{key}: it differs from {}, which sets the same key; unset one", earlier.origin);
                faults.push(Fault::at(&origin, text));
            }
            continue;
        }
        let raw = if name == "BEARER_TOKEN" { Raw::One(value.to_owned()) } else { Raw::Text(value.to_owned()) };
        layer.values.insert(key, Given { raw, origin });
    }
    (layer, faults)
}

fn postgres(variables: &[(String, String)]) -> Option<Fault> {
    let set: Vec<&str> = POSTGRES.into_iter().filter(|name| value(variables, name).is_some()).collect();
    let names = set.join(", ");
    (!set.is_empty()).then(|| {
        let text = format!("PostgreSQL is not in this version; unset {names} to use the embedded SQLite store");
        Fault::at(&Origin::Environment { name: set.first().copied().unwrap_or_default().to_owned() }, text)
    })
}
