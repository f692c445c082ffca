//! What of ours the host still holds, whichever life of the daemon made it.

use std::fs;
use std::io;
use std::path::Path;

use super::layout::state_in;
use super::{RunscEngine, host};
use crate::domain::id::SlotId;
use crate::ports::sandbox::{Leftover, SandboxError};
use crate::sys::mounts;

impl RunscEngine {
    pub(super) async fn find_leftovers(&self) -> Result<Vec<Leftover>, SandboxError> {
        let slots = self.layout.slots();
        let scan = tokio::task::spawn_blocking(move || {
            let mut found = directories(&slots)?;
            found.extend(mounted(&slots)?);
            Ok::<_, io::Error>(found)
        });
        let names = self.cgroups.list().await.map_err(host("listing the sandboxes' cgroups"))?;
        let mut found = scan
            .await
            .map_err(host("listing the sandboxes' bundles"))?
            .map_err(host("listing the sandboxes' bundles"))?;
        if let Some(gates) = &self.gates {
            let left = gates.left().map_err(host("listing the sandboxes' ways out"))?;
            found.extend(left.into_iter().map(|slot| Leftover { slot, kind: "way out" }));
        }
        for name in names {
            // A cgroup with another name was not made for a slot.
            let Ok(slot) = name.parse::<SlotId>() else { continue };
            found.push(Leftover { slot, kind: "cgroup" });
            // A cgroup that goes while it is looked at has no processes.
            if self.cgroups.open(&name).processes().is_ok_and(|processes| !processes.is_empty()) {
                found.push(Leftover { slot, kind: "process" });
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The slots below whose directory something is mounted.
fn mounted(slots: &Path) -> io::Result<Vec<Leftover>> {
    let slot_of = |point: &Path| point.strip_prefix(slots).ok()?.iter().next()?.to_str()?.parse::<SlotId>().ok();
    let Ok(slots) = &slots.canonicalize() else { return Ok(Vec::new()) };
    let points = mounts::points_under(slots)?;
    Ok(points.iter().filter_map(|point| slot_of(point)).map(|slot| Leftover { slot, kind: "mount" }).collect())
}

/// The slots that have a directory, and what is in it.
fn directories(slots: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(slots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(slot) = entry.file_name().to_str().and_then(|name| name.parse::<SlotId>().ok()) else {
            continue;
        };
        found.push(Leftover { slot, kind: "bundle" });
        if fs::read_dir(state_in(&entry.path())).is_ok_and(|mut state| state.next().is_some()) {
            found.push(Leftover { slot, kind: "runtime state" });
        }
    }
    Ok(found)
}
