//! What this host can do for sandboxes. Asked before the daemon says it is ready, so the answers that take a process
//! each (version, a sandbox that starts at all) are kept in a file, for as long as program and kernel are the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slog::info;

use super::flags::{Engine, Kind, smoke_test};
use super::stopwatch::Stopwatch;
use super::tools::find_engine;
use super::{Choice, RunscEngine};
use crate::domain::environment::Runtime;
use crate::domain::execution::ProcessEnd;
use crate::ports::images::RuntimeImages;
use crate::ports::process::{Finished, SpawnError, SpawnRequest};
use crate::ports::sandbox::EngineProbe;

/// Debian bookworm-backports: the first with systrap, `--pass-fd` and directfs all settled.
const OLDEST_RUNSC: u32 = 20_240_729;
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// `--platform=kvm` was seen to hang where it cannot work; systrap fails at once, but who knows on which kernel.
const SMOKE_DEADLINE: Duration = Duration::from_secs(20);
const MEMORY_FILE: &str = "engine-probe.json";

/// What one program on one kernel was found to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// Of the program and the kernel.
    identity: String,
    version: String,
}

impl RunscEngine {
    pub(super) async fn look_around(&self) -> EngineProbe {
        let mut problems: Vec<String> = self.layout.problem().into_iter().collect();
        let isolated = matches!(self.settings.choice, Choice::Gvisor { .. });
        let (choice, images) = (self.settings.choice.clone(), Arc::clone(&self.images));
        let look = move || (find_engine(&choice), installed(&*images));
        let (engine, runtimes) = match tokio::task::spawn_blocking(look).await {
            Ok((engine, (runtimes, missing))) => {
                problems.extend(missing);
                (engine, runtimes)
            }
            Err(error) => (Err(error.to_string()), BTreeMap::new()),
        };
        let (name, version) = match engine {
            Ok(engine) => {
                let version = self.version(&engine).await.unwrap_or_else(|problem| {
                    problems.push(problem);
                    String::new()
                });
                (engine.kind.name(), version)
            }
            Err(problem) => {
                problems.push(problem);
                (if isolated { Kind::Runsc.name() } else { Kind::Crun.name() }, String::new())
            }
        };
        EngineProbe {
            engine: name.to_owned(),
            engine_version: version,
            isolated,
            cgroup: self.cgroups.version().to_owned(),
            runtimes,
            problems,
        }
    }

    /// The version of an engine that works here.
    ///
    /// # Errors
    /// What is wrong with it, with its remedy.
    async fn version(&self, engine: &Engine) -> Result<String, String> {
        let path = self.settings.state_dir.join(MEMORY_FILE);
        let identity = identity_of(&engine.program).unwrap_or_default();
        if let Some(memory) = recall(&path).filter(|memory| memory.identity == identity) {
            return Ok(memory.version);
        }
        let stopwatch = Stopwatch::start();
        let version = self.ask_version(engine).await?;
        if engine.kind == Kind::Runsc {
            check_age(&version)?;
            self.smoke(engine).await?;
        }
        info!(self.log, "engine.probed"; "engine" => engine.kind.name(), "version" => &version, "ms" => stopwatch.millis());
        // Only what works is kept: a host that is mended is seen at the next probe.
        remember(&path, &Memory { identity, version: version.clone() });
        Ok(version)
    }

    async fn ask_version(&self, engine: &Engine) -> Result<String, String> {
        let finished = self.command(engine, vec!["--version".into()], VERSION_DEADLINE).await;
        let finished =
            finished.map_err(|error| format!("{} does not say its version: {error}", engine.program.display()))?;
        version_in(&finished.stdout).ok_or_else(|| {
            format!("{} --version does not answer like {}", engine.program.display(), engine.kind.name())
        })
    }

