//! How the values of columns are distributed, in one pass and without knowing their range before.
//!
//! Bins are `width * 2^n` wide and double when a value falls beyond them: so every answer is exact,
//! whatever came first.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::pages::{Pages, ReadError};

/// Bins of one column in an answer; at least half of them are used.
pub(crate) const MOST_BINS: usize = 200;
/// Bins are not further than this from zero, so that their numbers are exact.
const FAR: f64 = 1e15;

/// One column's values, counted in bins of equal width.
#[derive(Debug, Clone, PartialEq, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct Histogram {
    /// Where the first bin begins; null where there is no value.
    from: Option<f64>,
    /// How wide a bin is: 0 where all values are the same.
    width: f64,
    /// Values in each bin: the lower end belongs to it, the upper one to the next.
    counts: Vec<u64>,
    /// Values that are null or no finite number.
    left_out: u64,
}

/// Counts in bins `[n * width, (n + 1) * width)`.
#[derive(Debug, Default)]
struct Bins {
    most: usize,
    /// 0 while all values are the same.
    width: f64,
    same: f64,
    counts: BTreeMap<i64, u64>,
    left_out: u64,
}

impl Bins {
    fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    fn take(&mut self, value: f64) {
        if !value.is_finite() {
            self.left_out += 1;
            return;
        }
        // -0 is 0.
        let value = value + 0.0;
        if self.counts.is_empty() {
            self.same = value;
        }
        if self.width == 0.0 {
            if value.to_bits() == self.same.to_bits() || self.counts.is_empty() {
                *self.counts.entry(0).or_default() += 1;
                return;
            }
            self.begin(value);
        }
        while (value / self.width).abs() >= FAR {
            self.double();
        }
        *self.counts.entry(self.place(value)).or_default() += 1;
        while !self.fits() {
            self.double();
        }
    }

    /// Chooses the first width, now that two values differ.
    #[expect(clippy::cast_precision_loss, reason = "there are few bins")]
    fn begin(&mut self, other: f64) {
        let apart = (other - self.same).abs().max(self.same.abs() / FAR);
        let apart = apart.min(f64::MAX / 4.0);
        self.width = (apart / self.most as f64).log2().floor().exp2();
        while (self.same / self.width).abs() >= FAR {
            self.width *= 2.0;
        }
        let equal = std::mem::take(&mut self.counts).into_values().sum();
        self.counts.insert(self.place(self.same), equal);
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "bins are so wide that the quotient is below `FAR`"
    )]
    fn place(&self, value: f64) -> i64 {
        (value / self.width).floor() as i64
    }

    fn fits(&self) -> bool {
        let (first, last) = self.ends();
        last.saturating_sub(first) < i64::try_from(self.most).unwrap_or(i64::MAX)
    }

    fn ends(&self) -> (i64, i64) {
        let first = self.counts.first_key_value().map_or(0, |(&place, _)| place);
        let last = self.counts.last_key_value().map_or(0, |(&place, _)| place);
        (first, last)
    }

    fn double(&mut self) {
        self.width *= 2.0;
        for (place, count) in std::mem::take(&mut self.counts) {
            *self.counts.entry(place.div_euclid(2)).or_default() += count;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "places are far below 2^53")]
    fn finish(self) -> Histogram {
        let (first, last) = self.ends();
        let from = match (self.counts.is_empty(), self.width > 0.0) {
            (true, _) => None,
            (false, true) => Some(first as f64 * self.width),
            (false, false) => Some(self.same),
        };
        let count = |place| self.counts.get(&place).copied().unwrap_or_default();
        Histogram {
            from,
            width: self.width,
            counts: match from {
                Some(_) => (first..=last).map(count).collect(),
                None => Vec::new(),
            },
            left_out: self.left_out,
        }
    }
}

/// Counts the values of all numeric columns of `pages` in at most `most` bins each.
///
/// # Errors
/// As reading.
pub(crate) async fn gather(
    mut pages: Pages,
    most: usize,
) -> Result<BTreeMap<String, Histogram>, ReadError> {
    let picks = pages.picks().numeric();
    let names: Vec<String> = picks.iter().map(|pick| pick.name.to_owned()).collect();
    let bounds = pages.bounds().await?;
    let mut pages = pages.within(bounds.0..=bounds.1, Arc::new(picks));
    let mut bins: Vec<Bins> = names.iter().map(|_| Bins::new(most)).collect();
    while let Some(page) = pages.next().await? {
        for (name, bins) in names.iter().zip(&mut bins) {
            let column = page.columns.get(name);
            for row in 0..page.seq.len() {
                let value = column.and_then(|column| column.number(row));
                bins.take(value.unwrap_or(f64::NAN));
            }
        }
    }
    let finished = bins.into_iter().map(Bins::finish);
    Ok(names.into_iter().zip(finished).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(most: usize, values: &[f64]) -> Histogram {
        let mut bins = Bins::new(most);
        for &value in values {
            bins.take(value);
        }
        bins.finish()
    }

    #[test]
    fn every_value_lies_in_the_bin_that_counts_it_whatever_came_first() {
        let mut values: Vec<f64> = (0..1000)
            .map(|n| f64::from(n * n % 977) / 100.0 - 3.0)
            .collect();
        let forwards = histogram(50, &values);
        values.reverse();
        assert_eq!(histogram(50, &values), forwards);
        let (from, width) = (forwards.from.unwrap(), forwards.width);
        assert!(forwards.counts.len() > 25 && forwards.counts.len() <= 50);
        for (place, &count) in (0_u32..).zip(&forwards.counts) {
            let low = from + width * f64::from(place);
            let inside = values.iter().filter(|v| (low..low + width).contains(*v));
            assert_eq!(inside.count() as u64, count, "bin {place}");
        }
    }

    #[test]
    fn equal_values_are_one_bin_without_width_and_what_is_no_number_is_left_out() {
        let found = histogram(20, &[3.5, 3.5, f64::NAN, f64::INFINITY]);
        assert_eq!((found.from, found.width), (Some(3.5), 0.0));
        assert_eq!((found.counts, found.left_out), (vec![2], 2));
        assert_eq!(histogram(20, &[]).from, None);
    }

    #[test]
    fn values_that_lie_close_together_far_from_zero_and_far_apart_end() {
        let close = histogram(20, &[1e9, 1e9 + 1e-7]);
        assert_eq!(close.counts.iter().sum::<u64>(), 2);
        let wide = histogram(20, &[1e-300, 0.0, -0.0, f64::MAX, f64::MIN]);
        assert!(wide.counts.len() <= 20 && wide.counts.iter().sum::<u64>() == 5);
    }
}
