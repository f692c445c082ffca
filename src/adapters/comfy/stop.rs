//! The end of an instance, asked for or found: until nothing of it is left on the host.

use std::sync::Arc;
use std::time::Duration;

use super::start::{remove_room, room_of};
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
