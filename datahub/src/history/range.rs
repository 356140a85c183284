//! Ranges in questions: `a..b` with inclusive ends, either of which may be missing.

use std::fmt::Display;

use rovi_common::http::Problem;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Plain numbers from here on are microseconds since 1970, as answers have them; in seconds this
/// would be the year 33658.
const FIRST_MICROSECONDS: f64 = 1e12;

/// What rows can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// The number of the row.
    Seq,
    /// When the hub took it.
    Received,
    /// battdat's `time`, in seconds since 1970.
    Time,
    /// Seconds from the beginning of the test.
    TestTime,
}

impl Axis {
    const ALL: [Self; 4] = [Self::Seq, Self::Received, Self::Time, Self::TestTime];

    /// Returns the name in questions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Received => "received",
            Self::Time => "time",
            Self::TestTime => "test_time",
        }
    }

    /// Finds an axis by its name.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let found = Self::ALL.into_iter().find(|axis| axis.name() == text);
        found.ok_or_else(|| {
            let detail =
                format!("axis={text} is not known; there are seq, received, time and test_time");
            Problem::bad_request(detail).at("axis")
        })
    }
}

/// Reads `a..b` of `seq`.
pub(crate) fn seq(field: &str, text: &str) -> Result<(i64, i64), Problem> {
    let wants = "whole numbers, as in 1..100";
    let (from, to) = ends(field, text, wants)?;
    let end = |text: Option<&str>, open: i64| match text {
        None => Ok(open),
        Some(number) => number
            .parse()
            .map_err(|_no_number| wrong(field, text_of(number), wants)),
    };
    ordered(field, text, end(from, 1)?, end(to, i64::MAX)?)
}

/// Reads `a..b` of plain numbers, as of `test_time` in seconds.
pub(crate) fn numbers(field: &str, text: &str) -> Result<(f64, f64), Problem> {
    let wants = "numbers, as in 0..3600";
    let (from, to) = ends(field, text, wants)?;
    let end = |text: Option<&str>, open: f64| match text {
        None => Ok(open),
        Some(text) => number(text).ok_or_else(|| wrong(field, text_of(text), wants)),
    };
    ordered(
        field,
        text,
        end(from, f64::NEG_INFINITY)?,
        end(to, f64::INFINITY)?,
    )
}

const MOMENTS: &str = "moments: seconds since 1970, RFC 3339 as 2026-01-31T12:00:00Z, or from now \
                       as -5h (ms, s, m, h, d) and now";

/// Reads `a..b` of moments as seconds since 1970.
pub(crate) fn seconds(field: &str, text: &str, now_us: i64) -> Result<(f64, f64), Problem> {
    let (from, to) = ends(field, text, MOMENTS)?;
    let end = |text: Option<&str>, open: f64| match text {
        None => Ok(open),
        Some(text) => match number(text) {
            // As it was given: a float of the column may have no exact microsecond.
            Some(seconds) if seconds.abs() < FIRST_MICROSECONDS => Ok(seconds),
            _ => moment(field, text, now_us).map(as_seconds),
        },
    };
    ordered(
        field,
        text,
        end(from, f64::NEG_INFINITY)?,
        end(to, f64::INFINITY)?,
    )
}

/// Reads `a..b` of moments as microseconds since 1970.
pub(crate) fn microseconds(field: &str, text: &str, now_us: i64) -> Result<(i64, i64), Problem> {
    let (from, to) = ends(field, text, MOMENTS)?;
    let end = |text: Option<&str>, open: i64| match text {
        None => Ok(open),
        Some(text) => moment(field, text, now_us),
    };
    ordered(field, text, end(from, i64::MIN)?, end(to, i64::MAX)?)
}

/// Reads one moment.
fn moment(field: &str, text: &str, now_us: i64) -> Result<i64, Problem> {
    if text == "now" {
        return Ok(now_us);
    }
    if let Some(us) = duration_us(text) {
        return Ok(now_us.saturating_add(us));
    }
    if let Some(number) = number(text) {
        let is_us = number.abs() >= FIRST_MICROSECONDS;
        return Ok(text
            .parse()
            .ok()
            .filter(|_: &i64| is_us)
            .unwrap_or_else(|| whole(number * if is_us { 1.0 } else { 1e6 })));
    }
    // In a URL, `+` of an offset arrives as a space unless it is written as %2B.
    let moment = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339);
    let moment = moment.map_err(|_no_moment| wrong(field, text_of(text), MOMENTS))?;
    i64::try_from(moment.unix_timestamp_nanos() / 1000)
        .map_err(|_no_moment| wrong(field, text_of(text), MOMENTS))
}

