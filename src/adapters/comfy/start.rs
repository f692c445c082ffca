//! From a specification to a running process.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use slog::{info, warn};

use super::http::Http;
use super::instance::Instance;
use super::printed::Printed;
use super::room::Room;
use super::{PortClaim, Settings, Shared, beside, command, host, room, stop};
use crate::domain::instance::InstanceSpec;
use crate::ports::cgroup::{Cgroup, CgroupLimits};
use crate::ports::comfy::ComfyError;
use crate::ports::process::SpawnRequest;

/// The room of an instance.
pub(super) fn room_of(shared: &Shared, spec: &InstanceSpec) -> PathBuf {
    let ram = &shared.settings.ram_dir;
    // The mount table knows no links.
    let ram = ram.canonicalize().unwrap_or_else(|_| ram.clone());
    ram.join(room_name(&shared.settings, spec.name))
}

/// What a room is called; without an instance's name, what all of this daemon's begin with.
pub(super) fn room_name(settings: &Settings, instance: &str) -> String {
    format!("cloister-{}-{instance}", settings.mark)
}

pub(super) async fn start(shared: &Arc<Shared>, spec: &InstanceSpec) -> Result<Instance, ComfyError> {
    let settings = &shared.settings;
    let dir = settings.dir.clone().ok_or_else(|| ComfyError::Off("COMFYUI_DIR is not set".to_owned()))?;
    if !dir.join("main.py").is_file() {
        let text = format!("there is no main.py in {}: set COMFYUI_DIR to a ComfyUI checkout", dir.display());
        return Err(ComfyError::Off(text));
    }
    let claim = PortClaim::take(&shared.ports, spec.port)
        .ok_or_else(|| ComfyError::Off(format!("another instance uses port {}", spec.port)))?;
    stop::sweep(shared, spec).await?;
    // ComfyUI itself finds out after it has loaded, and would until then be mistaken for who listens there.
    TcpListener::bind(("127.0.0.1", spec.port))
        .map_err(|error| ComfyError::Off(format!("port {} cannot be taken: {error}", spec.port)))?;

    let path = room_of(shared, spec);
    let (bytes, own) = (settings.ram_mib << 20, settings.clone());
    let made = beside("making the instance's RAM directory", move || {
        let room = Room::make(path, bytes)?;
        let companion = room.path().join(command::COMPANION_FILE);
        if let Some(folder) = companion.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(companion, command::COMPANION)?;
        let models = own.model_dir.as_deref().map(command::folders_in).unwrap_or_default();
        let paths = command::paths(&own, room.path(), &models);
        std::fs::write(room.path().join(command::PATHS_FILE), paths)?;
        Ok(room)
    });
    let room = made.await?;
    if !room.mounted {
        warn!(shared.log, "comfy.plain_ram_dir"; "instance" => spec.name,
            "why" => "a tmpfs of its own needs CAP_SYS_ADMIN; comfy.ram_mib is not in force");
    }
    let cgroup = make_cgroup(shared, spec).await?;
    let (ours, theirs) = pipe().map_err(host("making ComfyUI's pipe"))?;
    let request = SpawnRequest {
        program: settings.python.clone().unwrap_or_else(|| "python3".into()),
        args: command::arguments(settings, &dir, spec, room.path()),
        env: command::environment(settings, spec, room.path()),
        // What a pack writes where it stands stays in RAM, too.
        cwd: room.path().to_owned(),
        descriptors: vec![(theirs.try_clone().map_err(host("making ComfyUI's pipe"))?, 1), (theirs, 2)],
        cgroup_entry: cgroup.as_ref().map(|cgroup| cgroup.entry_files()).unwrap_or_default(),
        private: true,
        batch: false,
    };
    let log = shared.log.new(slog::o!("instance" => spec.name));
    let printed =
        Printed::read(ours, spec.name, settings.silent, log.clone()).map_err(host("reading ComfyUI's output"))?;
    let http = Http::new(spec.port).map_err(host("making the HTTP client"))?;
    let process = shared.spawner.spawn(request).await.map_err(host("starting ComfyUI"))?;
    info!(log, "comfy.started"; "port" => spec.port, "device" => spec.device.clone());
    Ok(Instance::new(shared.clone(), spec.clone(), room, cgroup, process, printed, http, claim, log))
}

async fn make_cgroup(shared: &Shared, spec: &InstanceSpec) -> Result<Option<Arc<dyn Cgroup>>, ComfyError> {
    const DOING: &str = "making the instance's cgroup";
    let Some(cgroups) = &shared.cgroups else { return Ok(None) };
    let cgroup = cgroups.create(spec.name).await.map_err(host(DOING))?;
    let memory_bytes = shared.settings.memory_mib.map(|mib| mib << 20);
    cgroup.set_limits(&CgroupLimits { memory_bytes, cpu_quota_us: None, pids: None }).map_err(host(DOING))?;
    Ok(Some(cgroup))
}

fn pipe() -> std::io::Result<(File, OwnedFd)> {
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((ours.into(), theirs))
}

/// What is left of an instance's directory, for whoever ends it.
pub(super) async fn remove_room(path: PathBuf) -> Result<(), ComfyError> {
    beside("removing the instance's RAM directory", move || room::remove(&path)).await
}
