//! How ComfyUI is started so that nothing of a job reaches a disk or another user: arguments, environment, and the files
//! that it is given. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Settings;
use crate::domain::instance::InstanceSpec;

/// The companion pack, as it is written into the room.
pub(super) const COMPANION: &str = include_str!("../../../runtimes/comfyui/cloister_companion/__init__.py");
/// Its file in the room.
pub(super) const COMPANION_FILE: &str = "nodes/cloister_companion/__init__.py";
/// The file that tells ComfyUI where models and packs lie.
pub(super) const PATHS_FILE: &str = "paths.yaml";
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

/// ComfyUI's kinds of models, and the folders of the model directory that hold each: a JSON object of lists.
const MODELS: &str = include_str!("../../../runtimes/comfyui/model_folders.json");

/// The arguments behind the interpreter.
pub(super) fn arguments(settings: &Settings, dir: &Path, spec: &InstanceSpec, room: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec![dir.join("main.py").into()];
    line.extend(["--listen", "127.0.0.1", "--port"].map(Into::into));
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

/// The text of [`PATHS_FILE`]: YAML, of which JSON is a part. `found` are the folders that the model directory has: those
/// of no known kind are packs' own, and go in under their names.
pub(super) fn paths(settings: &Settings, room: &Path, found: &BTreeSet<String>) -> String {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut file = json!({ "cloister_nodes": { "custom_nodes": text(&room.join("nodes")) } });
    if let Some(models) = &settings.model_dir {
        let mut kinds: BTreeMap<String, Vec<String>> = serde_json::from_str(MODELS).unwrap_or_default();
        let known: BTreeSet<String> = kinds.values().flatten().cloned().collect();
        // What lies in a folder of nodes is run: it is no kind of model.
        let own = found.difference(&known).filter(|name| *name != "custom_nodes" && !name.contains('\n'));
        kinds.extend(own.map(|name| (name.clone(), vec![name.clone()])).collect::<Vec<_>>());
        let lines =
            |folders: &[String]| folders.iter().map(|one| text(&models.join(one))).collect::<Vec<_>>().join("\n");
        let mut section: Map<String, Value> =
            kinds.iter().map(|(kind, folders)| (kind.clone(), lines(folders).into())).collect();
        section.insert("is_default".to_owned(), true.into());
        file["cloister_models"] = section.into();
    }
    file.to_string()
}

/// The folders right below the model directory.
pub(super) fn folders_in(models: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(models).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn the_command_line_the_environment_and_the_paths_are_the_recipe() {
        let mut settings = settings();
        settings.args = vec!["--cpu".to_owned()];
        settings.model_dir = Some("/models of $HOME".into());
        settings.environment = vec![("PATH".into(), "/bin".into()), ("HOME".into(), "/root".into())];
        let spec = InstanceSpec { name: "comfy-1", device: Some("GPU-7".to_owned()), port: 8189 };
        let room = Path::new("/dev/shm/room");
        let shown = |text: &OsString| text.to_string_lossy().into_owned();
        let environment = environment(&settings, &spec, room);
        let environment: Vec<_> = environment.iter().map(|(n, v)| format!("{}={}", shown(n), shown(v))).collect();
        let found = ["loras", "ultralytics", "custom_nodes"].map(str::to_owned).into();
        let paths: Value = serde_json::from_str(&paths(&settings, room, &found)).expect("JSON");
        insta::assert_json_snapshot!(json!({
            "arguments": arguments(&settings, Path::new("/opt/comfyui"), &spec, room).iter().map(shown).collect::<Vec<_>>(),
            "environment": environment, "paths": paths,
        }));
        assert_eq!(mark(&settings, &spec), "CLOISTER_INSTANCE=test-comfy-1");
        assert!(environment.contains(&mark(&settings, &spec)));
    }
}
