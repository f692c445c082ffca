//! The daemon that is killed and started again, and what must hold whenever its callers rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::caller::{Caller, PATIENCE};
use super::site::Site;
use super::strikes::strike;
use crate::support::dice::Dice;
use crate::support::host::{Footprint, footprint};
use crate::support::tier::Tier;
use crate::support::{Daemon, RUNTIMES, Settings, eventually, host};

/// So many callers have an environment on each runtime.
const CALLERS: usize = 3;

fn settings() -> Settings {
    let tier = Tier::Runtime;
    tier.settings(Settings { tier, ..Settings::default() })
        .set("sandbox.standing.environment", "1")
        .set("sandbox.queue_wait", "5 min")
        // One that is stopped while it boots is waited for.
        .set("sandbox.boot_deadline", "20 s")
        .set("reaper.interval", "1 s")
        .set("calls.at_once", "3")
        .set("calls.keep_mib", "8")
}

pub struct House {
    /// None only while it is being killed.
    daemon: Option<Daemon>,
    pub site: Arc<Site>,
    /// How often each call was said to have ended.
    ends: BTreeMap<String, usize>,
    waves: usize,
}

impl House {
    pub async fn start() -> Self {
        let daemon = Daemon::start_with(settings()).await;
        let site = Arc::new(Site::new(daemon.client()));
        Self { daemon: Some(daemon), site, ends: BTreeMap::new(), waves: 0 }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub fn footprint(&self) -> Footprint {
        footprint(self.daemon().pid())
    }

    /// Callers and strikes for so long, with a kill of the daemon somewhere in the middle or without one.
    pub async fn wave(&mut self, dice: &mut Dice, length: Duration, killed: bool) {
        self.waves += 1;
        let until = Instant::now() + length;
        let places = RUNTIMES.iter().flat_map(|runtime| (0..CALLERS).map(move |number| (*runtime, number)));
        let callers: Vec<_> = places
            .map(|(runtime, number)| {
                let name = format!("{runtime}-{number} of wave {}", self.waves);
                Caller::new(&self.site, dice.others(), name, runtime).live(until)
            })
            .collect();
        let (site, home, others) = (Arc::clone(&self.site), Arc::clone(&self.daemon().home), dice.others());
        let strikes = strike(&site, &home, others, until);
        let kill = async {
            if killed {
                tokio::time::sleep(length.mul_f64(0.3 + dice.below(50) as f64 / 100.0)).await;
                self.kill().await;
            }
        };
        // In one task: who panics ends all of it.
        tokio::join!(futures_util::future::join_all(callers), strikes, kill);
    }

    async fn kill(&mut self) {
        self.site.saw("kill of the daemon");
        self.site.goes();
        let daemon = self.daemon.take().unwrap();
        let log = Arc::clone(&daemon.log);
        let home = daemon.kill_only();
        self.read(&log.lock().unwrap());
        let daemon = Daemon::start_in(home, settings()).await;
        self.site.is_up(daemon.client());
        self.daemon = Some(daemon);
    }

    /// Reads a life's log: no part fell, and no call ended twice.
    fn read(&mut self, log: &[String]) {
        for line in log {
            // The last line may be cut off.
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            let [message, level] = ["msg", "level"].map(|field| entry[field].as_str().unwrap_or_default());
            let defect =
                ["error", "critical"].contains(&level) || ["child.hung", "child.restarting"].contains(&message);
            assert!(!defect, "{line}");
            if ["call.ended", "desk.ended"].contains(&message) {
                let ends = self.ends.entry(format!("{message} {}", entry["execution"])).or_default();
                *ends += 1;
                assert_eq!(*ends, 1, "it ended twice: {line}");
            }
        }
    }

    /// Asserts that nothing of a wave is left, and returns the daemon's footprint then.
    pub async fn rest(&mut self) -> Footprint {
        let daemon = self.daemon();
        // Without the connections of the wave.
        let client = daemon.client();
        self.site.is_up(daemon.client());
        let listed = client.send("GET", "/environments", None).await;
        let strays = listed.json.as_array().unwrap_or_else(|| panic!("{}", listed.text));
        assert!(strays.len() <= self.site.count("stray"), "environments that nobody knows: {}", listed.text);
        for stray in strays {
            client.delete(stray["id"].as_str().unwrap()).await;
        }
        eventually("no environment", PATIENCE, async || {
            let listed = client.send("GET", "/environments", None).await;
            let trees = std::fs::read_dir(daemon.home.state().join("volumes")).unwrap().flatten();
            let trees: Vec<_> = trees.map(|entry| entry.file_name()).collect();
            let none = listed.text == "[]" && trees.is_empty();
            if none { Ok(()) } else { Err(format!("{} {trees:?}", listed.text)) }
        })
        .await;
        let standing = RUNTIMES.len() as u64;
        daemon.standing.wait_for(standing).await;
        daemon.eventually_nothing_left(PATIENCE).await;
        assert_eq!(host::frozen_slots(&daemon.home).len() as u64, standing);
        let (struck, strikes) = (self.site.count("struck"), self.site.count("strike"));
        assert!(struck <= strikes, "{struck} calls were hurt by {strikes} strikes:\n{}", self.site.summary());
        self.footprint()
    }

    /// Ends the daemon as one is told to.
    pub async fn end(mut self) {
        let site = Arc::clone(&self.site);
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended(PATIENCE).await.code(), Some(0));
        self.read(&daemon.log.lock().unwrap());
        host::leftovers_beside(&daemon.home, &BTreeSet::new()).unwrap();
        assert_eq!(site.count("accepted"), site.count("accepted call ended"), "each accepted call ends once");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.site.summary());
            self.daemon.iter().for_each(|daemon| println!("{}", daemon.log_text()));
        }
    }
}
