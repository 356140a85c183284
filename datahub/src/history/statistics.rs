//! Count, smallest, largest, mean, spread and last value of columns in intervals of an axis.
//!
//! Computed over the pages of a selection, so that signals count as columns do and no query lasts
//! long; the number of intervals bounds the memory.

use std::{collections::BTreeMap, sync::Arc};

use rovi_common::{http::Problem, rows::Column};
use serde::Serialize;

use super::{
    pages::Pages,
    range::{self, Axis},
};
use crate::store::{rollups, rows::Selected};

/// Most intervals of one answer, and most figures: an interval has one set for each column.
const MOST_INTERVALS: usize = 10_000;
const MOST_SETS: usize = 100_000;

/// How wide an interval is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Every {
    /// So many rows.
    Rows(i64),
    /// So many seconds.
    Seconds(f64),
}

impl Every {
    /// Reads `1h`, `1000s`, `1000rows`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            let detail = format!(
                "every={text} is not an interval; take a number with ms, s, m, h, d or rows, as 1h or 1000rows"
            );
            Problem::bad_request(detail).at("every")
        };
        if let Some(rows) = text.strip_suffix("rows") {
            let rows = rows.parse().ok().filter(|rows| *rows > 0);
            return rows.map(Self::Rows).ok_or_else(wrong);
        }
        let us = range::duration_us(text).filter(|us| *us > 0);
        us.map(|us| Self::Seconds(range::as_seconds(us)))
            .ok_or_else(wrong)
    }
}

/// What one column has in one interval; without values all but the count is null.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct Figures {
    /// Values that are finite numbers.
    count: i64,
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    /// Standard deviation of the sample; null below two values.
    std: Option<f64>,
    /// The value of the newest row that has one.
    last: Option<f64>,
}

/// Figures while they are gathered; `squares` is the sum of squared deviations from the mean.
#[derive(Debug, Clone, Copy, Default)]
struct Gathered {
    count: i64,
    min: f64,
    max: f64,
    mean: f64,
    squares: f64,
    last: f64,
}

impl Gathered {
    /// Takes a value by Welford's update, which does not cancel digits.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn take(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
        self.last = value;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn figures(&self) -> Figures {
        if self.count == 0 {
            return Figures::default();
        }
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        Figures {
            count: self.count,
            min: finite(self.min),
            max: finite(self.max),
            mean: finite(self.mean),
            std: finite((self.squares / (self.count - 1) as f64).sqrt()),
            last: finite(self.last),
        }
    }
}

/// Statistics of a selection: one list for each figure of each column, as long as `from`.
#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct Statistics {
    /// The axis that the intervals are of.
    axis: &'static str,
    /// Width of an interval: rows, or seconds.
    every: f64,
    /// Where each interval begins: `seq`, or seconds (of times: since 1970).
    from: Vec<f64>,
    /// Rows in each interval.
    rows: Vec<i64>,
    /// Figures of each column in each interval.
    columns: BTreeMap<String, Vec<Figures>>,
}

struct Interval {
    rows: i64,
    columns: Vec<Gathered>,
}

/// Gathers statistics of all numeric columns of `pages`; rows without a value on the axis are left
/// out, as are intervals without rows.
///
/// # Errors
/// 400 where there would be too many intervals; else as reading.
pub(crate) async fn gather(
    mut pages: Pages,
    axis: Axis,
    every: Every,
) -> Result<Statistics, Problem> {
    let mut picks = pages.picks().numeric();
    let names: Vec<String> = picks.iter().map(|pick| pick.name.to_owned()).collect();
    if let Some(column) = pages.source().column(axis.name()) {
        picks.add_column(column);
    }
    let bounds = pages.bounds().await?;
    let mut pages = pages.within(bounds.0..=bounds.1, Arc::new(picks));
    let mut intervals: BTreeMap<i64, Interval> = BTreeMap::new();
    let most = MOST_INTERVALS.min(MOST_SETS / names.len().max(1));
    while let Some(page) = pages.next().await? {
        take(&page, &names, (axis, every), &mut intervals);
        if intervals.len() > most {
            let detail = format!(
                "every= makes more than {most} intervals of {} columns; take wider ones, fewer columns \
                 or a shorter range",
                names.len()
            );
            return Err(Problem::bad_request(detail).at("every"));
        }
    }
    Ok(statistics(&names, (axis, every), &intervals))
}

