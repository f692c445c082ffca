//! What the callers share: where the daemon of the moment is, and what has been seen.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::support::Client;

/// One life of the daemon. Without a client it is not up yet.
struct Life {
    number: u64,
    client: Option<Client>,
}

/// A daemon that is killed and comes again.
pub struct Site {
    life: watch::Sender<Life>,
    seen: Mutex<BTreeMap<String, usize>>,
}

impl Site {
    pub fn new(client: Client) -> Self {
        let (life, _) = watch::channel(Life { number: 0, client: Some(client) });
        Self { life, seen: Mutex::default() }
    }

    /// The life that answers, once one does.
    pub async fn up(&self) -> (u64, Client) {
        let mut lives = self.life.subscribe();
        let life = lives.wait_for(|life| life.client.is_some()).await.unwrap();
        (life.number, life.client.clone().unwrap())
    }

    /// Whether this life is over: from before its kill on, so that what breaks by it is not taken for a defect.
    pub fn is_over(&self, number: u64) -> bool {
        self.life.borrow().number != number
    }

    pub fn goes(&self) {
        self.life.send_modify(|life| *life = Life { number: life.number + 1, client: None });
    }

    pub fn is_up(&self, client: Client) {
        self.life.send_modify(|life| life.client = Some(client));
    }

    pub fn saw(&self, what: impl Into<String>) {
        *self.seen.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    pub fn summary(&self) -> String {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(what, count)| format!("{count:6} {what}\n")).collect()
    }
}
