//! How ComfyUI is started so that nothing of a job reaches a disk or another user: arguments, environment, and the files
//! that it is given. Pure.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Settings;
use crate::domain::instance::InstanceSpec;

/// The companion pack, as it is written into the room.
pub(super) const COMPANION: &str = include_str!("../../../runtimes/comfyui/cloister_companion/__init__.py");
/// Its file in the room.
pub(super) const COMPANION_FILE: &str = "pack/cloister_companion/__init__.py";
/// The file that tells ComfyUI where models and packs lie.
pub(super) const PATHS_FILE: &str = "models.yaml";
/// The variable by which what an instance leaves behind is known.
const MARK: &str = "CLOISTER_INSTANCE";

/// Variables of the daemon's own environment that ComfyUI gets, where they are set: how to find programs, libraries and
/// the GPU. Nothing else passes.
pub const INHERITED: [&str; 13] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
    "HSA_OVERRIDE_GFX_VERSION",
];

/// Folders of models, by ComfyUI's name for their kind, and the folders beneath the model directory that hold it.
const MODELS: [(&str, &[&str]); 21] = [
    ("checkpoints", &["checkpoints"]),
    ("configs", &["configs"]),
    ("loras", &["loras"]),
    ("vae", &["vae"]),
    ("text_encoders", &["text_encoders", "clip"]),
    ("diffusion_models", &["unet", "diffusion_models"]),
    ("clip_vision", &["clip_vision"]),
    ("style_models", &["style_models"]),
    ("embeddings", &["embeddings"]),
    ("diffusers", &["diffusers"]),
    ("vae_approx", &["vae_approx"]),
    ("controlnet", &["controlnet", "t2i_adapter"]),
    ("gligen", &["gligen"]),
    ("upscale_models", &["upscale_models"]),
    ("latent_upscale_models", &["latent_upscale_models"]),
    ("hypernetworks", &["hypernetworks"]),
    ("photomaker", &["photomaker"]),
    ("classifiers", &["classifiers"]),
    ("model_patches", &["model_patches"]),
    ("audio_encoders", &["audio_encoders"]),
    ("ipadapter", &["ipadapter"]),
];

/// The arguments behind the interpreter.
pub(super) fn arguments(settings: &Settings, spec: &InstanceSpec, room: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = ["main.py", "--listen", "127.0.0.1", "--port"].map(Into::into).to_vec();
    line.push(spec.port.to_string().into());
    for (flag, folder) in [
        ("--output-directory", "out"),
        ("--temp-directory", "tmp"),
        ("--input-directory", "in"),
        ("--user-directory", "user"),
        ("--extra-model-paths-config", PATHS_FILE),
    ] {
        line.extend([flag.into(), room.join(folder).into()]);
    }
    line.extend(["--database-url", "sqlite:///:memory:"].map(Into::into));
    let cache = if settings.keep_models { "--cache-classic" } else { "--cache-none" };
    let plain = ["--disable-metadata", "--disable-api-nodes", "--dont-print-server", "--debug-hang", cache];
    line.extend(plain.map(Into::into));
    line.extend(settings.args.iter().map(Into::into));
    line
}

/// The whole environment.
pub(super) fn environment(settings: &Settings, spec: &InstanceSpec, room: &Path) -> Vec<(OsString, OsString)> {
    let mut all = settings.environment.clone();
    let mut set = |name: &str, value: OsString| {
        all.retain(|(known, _)| known != name);
        all.push((name.into(), value));
    };
    for (name, folder) in [
        ("HOME", "home"),
        ("TMPDIR", "scratch"),
        ("XDG_CONFIG_HOME", "home"),
        ("XDG_DATA_HOME", "home"),
        ("XDG_STATE_HOME", "home"),
        ("XDG_RUNTIME_DIR", "scratch"),
        ("XDG_CACHE_HOME", "cache"),
        ("HF_HOME", "cache/huggingface"),
        ("TORCH_HOME", "cache/torch"),
        ("TORCHINDUCTOR_CACHE_DIR", "cache/inductor"),
        ("TRITON_CACHE_DIR", "cache/triton"),
        ("NUMBA_CACHE_DIR", "cache/numba"),
        ("MPLCONFIGDIR", "cache/matplotlib"),
        ("CUDA_CACHE_PATH", "cache/cuda"),
    ] {
        set(name, room.join(folder).into());
    }
    // So that nothing is fetched, reported or written beside the code.
    for name in [
        "PYTHONDONTWRITEBYTECODE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
    ] {
        set(name, "1".into());
    }
    // Else the last lines before a crash stay in its buffer.
    set("PYTHONUNBUFFERED", "1".into());
    if let Some(device) = &spec.device {
        set("CUDA_VISIBLE_DEVICES", device.into());
    }
    set(MARK, format!("{}-{}", settings.mark, spec.name).into());
    all
}

/// The entry of the environment that all of an instance's processes carry.
pub(super) fn mark(settings: &Settings, spec: &InstanceSpec) -> String {
    format!("{MARK}={}-{}", settings.mark, spec.name)
}

/// The text of [`PATHS_FILE`]: YAML, of which JSON is a part.
pub(super) fn paths(settings: &Settings, room: &Path) -> String {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut file = json!({ "cloister": { "custom_nodes": text(&room.join("pack")) } });
    if let Some(models) = &settings.model_dir {
        let lines = |folders: &[&str]| folders.iter().map(|one| text(&models.join(one))).collect::<Vec<_>>().join("\n");
        let kinds: Map<String, Value> =
            MODELS.iter().map(|(kind, folders)| ((*kind).to_owned(), lines(folders).into())).collect();
        file["models"] = kinds.into();
    }
    file.to_string()
}
