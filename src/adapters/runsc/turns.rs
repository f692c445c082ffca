//! Which threads of a sandbox may take the processor from another when they wake.
//!
//! gVisor's systrap maps memory by a thread in each address space of the sandbox: the sentry wakes it, then sleeps until it is done. On
//! a host of few cores that thread, when it wakes, takes the processor from the very thread that is about to sleep, and then asks the
//! kernel again and again whether it sleeps, for as long as its turn lasts: up to 4 ms, at each mapping that meets it. As `SCHED_BATCH` it lets
//! the other finish first. So a sandbox boots with that policy, which costs a boot nothing and lets those that
//! serve calls pass, and once it is ready all other threads are given the usual one.

use std::collections::BTreeMap;

use procfs::process::Process;

use crate::sys::scheduling::{Policy, set};

/// The engine, its gofer and sentry, then the sentry's own children: each maps the memory of one address space.
const MAPS_MEMORY: usize = 2;

/// Gives the processes of a sandbox that has booted their policies. Some may have gone; and where another user's threads may not be
/// touched all remain as they booted, and wait a little longer for their turns beside busy ones.
pub(super) fn settle(processes: &[i32]) {
    let parents: BTreeMap<i32, i32> =
        processes.iter().filter_map(|pid| Some((*pid, Process::new(*pid).ok()?.stat().ok()?.ppid))).collect();
    for pid in parents.keys().filter(|pid| depth(**pid, &parents) != MAPS_MEMORY) {
        let threads = Process::new(*pid).and_then(|process| process.tasks());
        for thread in threads.into_iter().flatten().flatten() {
            let _refused = set(thread.tid, Policy::Normal);
        }
    }
}

/// How many of its ancestors are of the sandbox.
fn depth(pid: i32, parents: &BTreeMap<i32, i32>) -> usize {
    // Bounded, should the pids have become others' while they were read.
    std::iter::successors(parents.get(&pid), |parent| parents.get(parent))
        .take(parents.len())
        .filter(|parent| parents.contains_key(parent))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_ancestors_within_the_sandbox() {
        let parents = [(10, 1), (11, 10), (12, 11), (13, 12)].into();
        assert_eq!([10, 11, 12, 13].map(|pid| depth(pid, &parents)), [0, 1, 2, 3]);
        assert!(depth(5, &[(5, 6), (6, 5)].into()) <= 2, "a circle ends");
    }
}
