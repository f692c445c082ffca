//! On the real kernel. Pipes tell what lives: a pipe reads to its end only when each process that held its writing
//! end is gone.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{OwnedFd, RawFd};

use super::*;
use crate::sys::pidfd::PidFd;
use crate::sys::watch::Watch;

const LONG: Duration = Duration::from_secs(60);

fn sh(script: &str, descriptors: Vec<(OwnedFd, RawFd)>) -> SpawnRequest {
    SpawnRequest {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        descriptors,
        cgroup_entry: Vec::new(),
        private: false,
        batch: false,
    }
}

fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    (reader.into(), writer.into())
}

fn read_to_end(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    text
}

#[tokio::test]
async fn a_batch_child_and_what_it_starts_wait_for_their_turns() {
    for (batch, policy) in [(true, "3"), (false, "0")] {
        let request = SpawnRequest { batch, ..sh("(cut -d ' ' -f 41 /proc/self/stat)", Vec::new()) };
        let finished = HostSpawner.run_to_end(request, LONG).await.expect("run");
        assert_eq!(finished.stdout.trim(), policy);
    }
}

#[tokio::test]
async fn a_private_child_is_ended_before_the_daemon_when_memory_runs_out() {
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    for (private, more) in [(true, 500), (false, 0)] {
        let request = SpawnRequest { private, ..sh("cat /proc/self/oom_score_adj", Vec::new()) };
        let finished = HostSpawner.run_to_end(request, LONG).await.expect("runs");
        assert_eq!(finished.stdout.trim(), (own + more).min(1000).to_string());
    }
}

async fn run(script: &str) -> Finished {
    HostSpawner.run_to_end(sh(script, Vec::new()), LONG).await.expect("runs")
}

/// Runs one of the ignored tests below in a process of its own.
async fn alone(test: &str, descriptors: Vec<(OwnedFd, RawFd)>) -> Finished {
    let mut request = sh("", descriptors);
    request.program = std::env::current_exe().expect("own path");
    let path = format!("{}::{test}", module_path!().split_once("::").expect("crate").1);
    request.args = [path.as_str(), "--exact", "--ignored", "--nocapture"].map(Into::into).to_vec();
    HostSpawner.run_to_end(request, LONG).await.expect("runs")
}

#[tokio::test]
async fn a_command_is_run_to_its_end_with_its_output_and_its_exact_environment() {
    let mut request = sh("env | grep -v ^_= ; pwd; echo to-stderr >&2; exit 7", Vec::new());
    request.env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "b".into())];
    request.cwd = "/usr".into();
    let finished = HostSpawner.run_to_end(request, LONG).await.expect("runs");
    assert_eq!(finished.end, ProcessEnd::Exited(7));
    assert_eq!(finished.stderr, "to-stderr\n");
    let mut lines: Vec<_> = finished.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["/usr", "A=b", "PATH=/usr/bin:/bin", "PWD=/usr"]);
}

#[tokio::test]
async fn a_signals_number_is_told_a_realtime_ones_too() {
    assert_eq!(run("kill -SEGV $$").await.end, ProcessEnd::Signalled(11));
    assert_eq!(run("kill -40 $$").await.end, ProcessEnd::Signalled(40));
}

#[tokio::test]
async fn both_streams_are_cut_and_the_rest_is_drained() {
    let finished = run("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3").await;
    assert_eq!(finished.end, ProcessEnd::Exited(3));
    assert_eq!((finished.stdout.len(), finished.stderr.len()), (65_536, 65_536));
}

#[tokio::test]
async fn the_child_has_no_other_descriptors_and_no_ignored_or_blocked_signals() {
    // One without close-on-exec, as a daemon may have been started with.
    let leaky = nix::unistd::dup(File::open("/dev/null").expect("open")).expect("dup");
    let (reader, writer) = pipe();
    // The shell's own descriptor on that folder is in the list, and gone when it is looked at.
    let script = "for fd in /proc/$$/fd/*; do [ -e $fd ] && echo ${fd##*/}; done; readlink /proc/$$/fd/0; \
        echo hello >&9; exec grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let finished = HostSpawner.run_to_end(sh(script, vec![(writer.into(), 9)]), LONG).await.expect("runs");
    drop(leaky);
    let lines: Vec<_> = finished.stdout.lines().collect();
    let unblocked = ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"];
    assert_eq!(lines, ["0", "1", "2", "9", "/dev/null", unblocked[0], unblocked[1]]);
    assert_eq!(read_to_end(reader), "hello\n");
}

