//! Times and durations as people write them.
//!
//! Inside the program every time is whole milliseconds since 1970 UTC and every duration whole
//! milliseconds, both `i64` and never negative.

use jiff::Timestamp;
use thiserror::Error;

/// The last time that RFC 3339 can write, 9999-12-31T23:59:59.999Z. A later event time is bad
/// input.
pub const MAX_EVENT_TIME_MS: i64 = 253_402_300_799_999;

/// A text that is no duration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a duration; write a whole number and a unit: 250ms, 90s, 10m, 6h or 2d")]
pub struct DurationError(pub String);

/// A text that is no time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a time; write RFC 3339 (2016-11-21T00:30:00Z) or whole milliseconds since 1970 \
     UTC (1479688200000)"
)]
pub struct TimeError(pub String);

const UNITS: [(&str, i64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads `250ms`, `90s`, `10m`, `6h` or `2d` as milliseconds.
///
/// ```
/// assert_eq!(marquee_model::parse_duration_ms("90s"), Ok(90_000));
/// assert!(marquee_model::parse_duration_ms("90").is_err());
/// ```
pub fn parse_duration_ms(text: &str) -> Result<i64, DurationError> {
    let error = || DurationError(text.to_owned());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    let number: i64 = number.parse().map_err(|_| error())?;
    number.checked_mul(*factor).filter(|ms| *ms <= MAX_EVENT_TIME_MS).ok_or_else(error)
}

/// Writes milliseconds in the largest unit that keeps them whole.
pub fn format_duration_ms(duration_ms: i64) -> String {
    let (name, factor) = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| duration_ms != 0 && duration_ms % factor == 0)
        .unwrap_or(&UNITS[1]);
    format!("{}{name}", duration_ms / factor)
}

/// Reads RFC 3339 or whole milliseconds since 1970 UTC. A fraction of a millisecond is cut off.
pub fn parse_time_ms(text: &str) -> Result<i64, TimeError> {
    let error = || TimeError(text.to_owned());
    let ms = match text.parse::<i64>() {
        Ok(ms) => ms,
        Err(_) => text.parse::<Timestamp>().map_err(|_| error())?.as_millisecond(),
    };
    (0..=MAX_EVENT_TIME_MS).contains(&ms).then_some(ms).ok_or_else(error)
}

/// Writes a time as RFC 3339 in UTC, with milliseconds only where there are any.
pub fn format_time_ms(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{time_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration_ms("2d"), Ok(172_800_000));
        assert_eq!(parse_duration_ms("0s"), Ok(0));
        for bad in ["", "m", "-1m", "1.5h", "1 m", "1w", "99999999999999999999d", "9999999999d"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        assert_eq!(format_duration_ms(5_400_000), "90m");
        assert_eq!(format_duration_ms(0), "0s");
    }

    #[test]
    fn times() {
        assert_eq!(parse_time_ms("2016-11-21T00:30:00Z"), Ok(1_479_688_200_000));
        assert_eq!(parse_time_ms("2016-11-21T01:30:00+01:00"), Ok(1_479_688_200_000));
        assert_eq!(parse_time_ms("1479688200000"), Ok(1_479_688_200_000));
        for bad in ["", "now", "-1", "2016-11-21", "99999999999999999"] {
            assert!(parse_time_ms(bad).is_err(), "{bad}");
        }
        assert_eq!(format_time_ms(1_479_688_200_000), "2016-11-21T00:30:00Z");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(ms in 0..=MAX_EVENT_TIME_MS) {
            prop_assert_eq!(parse_time_ms(&format_time_ms(ms)), Ok(ms));
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
        }
    }
}
