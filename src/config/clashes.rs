//! Values that are fine alone and wrong together.

use super::error::Fault;
use super::file;
use super::origin::Origin;
use super::reader::Reader;
use super::sections::{Config, Supervision};
use super::span;
use super::value::Value;

/// Finds clashes, and lowers untouched defaults to caps that somebody chose.
pub(super) fn settle(config: &mut Config, reader: &mut Reader<'_>, needs_token: bool) {
    let sandbox = &mut config.sandbox;
    cap(
        reader,
        "sandbox.default_timeout_ms",
        &mut sandbox.default_timeout_ms,
        "sandbox.max_timeout_ms",
        sandbox.max_timeout_ms,
    );
    cap(
        reader,
        "sandbox.default_memory_mb",
        &mut sandbox.default_memory_mb,
        "sandbox.max_memory_mb",
        sandbox.max_memory_mb,
    );
    if sandbox.output_keep_kib > sandbox.output_discard_mib.saturating_mul(1024) {
        let (keep, discard) = (sandbox.output_keep_kib, sandbox.output_discard_mib);
        let texts = [format!("{keep} KiB is above"), format!("{discard} MiB")];
        clash(reader, "sandbox.output_keep_kib", "sandbox.output_discard_mib", texts);
    }
    let (each, all) = (sandbox.dependencies_bytes as u64, sandbox.packages_bytes);
    if each > all {
        let texts = [format!("{} MiB is above", each >> 20), format!("{} MiB", all >> 20)];
        clash(reader, "sandbox.dependencies_mib", "sandbox.packages_mib", texts);
    }
    let Supervision { backoff_first, backoff_max, beat_every, beat_deadline, .. } = config.supervision;
    if backoff_first > backoff_max {
        let texts = [format!("{} is above", span::render(backoff_first)), span::render(backoff_max)];
        clash(reader, "supervision.backoff_first", "supervision.backoff_max", texts);
    }
    if beat_every >= beat_deadline {
        let texts = [format!("{} is not below", span::render(beat_every)), span::render(beat_deadline)];
        clash(reader, "supervision.beat_every", "supervision.beat_deadline", texts);
    }
    let crypto = &config.crypto;
    if crypto.private_key_file.as_ref().is_some_and(|file| crypto.former_key_files.contains(file)) {
        let file = crypto.private_key_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let texts = ["it names the same file as".to_owned(), file];
        clash(reader, "crypto.former_key_files", "crypto.private_key_file", texts);
    }
    if crypto.replay_path == config.store.path {
        let texts = ["it is the same file as".to_owned(), config.store.path.display().to_string()];
        clash(reader, "crypto.replay_path", "store.path", texts);
    }
    comfy(config, reader);
    let server = &config.server;
    let refused_token = reader.faults.iter().any(|fault| fault.text.starts_with("server.bearer_tokens"));
    // A RunPod worker takes its jobs from the platform: without a token it opens no door.
    let has_no_door = config.runpod.take_url.is_some();
    let is_closed = server.bearer_tokens.is_empty() && !server.disable_bearer_token;
    if needs_token && is_closed && !has_no_door && !refused_token {
        let text = "server.bearer_tokens: no bearer token is set; set BEARER_TOKEN to a secret, \
                    or DISABLE_BEARER_TOKEN=true to serve everybody";
        reader.faults.push(Fault::missing(text));
    }
}

fn comfy(config: &mut Config, reader: &mut Reader<'_>) {
    let comfy = &mut config.comfy;
    if let Some(memory) = comfy.memory_mib {
        cap(reader, "comfy.ram_mib", &mut comfy.ram_mib, "comfy.memory_mib", memory);
        if let Some(above) = comfy.recycle_above_mib.filter(|above| *above >= memory) {
            let texts = [format!("{above} is not below"), memory.to_string()];
            clash(reader, "comfy.recycle_above_mib", "comfy.memory_mib", texts);
        }
    }
    let first = u32::from(comfy.port);
    let ports = first..first + u32::from(comfy.instances.max(1));
    if ports.end > 65_536 {
        let texts = [format!("{first} is above the last port less"), comfy.instances.to_string()];
        clash(reader, "comfy.port", "comfy.instances", texts);
    }
    if comfy.dir.is_some() && ports.contains(&u32::from(config.server.port)) {
        let texts = [format!("the instances' ports {first} to {} hold", ports.end - 1), config.server.port.to_string()];
        clash(reader, "comfy.port", "server.port", texts);
    }
}

/// What works, and should be known.
pub(super) fn warnings(config: &Config, reader: &Reader<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let server = &config.server;
    if server.disable_bearer_token {
        warnings.push(match server.bearer_tokens.len() {
            0 => "the HTTP door is open to everybody: server.disable_bearer_token is set".to_owned(),
            _ => {
                "the HTTP door is open to everybody: server.disable_bearer_token outranks the bearer tokens".to_owned()
            }
        });
    }
    let weak = |value: &Value| value.has_weak_token();
    if reader.entries.iter().any(|entry| entry.key == "server.bearer_tokens" && weak(&entry.value)) {
        warnings.push("a bearer token has fewer than 16 characters and can be guessed".to_owned());
    }
    if let Origin::File { path, .. } = reader.origin("server.bearer_tokens")
        && file::is_public(&path)
    {
        warnings.push(format!("{} holds bearer tokens and every user can read it: chmod o= it", path.display()));
    }
    for key in ["runpod.api_key", "bucket.secret_access_key"] {
        if let Origin::File { path, .. } = reader.origin(key)
            && file::is_public(&path)
        {
            warnings.push(format!("{} holds {key} and every user can read it: chmod o= it", path.display()));
        }
    }
    if !config.crypto.required {
        warnings.push("workflows are taken in clear: crypto.required is off".to_owned());
    }
    if config.jobs.dry_run {
        warnings.push("no job is run: jobs.dry_run (DRY_RUN) answers each as if it were done".to_owned());
    }
    if let Some(dir) = config.comfy.dir.as_ref().filter(|dir| !dir.join("main.py").is_file()) {
        let what = if dir.is_dir() { "has no main.py" } else { "is not a directory" };
        let dir = dir.display();
        warnings.push(format!(
            "no ComfyUI can start: {dir} {what}; set COMFYUI_DIR (comfy.dir) to a checkout, the folder that holds main.py"
        ));
    }
    if config.comfy.dir.is_some() && !config.comfy.silent {
        warnings
            .push("what ComfyUI prints is logged, and it quotes prompts: comfy.silent (LOG_SILENT) is off".to_owned());
    }
    if config.sandbox.enabled && config.sandbox.disable_gvisor {
        warnings.push("handlers run without gVisor: sandbox.disable_gvisor is for development only".to_owned());
    }
    warnings
}

/// A chosen default above its cap is a clash; an untouched one follows the cap.
fn cap(reader: &mut Reader<'_>, key: &'static str, value: &mut u64, cap_key: &'static str, cap: u64) {
    if *value <= cap {
        return;
    }
    if reader.origin(key).is_default() {
        *value = cap;
        reader.derive(key, cap_key, Value::Whole(cap));
    } else {
        clash(reader, key, cap_key, [format!("{value} is above"), cap.to_string()]);
    }
}

/// `texts`: the first value with how it stands to the other, and the other value.
fn clash(reader: &mut Reader<'_>, key: &str, other: &str, texts: [String; 2]) {
    let [standing, value] = texts;
    let origin = reader.origin(other);
    reader.refuse(key, &format!("{standing} {other} = {value} ({origin})"));
}
