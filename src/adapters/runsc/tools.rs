//! What of this host the engine builds on: the program, the id ranges.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::flags::{Engine, Kind};
use super::settings::Choice;
use super::spec::HOST_IDS;

const PROGRAM_DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The program that makes the sandboxes.
///
/// # Errors
/// What is missing, with its remedy.
pub(super) fn find_engine(choice: &Choice) -> Result<Engine, String> {
    match choice {
        Choice::Gvisor { runsc: Some(program) } if is_program(program) => {
            Ok(Engine { kind: Kind::Runsc, program: program.clone() })
        }
        Choice::Gvisor { runsc: Some(program) } => {
            Err(format!("{} is not a program: point sandbox.runsc at runsc", program.display()))
        }
        Choice::Gvisor { runsc: None } => look_for(Kind::Runsc).ok_or_else(|| {
            "runsc is not installed: install gVisor 20240729 or newer (apt-get install runsc, or https://gvisor.dev)".to_owned()
        }),
        Choice::PlainContainer => look_for(Kind::Crun)
            .filter(|_| !is_mixed(UNIFIED))
            .or_else(|| look_for(Kind::Runc))
            .ok_or_else(|| "no runtime for plain containers is installed: apt-get install crun or runc".to_owned()),
    }
}

/// Where a host with cgroup v1 mounts v2 beside it.
const UNIFIED: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// True where controllers are spread over v1 and v2: crun refuses to start there, whatever it is told about cgroups.
fn is_mixed(controllers: &str) -> bool {
    fs::read_to_string(controllers).is_ok_and(|names| !names.trim().is_empty())
}

fn look_for(kind: Kind) -> Option<Engine> {
    PROGRAM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(kind.name()))
        .find(|program| is_program(program))
        .map(|program| Engine { kind, program })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// True when this daemon may give out the ids of the sandboxes' user namespaces: not inside a container with a user
/// namespace of its own.
pub(super) fn can_map_ids(uid_map: &str) -> bool {
    uid_map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [inside, _outside, size] = numbers[..] else {
            return false;
        };
        inside <= HOST_IDS.0.into() && u64::from(HOST_IDS.1) < inside.saturating_add(size)
    })
}

/// True when any user may reach `path`: with a user namespace of its own the sandbox's gofer is not root on the host,
/// and cannot bind what lies behind a closed directory.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    path.ancestors().all(|step| fs::metadata(step).is_ok_and(|found| found.mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_can_be_mapped_on_a_host_and_not_in_a_user_namespace() {
        assert!(can_map_ids("         0          0 4294967295\n"));
        assert!(!can_map_ids("         0     100000      65536\n"));
        assert!(!can_map_ids(""));
    }

    #[test]
    fn a_missing_engine_comes_with_its_remedy() {
        let choice = Choice::Gvisor { runsc: Some("/nonexistent/runsc".into()) };
        assert!(find_engine(&choice).is_err_and(|text| text.contains("sandbox.runsc")));
    }
}