/// Reads a number with a unit of time, such as `-5h`, as microseconds.
pub(crate) fn duration_us(text: &str) -> Option<i64> {
    let units = [
        ("ms", 1e3),
        ("s", 1e6),
        ("m", 6e7),
        ("h", 3.6e9),
        ("d", 8.64e10),
    ];
    let of =
        |(unit, us): (&str, f64)| number(text.strip_suffix(unit)?).map(|count| whole(count * us));
    units.into_iter().find_map(of)
}

fn ends<'a>(
    field: &str,
    text: &'a str,
    wants: &str,
) -> Result<(Option<&'a str>, Option<&'a str>), Problem> {
    let (from, to) = text
        .split_once("..")
        .ok_or_else(|| wrong(field, text_of(text), wants))?;
    let given = |end: &'a str| Some(end.trim()).filter(|end| !end.is_empty());
    Ok((given(from), given(to)))
}

fn ordered<T: PartialOrd>(field: &str, text: &str, from: T, to: T) -> Result<(T, T), Problem> {
    if from <= to {
        return Ok((from, to));
    }
    let detail = format!("{field}={text} ends before it begins");
    Err(Problem::bad_request(detail).at(field))
}

fn wrong(field: &str, found: impl Display, wants: &str) -> Problem {
    Problem::bad_request(format!(
        "{field} must be a..b, a.. or ..b with {wants}; it has {found}"
    ))
    .at(field)
}

fn text_of(text: &str) -> String {
    let mut shown = text.to_owned();
    shown.truncate(shown.floor_char_boundary(60));
    format!("`{shown}`")
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is what is wanted"
)]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "moments are far below 2^53 microseconds"
)]
pub(crate) fn as_seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    #[test]
    fn ranges_may_be_open_on_either_side() {
        assert_eq!(seq("seq", "1..5").unwrap(), (1, 5));
        assert_eq!(seq("seq", "..5").unwrap(), (1, 5));
        assert_eq!(seq("seq", "2..").unwrap(), (2, i64::MAX));
        assert_eq!(numbers("t", "-0.5..").unwrap(), (-0.5, f64::INFINITY));
        for text in ["5", "a..b", "1...2"] {
            assert!(seq("seq", text).is_err(), "{text}");
        }
        assert!(numbers("t", "nan..1").is_err());
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused_in_these_words() {
        for problem in [
            seq("seq", "5..2").unwrap_err(),
            numbers("seq", "5..2").unwrap_err(),
            seconds("seq", "5..2", NOW).unwrap_err(),
        ] {
            assert_eq!(problem.detail, "seq=5..2 ends before it begins");
        }
    }

    #[test]
    fn moments_are_numbers_dates_or_relative() {
        let us = |text| microseconds("received", text, NOW).unwrap();
        let hour = 3_600_000_000;
        assert_eq!(us("-5h..-1h"), (NOW - 5 * hour, NOW - hour));
        assert_eq!(us("-90m..now"), (NOW - hour * 3 / 2, NOW));
        assert_eq!(us("-1d.."), (NOW - 24 * hour, i64::MAX));
        assert_eq!(us("1700000000.5..").0, 1_700_000_000_500_000);
        assert_eq!(us("1700000000500001..").0, 1_700_000_000_500_001);
        assert_eq!(us("1970-01-01T00:00:01Z..").0, 1_000_000);
        assert_eq!(us("1970-01-01T01:00:00.25 01:00..").0, 250_000);
        let exact = 1_700_000_000.123_456_7;
        let found = seconds("time", "1700000000.1234567..", NOW).unwrap().0;
        assert_eq!(found.to_bits(), f64::to_bits(exact));
        assert_eq!(
            seconds("time", "-5s..", NOW).unwrap().0.to_bits(),
            1_799_999_995_f64.to_bits()
        );
        let problem = microseconds("received", "yesterday..", NOW).unwrap_err();
        assert!(problem.detail.contains("RFC 3339") && problem.detail.contains("`yesterday`"));
    }
}
