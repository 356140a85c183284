//! Runs to buckets, and buckets to the rows that show them.

use std::collections::BTreeSet;

use super::runs::Run;
use crate::store::rollups::Extremes;

/// Chooses the `seq` of at most `2 * columns * buckets + 2` rows: the first and the last, and those
/// with the smallest and largest value of each column in each bucket.
pub(super) fn choose(runs: &[Run], columns: usize, buckets: usize) -> Vec<i64> {
    let mut merged = vec![vec![Extremes::default(); columns]; buckets];
    for (run, place) in runs.iter().zip(places(runs, buckets)) {
        let Some(bucket) = merged.get_mut(place) else {
            continue;
        };
        for (known, extremes) in bucket.iter_mut().zip(&run.extremes) {
            known.merge(extremes);
        }
    }
    let mut seqs: BTreeSet<i64> = merged
        .iter()
        .flatten()
        .flat_map(|extremes| [extremes.least, extremes.greatest])
        .flatten()
        .map(|(_, seq)| seq)
        .collect();
    seqs.extend(runs.first().map(|run| run.first));
    seqs.extend(runs.last().map(|run| run.last));
    seqs.into_iter().collect()
}

/// Tells the bucket of each run. One without a place on the axis goes with the run before it.
fn places(runs: &[Run], buckets: usize) -> impl Iterator<Item = usize> {
    let at = || runs.iter().filter_map(|run| run.at);
    let least = at().fold(f64::INFINITY, f64::min);
    let width = at().fold(f64::NEG_INFINITY, f64::max) - least;
    let mut place = 0;
    runs.iter().map(move |run| {
        if let Some(at) = run.at {
            place = part((at - least) / width, buckets);
        }
        place
    })
}

/// Returns which of `buckets` equal parts of 0 … 1 a fraction lies in; the last has 1 itself.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and buckets are far below 2^52"
)]
fn part(fraction: f64, buckets: usize) -> usize {
    ((fraction * buckets as f64) as usize).min(buckets.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Place on the axis, and two columns.
    type Row = (Option<f64>, Option<f64>, f64);

    /// One run for each row.
    fn runs(rows: &[Row]) -> Vec<Run> {
        let run = |(seq, &(at, a, b)): (i64, &Row)| {
            let mut run = Run {
                first: seq,
                last: seq,
                at,
                extremes: vec![Extremes::default(); 2],
            };
            if let Some(a) = a {
                run.extremes[0].take(a, seq);
            }
            run.extremes[1].take(b, seq);
            run
        };
        (1..).zip(rows).map(run).collect()
    }

    proptest! {
        #[test]
        fn the_extremes_of_every_column_stay_and_the_points_are_bounded(
            rows in prop::collection::vec(
                (prop::option::of(-1e6..1e6), prop::option::of(-1e9..1e9), prop::num::f64::ANY), 1..400),
            points in 6_usize..80,
        ) {
            let buckets = (points - 2) / 4;
            let seqs = choose(&runs(&rows), 2, buckets);
            prop_assert!(seqs.len() <= points);
            let newest = i64::try_from(rows.len()).unwrap();
            prop_assert!(seqs.is_sorted() && seqs.iter().all(|&seq| 1 <= seq && seq <= newest));
            prop_assert!(seqs.contains(&1) && seqs.contains(&newest));
            let kept = |value: fn(&Row) -> Option<f64>| {
                let all = rows.iter().filter_map(value).filter(|value| value.is_finite());
                let few = seqs.iter().filter_map(|&seq| value(&rows[usize::try_from(seq).unwrap() - 1]));
                let few = few.filter(|value| value.is_finite());
                let ends = |values: &mut dyn Iterator<Item = f64>| values.fold(
                    (f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
                (ends(&mut { all }), ends(&mut { few }))
            };
            let (all, few) = kept(|row| row.1);
            prop_assert_eq!(all, few);
            let (all, few) = kept(|row| Some(row.2));
            prop_assert_eq!(all, few);
        }
    }

    #[test]
    fn buckets_are_of_equal_width_along_the_axis() {
        let rows: Vec<_> = (0..100_u32)
            .map(|n| (Some(f64::from(n)), None, f64::from(n)))
            .collect();
        assert_eq!(choose(&runs(&rows), 2, 4), [1, 25, 26, 50, 51, 75, 76, 100]);
        let same: Vec<_> = (0..9).map(|n| (Some(5.0), None, f64::from(n))).collect();
        assert_eq!(
            choose(&runs(&same), 2, 4),
            [1, 9],
            "an axis that stands still is one bucket"
        );
        let none: Vec<_> = (0..9).map(|n| (None, None, f64::from(n))).collect();
        assert_eq!(choose(&runs(&none), 2, 4), [1, 9]);
    }
}
