//! The end of an instance, asked for or found: until nothing of it is left on the host.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use slog::{info, warn};

use super::start::{remove_room, room_name, room_of};
use super::{Shared, beside, command, host};
use crate::domain::instance::InstanceSpec;
use crate::ports::cgroup::Cgroup;
use crate::ports::comfy::ComfyError;
use crate::sys::marked;

/// How long killed processes may take to be gone, before the instance is wedged.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what carries the instance's mark.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processes survived.
#[derive(Debug, thiserror::Error)]
#[error("{0} processes still live {KILL_PATIENCE:?} after they were killed")]
struct Survivors(usize);

/// Removes what an earlier life left of an instance.
pub(super) async fn sweep(shared: &Arc<Shared>, spec: &InstanceSpec) -> Result<(), ComfyError> {
    if let Some(cgroups) = &shared.cgroups {
        end_cgroup(&*cgroups.open(spec.name)).await?;
    }
    end_marked(shared, spec).await?;
    remove_room(room_of(shared, spec)).await
}

/// Removes what an earlier life left of instances other than `ours`. A room is the first thing of an instance that is
/// made, and the last that goes: whose room is not there left nothing.
pub(super) async fn sweep_others(shared: &Arc<Shared>, ours: &[InstanceSpec]) {
    let settings = &shared.settings;
    let (folder, prefix) = (settings.ram_dir.clone(), room_name(settings, ""));
    let entries =
        beside("listing the RAM directories", move || std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>());
    let entries = match entries.await {
        Ok(entries) => entries,
        Err(error) => return warn!(shared.log, "comfy.left"; "error" => %error),
    };
    let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)) {
        if ours.iter().any(|spec| spec.name == name) {
            continue;
        }
        // There are a few of them, once in a daemon's life.
        let spec = InstanceSpec { name: Box::leak(name.into_boxed_str()), device: None, port: 0 };
        match sweep(shared, &spec).await {
            Ok(()) => info!(shared.log, "comfy.swept"; "instance" => spec.name),
            Err(error) => warn!(shared.log, "comfy.left"; "instance" => spec.name, "error" => %error),
        }
    }
}

/// Kills all of a cgroup; returns when it is empty and removed.
pub(super) async fn end_cgroup(cgroup: &dyn Cgroup) -> Result<(), ComfyError> {
    cgroup.kill_and_remove(KILL_PATIENCE).await.map_err(host("ending the instance's processes"))
}

/// Kills all that carries the instance's mark; returns when there is none left.
pub(super) async fn end_marked(shared: &Shared, spec: &InstanceSpec) -> Result<(), ComfyError> {
    const DOING: &str = "ending the instance's processes";
    let mark = command::mark(&shared.settings, spec);
    let ending = async {
        loop {
            let entry = mark.clone();
            match beside(DOING, move || marked::kill(&entry)).await? {
                0 => return Ok(()),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    match tokio::time::timeout(KILL_PATIENCE, ending).await {
        Ok(ended) => ended,
        Err(_elapsed) => {
            let found = beside(DOING, move || marked::kill(&mark)).await?;
            if found == 0 { Ok(()) } else { Err(host(DOING)(Survivors(found))) }
        }
    }
}
