//! Which keys there are, and until when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::envelope::Kid;
use crate::domain::time::Moment;
use crate::ports::vault::KeyInfo;
use crate::sealed::{PublicKey, SecretKey};
use crate::sys::secret::Protection;

/// The most former keys; of more, those that would go first go at once. Each costs a trial of what names no key.
const MOST_FORMER: usize = 8;

struct Held {
    kid: Kid,
    key: Arc<SecretKey>,
    /// None: the current key.
    until: Option<Moment>,
}

/// The current key first, then the former ones, the latest first.
#[derive(Default)]
pub(super) struct Ring {
    held: Vec<Held>,
    destroyed: BTreeSet<Kid>,
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn list(&self) -> Vec<KeyInfo> {
        let info = |held: &Held| KeyInfo {
            locked: held.key.protection() != Protection::Plain,
            kid: held.kid,
            public_key: held.key.public_key().to_base64(),
            current: held.until.is_none(),
            until: held.until,
        };
        self.held.iter().map(info).collect()
    }

    /// The keys to try, in order.
    pub(super) fn candidates(&self, kid: Option<Kid>) -> Vec<(Kid, Arc<SecretKey>)> {
        let meant = |held: &&Held| kid.is_none_or(|kid| held.kid == kid);
        self.held.iter().filter(meant).map(|held| (held.kid, Arc::clone(&held.key))).collect()
    }

    /// Takes what the sources hold. What was current becomes a former key; a former key that is new here is kept for
    /// the overlap, and one that was destroyed is not taken again. Says which keys went.
    pub(super) fn renew(
        &mut self,
        current: Option<Arc<SecretKey>>,
        former: Vec<Arc<SecretKey>>,
        overlap: Duration,
        now: Moment,
    ) -> Vec<Kid> {
        let Some(current) = current else { return Vec::new() };
        let until = Some(now.after(overlap));
        let new = kid_of(current.public_key());
        for held in &mut self.held {
            held.until = held.until.or(until);
        }
        self.held.retain(|held| held.kid != new);
        self.destroyed.remove(&new);
        self.held.insert(0, Held { kid: new, key: current, until: None });
        for key in former {
            let kid = kid_of(key.public_key());
            if !self.destroyed.contains(&kid) && self.held.iter().all(|held| held.kid != kid) {
                self.held.push(Held { kid, key, until });
            }
        }
        if let Some(former) = self.held.get_mut(1..) {
            former.sort_by_key(|held| std::cmp::Reverse(held.until));
        }
        let mut gone: Vec<Kid> =
            self.held.drain((MOST_FORMER + 1).min(self.held.len())..).map(|held| held.kid).collect();
        self.destroyed.extend(&gone);
        gone.extend(self.retire(now));
        gone
    }

    /// Destroys former keys whose time is over.
    pub(super) fn retire(&mut self, now: Moment) -> Vec<Kid> {
        let is_over = |held: &mut Held| held.until.is_some_and(|until| until <= now);
        let gone: Vec<Kid> = self.held.extract_if(.., is_over).map(|held| held.kid).collect();
        self.destroyed.extend(&gone);
        gone
    }
}

/// The name of a key in the domain's own type.
pub(super) fn kid_of(key: PublicKey) -> Kid {
    // Both types have one spelling, the same sixteen digits.
    key.kid().to_string().parse().unwrap_or(Kid([0; 8]))
}
