//! Kills and stops processes of sandboxes, in the daemon's own cgroups only.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::site::Site;
use crate::support::daemon::Home;
use crate::support::dice::Dice;
use crate::support::host;

pub async fn strike(site: &Site, home: &Home, mut dice: Dice, until: Instant) {
    loop {
        tokio::time::sleep(Duration::from_millis(500 + dice.below(2500))).await;
        if Instant::now() >= until {
            return;
        }
        let slots = host::slot_cgroups(home);
        if slots.is_empty() {
            continue;
        }
        let mut processes: Vec<i32> = host::processes_in(dice.one_of::<PathBuf>(&slots)).into_iter().collect();
        if processes.is_empty() {
            continue;
        }
        if dice.below(3) > 0 {
            processes = vec![*dice.one_of(&processes)];
        }
        let signal = if dice.below(8) == 0 { Signal::SIGSTOP } else { Signal::SIGKILL };
        // Before it is felt.
        site.saw("strike");
        site.saw(format!("strike: {signal}"));
        for process in processes {
            // It may have ended by itself since.
            let _ = kill(Pid::from_raw(process), signal);
        }
    }
}
