//! Reduction: of a range of rows those few that show its shape.
//!
//! The range is cut into runs of rows ([`Run`]), each with the smallest and largest value of every
//! column; runs are put into buckets of equal width along the axis; of each bucket the rows with
//! the smallest and largest values are answered. So the answer has rows as they stand in the
//! table, no spike is lost, and a bucket's border lies at most a run away from its place.
//!
//! Runs come from the rollups where those are made, else from the rows.

mod buckets;
mod runs;
mod stored;

use std::sync::Arc;

use rovi_common::http::Problem;

use self::{
    buckets::choose,
    runs::{Cut, Run},
};
use super::{
    pages::{self, Pages, ReadError},
    range::Axis,
    roller::Roller,
};
use crate::store::{
    rollups,
    rows::{self, Selected},
};

/// Runs to a bucket, at least: what decides how far a bucket's border may be off.
const RUNS_A_BUCKET: usize = 4;
/// Bytes of cells after which an answer ends: long texts may stand beside the numbers.
const ANSWER_BYTES: usize = 64 << 20;

/// Reduces all rows of `pages` to at most `points`.
///
/// # Errors
/// 400 where so few points cannot show so many columns; else as reading.
pub(crate) async fn rows(
    pages: Pages,
    roller: &Roller,
    axis: Axis,
    points: usize,
) -> Result<Selected, Problem> {
    let cut = Cut::new(&pages, axis)?;
    let columns = cut.columns();
    // The first and last row come beside two rows for each column and bucket.
    let buckets = points.saturating_sub(2) / (2 * columns);
    if buckets == 0 {
        let least = 2 * columns + 2;
        let detail = format!(
            "max_points={points} is too few for {columns} numeric columns: at least {least}; \
             ask for fewer with columns="
        );
        return Err(Problem::bad_request(detail).at("max_points"));
    }
    let (source, picks) = (Arc::clone(pages.source()), Arc::clone(pages.picks()));
    let (pool, gone) = (
        pages.pool().clone(),
        ReadError::Gone(source.battery.to_string()),
    );
    let runs = cut.runs(pages, roller, buckets * RUNS_A_BUCKET).await?;
    let seqs = choose(&runs, columns, buckets);
    let read = pool.run(move |connection| {
        let rows = pages::current(connection, &source, |connection| {
            Ok(rows::of_seqs(
                connection,
                &source,
                &seqs,
                picks.fetched(),
                ANSWER_BYTES,
            )?)
        })?;
        Ok(rows.map(|rows| pages::finish(&picks, rows)))
    });
    Ok(read.await.map_err(ReadError::from)?.ok_or(gone)?)
}

impl Run {
    /// Returns a run without rows.
    fn empty(columns: usize) -> Self {
        Self {
            first: i64::MAX,
            last: i64::MIN,
            at: None,
            extremes: vec![rollups::Extremes::default(); columns],
        }
    }
}
