//! Spans of time as people write them: `30 s`, `5 min`, `7 d`, `500 ms`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Units from long to short, with their length in milliseconds.
const UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a span of whole milliseconds; a day has 24 hours. None when it is not one, negative, or has months or years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    let duration = Duration::try_from(signed).ok()?;
    duration.subsec_nanos().is_multiple_of(1_000_000).then_some(duration)
}

/// Writes a span in the longest unit that divides it, so that [`parse`] reads the same back.
pub(super) fn render(span: Duration) -> String {
    let millis = span.as_millis();
    if millis == 0 {
        return "0 s".to_owned();
    }
    let (unit, length) = UNITS
        .into_iter()
        .find(|(_, length)| millis.is_multiple_of(*length))
        .unwrap_or(("ms", 1));
    format!("{} {unit}", millis / length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let read = |text| parse(text).map(|span| span.as_millis());
        assert_eq!(read("30 s"), Some(30_000));
        assert_eq!(read("5 min"), Some(300_000));
        assert_eq!(read("7 d"), Some(7 * 86_400_000));
        assert_eq!(read("500ms"), Some(500));
        assert_eq!(read("1h 30m"), Some(5_400_000));
        assert_eq!(read("PT10S"), Some(10_000));
        for bad in ["", "10", "-1 s", "1 month", "2 years", "1 ns", "soon", "10 sek"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_span_is_read_back_as_it_was_written(millis in 0..100_000_000_000u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse(&render(span)), Some(span));
        }
    }
}