    async fn smoke(&self, engine: &Engine) -> Result<(), String> {
        let state = self.layout.slots().with_file_name(format!("probe-{}", std::process::id()));
        let finished = self.command(engine, smoke_test(&state), SMOKE_DEADLINE).await;
        let _ = fs::remove_dir_all(&state);
        let remedy = "sandboxes need root, user namespaces and ptrace rights on this host";
        match finished {
            Ok(Finished { end: ProcessEnd::Exited(0), .. }) => Ok(()),
            Ok(Finished { stderr, .. }) => {
                let reason: String =
                    stderr.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
                Err(format!("runsc cannot start a sandbox with the systrap platform ({reason}): {remedy}"))
            }
            Err(error) => Err(format!("runsc cannot start a sandbox with the systrap platform: {error}; {remedy}")),
        }
    }

    /// Runs the engine's program with `args` to its end.
    pub(super) async fn command(
        &self,
        engine: &Engine,
        args: Vec<OsString>,
        deadline: Duration,
    ) -> Result<Finished, SpawnError> {
        let request = SpawnRequest {
            program: engine.program.clone(),
            args,
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            cwd: PathBuf::from("/"),
            descriptors: Vec::new(),
            cgroup_entry: Vec::new(),
            private: false,
            batch: false,
        };
        self.spawner.run_to_end(request, deadline).await
    }
}

/// `runsc version 0.0~20240729.0`, `crun version 1.8.1`: the word after "version".
fn version_in(stdout: &str) -> Option<String> {
    let mut words = stdout.split_whitespace().skip_while(|word| *word != "version");
    words.nth(1).map(|word| word.chars().take(64).collect())
}

/// Releases are dates: the first eight digits in a row.
fn check_age(version: &str) -> Result<(), String> {
    let date = version
        .split(|c: char| !c.is_ascii_digit())
        .find(|digits| digits.len() == 8)
        .and_then(|d| d.parse::<u32>().ok());
    match date {
        Some(date) if date < OLDEST_RUNSC => Err(format!(
            "runsc {version} is too old: it lacks systrap or --pass-fd. Install {OLDEST_RUNSC} or newer (Debian: bookworm-backports)"
        )),
        // A build without a date is somebody's own: the start of a sandbox tells whether it can be used.
        Some(_) | None => Ok(()),
    }
}

fn identity_of(program: &Path) -> Option<String> {
    let found = fs::metadata(program).ok()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let (size, inode) = (found.size(), found.ino());
    Some(format!("{}:{size}:{inode}:{}.{}:{}", program.display(), found.mtime(), found.mtime_nsec(), kernel.trim()))
}

fn recall(path: &Path) -> Option<Memory> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A memory that cannot be written costs the next start a fifth of a second.
fn remember(path: &Path, memory: &Memory) {
    let draft = path.with_extension("draft");
    if let Ok(text) = serde_json::to_vec(memory) {
        let _ = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
    }
}

/// The versions of the runtimes that are there, and a line for each that is not.
fn installed(images: &dyn RuntimeImages) -> (BTreeMap<Runtime, String>, Vec<String>) {
    let mut versions = BTreeMap::new();
    let mut missing = Vec::new();
    for runtime in Runtime::ALL {
        match images.serving(runtime) {
            Ok(root) => drop(versions.insert(runtime, root.version)),
            Err(reason) => missing.push(reason),
        }
    }
    (versions, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_engines_print_them() {
        for (printed, version) in [
            ("runsc version 0.0~20240729.0\nspec: 1.0.2-dev\n", "0.0~20240729.0"),
            ("runsc version release-20260810.0\nspec: 1.1.0\n", "release-20260810.0"),
            ("crun version 1.8.1\ncommit: f8a\n", "1.8.1"),
        ] {
            assert_eq!(version_in(printed).as_deref(), Some(version));
        }
        assert_eq!(version_in("hello"), None);
    }

    #[test]
    fn an_old_runsc_is_refused_with_its_remedy() {
        assert!(check_age("0.0~20221219.0").is_err_and(|text| text.contains("bookworm-backports")));
        for good in ["0.0~20240729.0", "release-20260810.0", "VERSION_MISSING"] {
            assert_eq!(check_age(good), Ok(()), "{good}");
        }
    }
}
