//! Box keys of the requests in hand, so that opening one, its progress and its answer cost one multiplication.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::envelope::{Kid, PublicKeyBytes};
use crate::sealed::BoxKey;

/// The most that are kept; the one that was not used for the longest time makes room.
const MOST: usize = 256;
/// A key that was not used over so many looks is wiped.
const IDLE_LOOKS: u32 = 12;

struct Kept {
    kid: Kid,
    epk: PublicKeyBytes,
    key: Arc<BoxKey>,
    idle: u32,
}

/// The keys, the latest used last. Each wipes itself when it is dropped.
#[derive(Default)]
pub(super) struct Derived(VecDeque<Kept>);

impl Derived {
    pub(super) fn get(&mut self, kid: Kid, epk: &PublicKeyBytes) -> Option<Arc<BoxKey>> {
        let at = self.0.iter().rposition(|kept| kept.kid == kid && kept.epk == *epk)?;
        let kept = self.0.remove(at)?;
        let key = Arc::clone(&kept.key);
        self.0.push_back(Kept { idle: 0, ..kept });
        Some(key)
    }

    pub(super) fn keep(&mut self, kid: Kid, epk: PublicKeyBytes, key: Arc<BoxKey>) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Kept { kid, epk, key, idle: 0 });
    }

    /// Wipes what came from a key that is no more.
    pub(super) fn forget(&mut self, kid: Kid) {
        self.0.retain(|kept| kept.kid != kid);
    }

    /// Wipes what nobody uses.
    pub(super) fn age(&mut self) {
        self.0.iter_mut().for_each(|kept| kept.idle += 1);
        self.0.retain(|kept| kept.idle <= IDLE_LOOKS);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
