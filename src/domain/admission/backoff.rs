//! Waits that grow, and are never the same for two workers.

use std::time::Duration;

/// How long to wait after failures in a row: twice as long each time, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
    /// Each wait is lengthened or shortened by up to this fraction of itself (0.25 = ±25 %).
    pub jitter: f64,
}

impl Backoff {
    /// The wait after the n-th failure in a row (n from 1).
    pub fn wait(&self, failures: u32, dice: &mut Dice) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let plain = self.first.saturating_mul(1 << doublings).min(self.longest);
        plain.mul_f64((1.0 + self.jitter * (2.0 * dice.roll() - 1.0)).max(0.0))
    }
}

/// Fractions for jitter, from a splitmix step: it needs no better, and tests need it repeatable.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A fraction in 0..1.
    pub fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let top = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_by_the_jitter() {
        let backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30), jitter: 0.25 };
        let mut dice = Dice::new(7);
        for (failures, plain) in [(1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (u32::MAX, 30.0)] {
            let wait = backoff.wait(failures, &mut dice).as_secs_f64();
            assert!((plain * 0.75..=plain * 1.25).contains(&wait), "{failures}: {wait}");
        }
        let waits: std::collections::BTreeSet<Duration> = (0..20).map(|_| backoff.wait(3, &mut dice)).collect();
        assert!(waits.len() > 15, "two workers do not knock together");
    }
}
