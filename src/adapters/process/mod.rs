//! Processes of this host (`ports::process`), over `sys::spawn` and `sys::children`.

mod capture;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::time::timeout;

use self::capture::Captures;
use crate::domain::execution::ProcessEnd;
use crate::ports::process::{Ask, Finished, Process, SpawnError, SpawnRequest, Spawner, Zombies};
use crate::sys::children::{self, Child};
use crate::sys::pidfd::Exit;
use crate::sys::spawn::{Order, Output, Started, spawn};

/// How long a process that was killed may take to be gone before it is left to the Reaper.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Starts children of this daemon.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSpawner;

#[async_trait]
impl Spawner for HostSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn Process>, SpawnError> {
        let program = request.program.clone();
        let started = start(request, Output::Null).await.map_err(|source| SpawnError::Start { program, source })?;
        Ok(Box::new(HostProcess { child: started.child }))
    }

    async fn run_to_end(&self, request: SpawnRequest, deadline: Duration) -> Result<Finished, SpawnError> {
        let program = request.program.clone();
        let started = start(request, Output::Piped)
            .await
            .map_err(|source| SpawnError::Start { program: program.clone(), source })?;
        let follow = |source| SpawnError::Follow { program: program.clone(), source };
        // From here on each way out, a cancelled caller's too, kills what is left of the group.
        let group = Group(started.child);
        let mut captures = Captures::new(started.stdout, started.stderr).map_err(follow)?;
        match timeout(deadline, captures.read_until(group.0.ended())).await {
            Ok(followed) => followed.map_err(follow)?,
            Err(_elapsed) => return Err(group.end_at_deadline(&program, deadline).await),
        }
        // Before the leader is reaped, while the group's number is still its own.
        group.0.kill_group();
        let exit = group.0.wait().await.map_err(follow)?;
        let (stdout, stderr) = captures.finish();
        Ok(Finished { end: end_of(exit), stdout, stderr })
    }
}

/// The zombies of this process, among them the orphans it inherits.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostZombies;

impl Zombies for HostZombies {
    fn collect(&self) -> usize {
        children::collect()
    }
}

struct HostProcess {
    child: Child,
}

#[async_trait]
impl Process for HostProcess {
    #[cfg(test)]
    fn pid(&self) -> i32 {
        self.child.pid()
    }

    async fn wait(&self) -> ProcessEnd {
        // Without descriptors to poll with, the end cannot be seen: the host has stopped watching.
        self.child.wait().await.map_or(ProcessEnd::Running, end_of)
    }

    fn kill(&self) {
        self.child.kill();
    }

    fn ask(&self, ask: Ask) {
        self.child.signal(match ask {
            Ask::End => Signal::SIGTERM,
            Ask::Abort => Signal::SIGABRT,
        });
    }

    fn kill_group(&self) {
        self.child.kill_group();
    }
}

/// A child whose process group does not outlive it.
struct Group(Child);

impl Group {
    async fn end_at_deadline(&self, program: &Path, deadline: Duration) -> SpawnError {
        self.0.kill_group();
        // One that does not die (uninterruptible sleep) is left to the Reaper.
        let _ = timeout(KILL_PATIENCE, self.0.wait()).await;
        SpawnError::Deadline { program: PathBuf::from(program), deadline }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.kill_group();
    }
}

async fn start(request: SpawnRequest, output: Output) -> std::io::Result<Started> {
    let SpawnRequest { program, args, env, cwd, descriptors, cgroup_entry, private, batch } = request;
    spawn(Order { program, args, env, cwd, descriptors, cgroup_entry, private, batch, output }).await
}

fn end_of(exit: Exit) -> ProcessEnd {
    match exit {
        Exit::Code(code) => ProcessEnd::Exited(code),
        Exit::Signal(signal) => ProcessEnd::Signalled(signal),
    }
}
