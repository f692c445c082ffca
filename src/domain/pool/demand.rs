//! How often something is called: an exponentially weighted rate, and the stock that follows from it.
//!
//! Each call adds `1/τ`; between calls the rate falls by `e^(-Δt/τ)`. A steady stream of r calls a second comes to rest
//! at r. The stock is that of a base-stock policy (inventory theory): what is asked for while a replacement is
//! made, `rate × lead time`, and a margin of 1.65 standard deviations of a Poisson stream, so that it suffices 95 times
//! in a hundred.

use std::time::Duration;

use crate::domain::time::Moment;

/// The memory of the rate: 60 s.
const TAU: f64 = 60.0;
const MARGIN: f64 = 1.65;
/// Two calls within a minute and a half: one that was called once may never be called again.
const HOT: f64 = 1.2 / TAU;
/// What was hot stays so for some three minutes after its last call.
const WARM: f64 = 0.05 / TAU;

/// The rate of one kind of calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    rate: f64,
    at: Moment,
    hot: bool,
}

impl Demand {
    /// A call came.
    pub(super) fn note(&mut self, now: Moment) {
        self.rate = self.rate(now) + 1.0 / TAU;
        self.at = now;
        self.hot |= self.rate >= HOT;
    }

    /// Calls a second, as of `now`.
    pub(super) fn rate(&self, now: Moment) -> f64 {
        self.rate * (-now.since(self.at).as_secs_f64() / TAU).exp()
    }

    /// False once it has cooled down, until it is called often enough again.
    pub(super) fn is_hot(&mut self, now: Moment) -> bool {
        self.hot &= self.rate(now) >= WARM;
        self.hot
    }

    /// How many should stand ready where making one takes `lead`; at least one while it is hot.
    pub(super) fn stock(&mut self, lead: Duration, now: Moment) -> usize {
        if !self.is_hot(now) {
            return 0;
        }
        let asked = self.rate(now) * lead.as_secs_f64();
        whole((asked + MARGIN * asked.sqrt()).ceil()).max(1)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count; the cast saturates")]
fn whole(count: f64) -> usize {
    count as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(calls: u64, every: Duration) -> (Demand, Moment) {
        let mut demand = Demand::default();
        let mut now = Moment(0);
        for _ in 0..calls {
            now = now.after(every);
            demand.note(now);
        }
        (demand, now)
    }

    #[test]
    fn a_steady_stream_comes_to_rest_at_its_rate() {
        let (demand, now) = after(2000, Duration::from_millis(200));
        assert!((demand.rate(now) - 5.0).abs() < 0.1, "{}", demand.rate(now));
    }

    #[test]
    fn one_call_is_not_hot_two_are_and_they_cool_down() {
        let second = Duration::from_secs(1);
        let (mut once, now) = after(1, second);
        assert_eq!(once.stock(second, now), 0);
        let (mut twice, now) = after(2, second);
        assert_eq!(twice.stock(second, now), 1);
        assert_eq!(twice.stock(second, now.after(Duration::from_secs(180))), 1);
        assert_eq!(twice.stock(second, now.after(Duration::from_secs(300))), 0);
        twice.note(now.after(Duration::from_secs(301)));
        assert_eq!(twice.stock(second, now.after(Duration::from_secs(301))), 0, "it begins anew");
    }

    proptest! {
        #[test]
        fn the_stock_grows_with_rate_and_lead_and_never_without_bound(calls in 2..500_u64, every in 10..2000_u64, lead in 1..5000_u64) {
            let (mut demand, now) = after(calls, Duration::from_millis(every));
            let stock = demand.stock(Duration::from_millis(lead), now);
            prop_assert!(stock <= demand.stock(Duration::from_millis(lead * 2), now).max(1));
            let asked = demand.rate(now) * lead as f64 / 1000.0;
            prop_assert!(stock as f64 <= asked + MARGIN * asked.sqrt() + 1.0);
            let mut later = demand;
            prop_assert!(later.stock(Duration::from_millis(lead), now.after(Duration::from_secs(30))) <= stock);
        }
    }
}