#[tokio::test]
async fn descriptors_may_swap_numbers_with_ones_that_are_in_use() {
    let (first_reader, first) = pipe();
    let (second_reader, second) = pipe();
    let (one, two) = (std::os::fd::AsRawFd::as_raw_fd(&first), std::os::fd::AsRawFd::as_raw_fd(&second));
    // Two-digit descriptors need bash's syntax in a shell, so a path is used.
    let script = format!("echo first > /proc/self/fd/{two}; echo second > /proc/self/fd/{one}");
    let swapped = vec![(first.into(), two), (second.into(), one)];
    HostSpawner.run_to_end(sh(&script, swapped), LONG).await.expect("runs");
    assert_eq!(read_to_end(first_reader), "first\n");
    assert_eq!(read_to_end(second_reader), "second\n");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut request = sh("", vec![(pipe().1.into(), 3), (pipe().1.into(), 4)]);
    request.program = "/no/such/program".into();
    let error = HostSpawner.spawn(request).await.err().expect("fails");
    assert!(matches!(&error, SpawnError::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    assert_eq!(error.to_string(), "cannot start /no/such/program");

    let mut request = sh("", Vec::new());
    request.cgroup_entry = vec!["/no/such/cgroup.procs".into()];
    let Err(SpawnError::Start { source, .. }) = HostSpawner.spawn(request).await else { panic!("must not start") };
    assert_eq!(source.to_string(), "cannot enter cgroup /no/such/cgroup.procs");
}

#[tokio::test]
async fn waiting_may_be_repeated_and_shared_and_kill_is_quiet_after_the_end() {
    let process = HostSpawner.spawn(sh("exec sleep 600", Vec::new())).await.expect("starts");
    process.kill();
    let (first, second) = tokio::join!(process.wait(), process.wait());
    assert_eq!((first, second), (ProcessEnd::Signalled(9), ProcessEnd::Signalled(9)));
    assert_eq!(process.wait().await, ProcessEnd::Signalled(9));
    process.kill();
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_is_killed() {
    let (reader, writer) = pipe();
    let request = sh("sleep 600 & sleep 600", vec![(writer.into(), 5)]);
    let result = HostSpawner.run_to_end(request, Duration::from_millis(50)).await;
    assert!(matches!(result, Err(SpawnError::Deadline { .. })));
    assert_eq!(read_to_end(reader), "");
}

#[tokio::test]
async fn a_caller_that_leaves_takes_the_group_along() {
    let (reader, writer) = pipe();
    let (mut begun, begun_writer) = pipe();
    let request = sh("echo b >&6; sleep 600 & sleep 600", vec![(writer.into(), 5), (begun_writer.into(), 6)]);
    let begun = tokio::task::spawn_blocking(move || begun.read_exact(&mut [0]));
    tokio::select! {
        _ = HostSpawner.run_to_end(request, LONG) => panic!("must still run"),
        read = begun => read.expect("joins").expect("reads"),
    }
    assert_eq!(read_to_end(reader), "");
}

#[tokio::test]
async fn a_child_whose_caller_left_before_it_was_started_does_not_live_on() {
    let (reader, writer) = pipe();
    let starting = HostSpawner.spawn(sh("exec sleep 600", vec![(writer.into(), 5)]));
    if let Some(started) = futures_util::FutureExt::now_or_never(starting) {
        // Started within one poll, since this thread was kept waiting: then it has been handed over.
        started.expect("starts").kill();
    }
    assert_eq!(read_to_end(reader), "");
}

#[tokio::test]
async fn the_rest_of_the_group_does_not_outlive_its_leader() {
    let (reader, writer) = pipe();
    let request = sh("sleep 600 & echo done", vec![(writer.into(), 5)]);
    let finished = HostSpawner.run_to_end(request, LONG).await.expect("runs");
    assert_eq!((finished.end, finished.stdout.as_str()), (ProcessEnd::Exited(0), "done\n"));
    assert_eq!(read_to_end(reader), "");
}

#[tokio::test]
async fn a_grandchild_that_left_the_group_and_keeps_stdout_open_is_not_waited_for() {
    let (reader, _keeps_it_alive) = pipe();
    let request = sh("setsid cat <&5 & echo done", vec![(reader.into(), 5)]);
    let finished = HostSpawner.run_to_end(request, LONG).await.expect("runs");
    assert_eq!(finished.stdout, "done\n");
}

#[test]
fn a_child_survives_the_thread_that_asked_for_it() {
    let (reader, mut writer) = pipe();
    let request = sh("read line <&5; exit 7", vec![(reader.into(), 5)]);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let asking = std::thread::spawn(move || runtime().block_on(HostSpawner.spawn(request)).expect("starts"));
    let process = asking.join().expect("joins");
    writer.write_all(b"go\n").expect("the child still reads");
    assert_eq!(runtime().block_on(process.wait()), ProcessEnd::Exited(7));
}

#[tokio::test]
async fn children_die_with_the_daemon() {
    let (reader, writer) = pipe();
    let finished = alone("a_daemon_that_is_killed", vec![(writer.into(), 5)]).await;
    assert_eq!(finished.end, ProcessEnd::Signalled(9), "{}", finished.stdout);
    assert_eq!(read_to_end(reader), "alive\n");
}

#[tokio::test]
#[ignore = "run in a process of its own by children_die_with_the_daemon"]
async fn a_daemon_that_is_killed() {
    let (mut begun, begun_writer) = pipe();
    let ours = File::options().write(true).open("/proc/self/fd/5").expect("descriptor 5");
    // `exec` keeps the parent-death signal; a further fork would not inherit it.
    let script = "echo alive >&5; echo b >&6; exec sleep 600";
    let request = sh(script, vec![(ours.into(), 5), (begun_writer.into(), 6)]);
    let _process = HostSpawner.spawn(request).await.expect("starts");
    begun.read_exact(&mut [0]).expect("child began");
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).expect("kill");
}

#[tokio::test]
async fn zombies_of_others_are_collected_and_owned_ones_are_not() {
    let finished = alone("a_subreaper", Vec::new()).await;
    assert_eq!(finished.end, ProcessEnd::Exited(0), "{}{}", finished.stdout, finished.stderr);
}

#[tokio::test]
#[ignore = "run in a process of its own by zombies_of_others_are_collected_and_owned_ones_are_not"]
async fn a_subreaper() {
    children::become_subreaper().expect("subreaper");
    assert_eq!(HostZombies.collect(), 0);
    let owned = HostSpawner.spawn(sh("exit 3", Vec::new())).await.expect("starts");
    let forgotten = HostSpawner.spawn(sh("exit 4", Vec::new())).await.expect("starts");
    let (gate, opened) = pipe();
    let script = "setsid sh -c 'read line <&5; exit 5' >/dev/null & echo $!";
    let orphan = HostSpawner.run_to_end(sh(script, vec![(gate.into(), 5)]), LONG).await.expect("runs");
    let orphan = orphan.stdout.trim().parse().expect("pid");
    drop(opened);
    for pid in [owned.pid(), forgotten.pid(), orphan] {
        let descriptor = PidFd::open(pid).and_then(|process| process.duplicate()).expect("pidfd");
        Watch::readable(descriptor).expect("watch").next().await.expect("ends");
    }
    drop(forgotten);
    assert_eq!(HostZombies.collect(), 1, "the orphan; the forgotten one was reaped when it was dropped");
    assert_eq!(HostZombies.collect(), 0);
    assert_eq!(owned.wait().await, ProcessEnd::Exited(3));

    let dropped = HostSpawner.spawn(sh("exec sleep 600", Vec::new())).await.expect("starts");
    let descriptor = PidFd::open(dropped.pid()).expect("pidfd");
    drop(dropped);
    descriptor.kill().expect("kill");
    Watch::readable(descriptor.duplicate().expect("dup")).expect("watch").next().await.expect("ends");
    assert_eq!(HostZombies.collect(), 1);
}

#[tokio::test]
async fn nothing_is_left_open_or_unreaped() {
    let finished = alone("a_hundred_commands", Vec::new()).await;
    assert_eq!(finished.end, ProcessEnd::Exited(0), "{}{}", finished.stdout, finished.stderr);
}

#[tokio::test]
#[ignore = "run in a process of its own by nothing_is_left_open_or_unreaped"]
async fn a_hundred_commands() {
    let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    run("true").await;
    let before = open();
    for round in 0..100 {
        let (_reader, writer) = pipe();
        match round % 4 {
            0 => drop(run("echo x; echo y >&2").await),
            1 => drop(HostSpawner.run_to_end(sh("exec sleep 600", vec![(writer.into(), 4)]), Duration::ZERO).await),
            2 => drop(HostSpawner.spawn(sh("exit 1", vec![(writer.into(), 4)])).await.expect("starts").wait().await),
            _ => {
                let mut request = sh("", vec![(writer.into(), 4)]);
                request.program = "/no/such/program".into();
                drop(HostSpawner.run_to_end(request, LONG).await);
            }
        }
    }
    assert_eq!(open(), before);
    let own = i32::try_from(std::process::id()).expect("pid");
    let children = procfs::process::all_processes().expect("proc").filter_map(|process| process.ok()?.stat().ok());
    assert_eq!(children.filter(|stat| stat.ppid == own).count(), 0);
}
