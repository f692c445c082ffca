//! Rates, held by a token bucket: so many at once, refilled evenly.
//!
//! Whole numbers throughout, so that nothing is lost to rounding: a permit is a million parts, and a rate of one
//! thousandth a second refills one part in a millisecond.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::time::{Moment, whole_millis};

/// Parts of one permit.
const PERMIT: u64 = 1_000_000;
/// Thousandths of a permit a second.
const SLOWEST: u64 = 1;
const FASTEST: u64 = 10_000_000;
/// The most permits that may be saved up.
const LARGEST_BURST: u64 = 1_000_000;

/// How often something may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RateBody", into = "RateBody")]
pub struct Rate {
    thousandths: u64,
    burst: u64,
}

/// A rate that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is perSecond, 0.001 to 10000, and burst, 1 to 1000000")]
pub struct InvalidRate;

impl Rate {
    /// `per_second` permits a second; `burst` at once, or one second's when it is none.
    ///
    /// # Errors
    /// When one of them is out of its range.
    pub fn new(per_second: f64, burst: Option<u64>) -> Result<Self, InvalidRate> {
        let thousandths = (per_second * 1000.0).round();
        if !(1.0..=10_000_000.0).contains(&thousandths) {
            return Err(InvalidRate);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was looked at")]
        let thousandths = (thousandths as u64).clamp(SLOWEST, FASTEST);
        let burst = burst.unwrap_or_else(|| thousandths.div_ceil(1000));
        if burst == 0 || burst > LARGEST_BURST {
            return Err(InvalidRate);
        }
        Ok(Self { thousandths, burst })
    }

    /// Permits a second.
    #[expect(clippy::cast_precision_loss, reason = "at most ten million")]
    pub fn per_second(self) -> f64 {
        self.thousandths as f64 / 1000.0
    }

    /// Permits at once.
    pub fn burst(self) -> u64 {
        self.burst
    }

    fn full(self) -> u64 {
        self.burst * PERMIT
    }
}

/// A rate as it is written.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateBody {
    per_second: f64,
    #[serde(default)]
    burst: Option<u64>,
}

impl TryFrom<RateBody> for Rate {
    type Error = InvalidRate;

    fn try_from(body: RateBody) -> Result<Self, InvalidRate> {
        Self::new(body.per_second, body.burst)
    }
}

impl From<Rate> for RateBody {
    fn from(rate: Rate) -> Self {
        Self { per_second: rate.per_second(), burst: Some(rate.burst) }
    }
}

/// What is left of a rate. A new one is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    parts: u64,
    at: Moment,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Moment) -> Self {
        Self { parts: rate.full(), at: now }
    }

    /// Takes one permit.
    ///
    /// # Errors
    /// With none left: how long until there is one. Nothing is taken then.
    pub fn take(&mut self, rate: Rate, now: Moment) -> Result<(), Duration> {
        self.refill(rate, now);
        match self.parts.checked_sub(PERMIT) {
            Some(left) => {
                self.parts = left;
                Ok(())
            }
            None => Err(Duration::from_millis((PERMIT - self.parts).div_ceil(rate.thousandths))),
        }
    }

    /// Whether a bucket that is made anew would be the same.
    pub fn is_full(&mut self, rate: Rate, now: Moment) -> bool {
        self.refill(rate, now);
        self.parts == rate.full()
    }

    /// A rate that was changed holds from now on, for what was saved up as well.
    fn refill(&mut self, rate: Rate, now: Moment) {
        let millis = whole_millis(now.since(self.at));
        self.parts = self.parts.saturating_add(millis.saturating_mul(rate.thousandths)).min(rate.full());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_rate() -> impl Strategy<Value = Rate> {
        (1..20_000u64, 1..50u64).prop_map(|(thousandths, burst)| Rate { thousandths, burst })
    }

    #[test]
    fn a_rate_is_read_as_it_is_written() {
        let rate: Rate = serde_json::from_str(r#"{"perSecond":0.5,"burst":4}"#).unwrap();
        assert_eq!(rate, Rate { thousandths: 500, burst: 4 });
        assert_eq!(serde_json::to_string(&rate).unwrap(), r#"{"perSecond":0.5,"burst":4}"#);
        let alone: Rate = serde_json::from_str(r#"{"perSecond":2.5}"#).unwrap();
        assert_eq!(alone.burst(), 3, "a second's worth");
        for bad in [
            "{}",
            r#"{"perSecond":0}"#,
            r#"{"perSecond":-1}"#,
            r#"{"perSecond":1e9}"#,
            r#"{"perSecond":1,"burst":0}"#,
            r#"{"perSecond":1,"burst":-1}"#,
            r#"{"perSecond":1,"more":1}"#,
        ] {
            assert!(serde_json::from_str::<Rate>(bad).is_err(), "{bad}");
        }
        assert_eq!(Rate::new(f64::NAN, None), Err(InvalidRate));
    }

    proptest! {
        /// In no span of time more than the burst and what the rate refills; and whoever waits as long as he is told is
        /// served.
        #[test]
        fn no_span_sees_more_than_burst_and_refill(rate in any_rate(), waits in prop::collection::vec(0..3_000u64, 1..200)) {
            let mut bucket = Bucket::new(rate, Moment(0));
            let (mut now, mut taken) = (0, Vec::new());
            for wait in waits {
                now += wait;
                match bucket.take(rate, Moment(now)) {
                    Ok(()) => taken.push(now),
                    Err(after) => {
                        prop_assert!(after > Duration::ZERO);
                        let mut later = bucket;
                        prop_assert_eq!(later.take(rate, Moment(now).after(after)), Ok(()));
                        let mut sooner = bucket;
                        let almost = Moment(now + whole_millis(after) - 1);
                        prop_assert!(sooner.take(rate, almost).is_err(), "told to wait longer than it takes");
                    }
                }
            }
            for (n, from) in taken.iter().enumerate() {
                for (more, to) in taken[n..].iter().enumerate() {
                    let most = rate.full() + (to - from) * rate.thousandths;
                    prop_assert!((more as u64 + 1) * PERMIT <= most, "{more} from {from} to {to}");
                }
            }
        }

        #[test]
        fn a_clock_that_stands_or_goes_back_gives_nothing(rate in any_rate(), back in 0..10_000u64) {
            let mut bucket = Bucket::new(rate, Moment(20_000));
            for _ in 0..rate.burst() {
                prop_assert!(bucket.take(rate, Moment(20_000 - back)).is_ok());
            }
            prop_assert!(bucket.take(rate, Moment(20_000 - back)).is_err());
            prop_assert!(!bucket.is_full(rate, Moment(20_000)));
            prop_assert!(bucket.is_full(rate, Moment(u64::MAX)));
        }
    }
}
