//! How a call's sandbox comes to be: what is promised of a call holds for each of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::daemon::Settings;

/// A tier, and nothing above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Cold,
    Runtime,
    Environment,
}

impl Tier {
    /// As the answer's `start` has it.
    pub fn start(self) -> &'static str {
        match self {
            Tier::Cold => "cold",
            Tier::Runtime => "warm-runtime",
            Tier::Environment => "warm-environment",
        }
    }

    /// Whether sandboxes stand ready on a daemon of this tier.
    pub fn stands(self) -> bool {
        self != Tier::Cold
    }

    pub fn settings(self, settings: Settings) -> Settings {
        let (runtimes, environment) = match self {
            Tier::Cold => return settings,
            Tier::Runtime => ("1", "0"),
            Tier::Environment => ("0", "1"),
        };
        settings
            .set("sandbox.standing.enabled", "true")
            .set("sandbox.standing.memory_mib", "2048")
            .set("sandbox.standing.runtimes", runtimes)
            .set("sandbox.standing.environment", environment)
    }
}

/// Makes a test for each tier out of one function.
macro_rules! on_every_tier {
    ($name:ident) => {
        mod $name {
            use crate::support::tier::Tier;

            #[tokio::test]
            async fn cold() {
                super::$name(Tier::Cold).await;
            }

            #[tokio::test]
            async fn warm_runtime() {
                super::$name(Tier::Runtime).await;
            }

            #[tokio::test]
            async fn warm_environment() {
                super::$name(Tier::Environment).await;
            }
        }
    };
}
pub(crate) use on_every_tier;

/// What stands ready on a daemon, and which starts its calls had.
#[derive(Debug, Clone)]
pub struct Standing {
    pub tier: Tier,
    socket: PathBuf,
    pub starts: Arc<Mutex<Vec<String>>>,
}

impl Standing {
    pub fn new(tier: Tier, socket: PathBuf) -> Self {
        Self { tier, socket, starts: Arc::default() }
    }

    /// The pool's picture.
    pub async fn pool(&self) -> Value {
        let client = super::http().unix_socket(self.socket.clone()).build().unwrap();
        let answer = client.get("http://health/healthz").send().await.unwrap();
        let health: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        health["pool"].clone()
    }

    /// Waits until nothing is being made and this many stand.
    pub async fn wait_for(&self, count: u64) {
        super::eventually("what shall stand", Duration::from_secs(60), async || {
            let pool = self.pool().await;
            let at_rest = pool["warming"] == 0 && pool["standing"].as_u64() >= Some(count);
            if at_rest { Ok(()) } else { Err(pool.to_string()) }
        })
        .await;
    }

    /// Waits until nothing is being made.
    pub async fn settle(&self) {
        self.wait_for(0).await;
    }

    pub fn note(&self, answer: &Value) {
        if let Some(start) = answer["start"].as_str() {
            self.starts.lock().unwrap().push(start.to_owned());
        }
    }
}
