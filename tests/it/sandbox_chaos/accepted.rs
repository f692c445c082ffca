//! Calls that are answered later: each ends once, in whichever life of the daemon.

use serde_json::Value;

use super::caller::{Caller, PATIENCE};
use super::order::Order;
use crate::support::eventually;

/// A call that the daemon has taken on.
pub struct Accepted {
    pub at: String,
    pub order: Order,
    /// The life that took it.
    pub life: u64,
    /// Whether its caller has asked for its end.
    pub cancelled: bool,
}

impl Caller {
    /// Looks at one of the calls, or cancels it.
    pub async fn look_or_cancel(&mut self) {
        if self.accepted.is_empty() {
            return self.ask_for_later().await;
        }
        let one = self.dice.below(self.accepted.len() as u64) as usize;
        if self.dice.below(3) == 0 {
            self.accepted[one].cancelled = true;
            let (_, answer) = self.insist("DELETE", &self.accepted[one].at).await;
            assert_eq!(answer.status, 204, "{}", answer.text);
            self.site.saw("later: asked to be cancelled");
            return;
        }
        if let Ok((life, view)) = self.look_at(&self.accepted[one].at).await {
            let accepted = self.accepted.swap_remove(one);
            self.take_end(&accepted, life, &view).await;
        }
    }

    /// Sees all of them end.
    pub async fn settle_accepted(&mut self) {
        for accepted in std::mem::take(&mut self.accepted) {
            let mut end = None;
            eventually("the end of an accepted call", PATIENCE, async || {
                end = Some(self.look_at(&accepted.at).await?);
                Ok(())
            })
            .await;
            let (life, view) = end.unwrap();
            self.take_end(&accepted, life, &view).await;
        }
    }

    /// How a call ended, and the life that told it; else how it stands.
    async fn look_at(&self, at: &str) -> Result<(u64, Value), String> {
        let (life, answer) = self.insist("GET", at).await;
        assert_eq!(answer.status, 200, "{at}: {}", answer.text);
        match answer.json["status"].as_str() {
            Some("done") => Ok((life, answer.json)),
            Some("queued" | "running") => Err(answer.text),
            _ => panic!("{at}: {}", answer.text),
        }
    }

    async fn take_end(&self, accepted: &Accepted, life: u64, view: &Value) {
        let Accepted { at, order, .. } = accepted;
        let outlived = life != accepted.life;
        let outcome = view["outcome"].as_str().unwrap_or_else(|| panic!("{at}: {view}"));
        self.site.saw("accepted call ended");
        let (answer, error) = (&view["answer"], &view["error"]);
        // Answers are kept in memory.
        assert!(outlived || answer.is_object() || error.is_object(), "{order:?}: {view}");
        if answer.is_object() {
            assert_eq!(order.assert_own(answer, self.newest), outcome, "{view}");
        }
        match outcome {
            "cancelled" => {
                assert!(outlived || accepted.cancelled, "{order:?}: {view}");
                self.site.saw("later: cancelled");
            }
            "failed" if error.is_object() => self.refused("later", 500, error),
            "failed" => {
                assert!(outlived, "{order:?}: {view}");
                self.site.saw("struck");
            }
            outcome => self.note("later", order, outcome),
        }
        let again = self.look_at(at).await.unwrap_or_else(|now| panic!("it had ended: {view}, then {now}")).1;
        let end = |view: &Value| (view["outcome"].clone(), view["endedAt"].clone(), view["startedAt"].clone());
        assert_eq!(end(view), end(&again), "it ended once");
    }
}