fn take(
    page: &Selected,
    names: &[String],
    (axis, every): (Axis, Every),
    intervals: &mut BTreeMap<i64, Interval>,
) {
    let columns: Vec<Option<&Column>> = names.iter().map(|name| page.columns.get(name)).collect();
    let places = page.columns.get(axis.name());
    for (row, &seq) in page.seq.iter().enumerate() {
        let at = match axis {
            Axis::Seq => Some(number_of(seq - 1)),
            Axis::Received => page
                .received
                .get(row)
                .copied()
                .flatten()
                .map(range::as_seconds),
            Axis::Time | Axis::TestTime => places.and_then(|places| rollups::number(places, row)),
        };
        let Some(at) = at.filter(|at| at.is_finite()) else {
            continue;
        };
        let interval = intervals
            .entry(whole(at / every.width()))
            .or_insert_with(|| Interval {
                rows: 0,
                columns: vec![Gathered::default(); names.len()],
            });
        interval.rows += 1;
        for (gathered, column) in interval.columns.iter_mut().zip(&columns) {
            if let Some(value) = column.and_then(|column| column.number(row)) {
                gathered.take(value);
            }
        }
    }
}

fn statistics(
    names: &[String],
    (axis, every): (Axis, Every),
    intervals: &BTreeMap<i64, Interval>,
) -> Statistics {
    let first = if axis == Axis::Seq { 1.0 } else { 0.0 };
    let column = |(place, name): (usize, &String)| {
        let of = |interval: &Interval| {
            interval
                .columns
                .get(place)
                .copied()
                .unwrap_or_default()
                .figures()
        };
        (name.clone(), intervals.values().map(of).collect())
    };
    Statistics {
        axis: axis.name(),
        every: every.width(),
        from: intervals
            .keys()
            .map(|&place| number_of(place).mul_add(every.width(), first))
            .collect(),
        rows: intervals.values().map(|interval| interval.rows).collect(),
        columns: names.iter().enumerate().map(column).collect(),
    }
}

impl Every {
    fn width(self) -> f64 {
        match self {
            Self::Rows(rows) => number_of(rows),
            Self::Seconds(seconds) => seconds,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rows and intervals are far below 2^53"
)]
fn number_of(count: i64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is what is wanted"
)]
fn whole(number: f64) -> i64 {
    number.floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_with_their_units() {
        assert_eq!(Every::parse("1h").unwrap(), Every::Seconds(3600.0));
        assert_eq!(Every::parse("1.5s").unwrap(), Every::Seconds(1.5));
        assert_eq!(Every::parse("1000rows").unwrap(), Every::Rows(1000));
        for text in ["", "1", "0s", "-1h", "0rows", "h", "nans", "infs"] {
            assert!(Every::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_spread_of_large_values_keeps_its_digits_and_infinity_spoils_none() {
        let mut gathered = Gathered::default();
        for value in [1e9 + 4.0, 1e9 + 7.0, f64::NAN, 1e9 + 13.0, 1e9 + 16.0] {
            gathered.take(value);
        }
        gathered.take(f64::INFINITY);
        let figures = gathered.figures();
        assert_eq!((figures.count, figures.last), (4, Some(1e9 + 16.0)));
        assert_eq!(
            (figures.mean, figures.std),
            (Some(1e9 + 10.0), Some(30_f64.sqrt()))
        );
        let mut one = Gathered::default();
        one.take(2.0);
        assert_eq!((one.figures().std, one.figures().min), (None, Some(2.0)));
    }
}
