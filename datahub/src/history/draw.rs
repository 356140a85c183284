//! Reads what a picture shows, reduced to what its width can show.

use std::sync::Arc;

use rovi_common::http::Problem;
use rovi_pictures::{Chart, Look};

use super::{pages::Pages, picks::Picks, picture, range::Axis, reduce};
use crate::{
    hub::Hub,
    store::{
        rows::{Selected, Selection},
        source::Source,
        tables::ColumnType,
    },
};

/// Points read for each pixel of width and column: least and greatest.
const POINTS_A_PIXEL: usize = 2;
const MOST_POINTS: usize = 20_000;

/// Chooses the axis where nobody did.
pub(crate) fn usual_axis(source: &Source) -> Axis {
    match source.test_time() {
        Some(ColumnType::Int | ColumnType::Float) => Axis::TestTime,
        _ => Axis::Seq,
    }
}

/// Reads the chart of a selection.
///
/// # Errors
/// 400 where the columns are too many; else as reading.
pub(crate) async fn chart(
    hub: &Hub,
    source: &Arc<Source>,
    (axis, mut picks): (Axis, Picks),
    selection: Selection,
    look: Look,
) -> Result<Chart, Problem> {
    let shown = picture::shown(&picks, source)?;
    for column in picture::beside(&shown, axis, source) {
        picks.add_column(column);
    }
    if shown.is_empty() {
        return Ok(picture::chart(source, axis, &[], &Selected::default()));
    }
    let points = POINTS_A_PIXEL * picks.iter().count() * look.size.width() as usize;
    let pages = Pages::new(&hub.pool, &hub.stop, source, &Arc::new(picks), selection);
    let rows = reduce::rows(pages, &hub.roller, axis, points.min(MOST_POINTS)).await?;
    Ok(picture::chart(source, axis, &shown, &rows))
}
