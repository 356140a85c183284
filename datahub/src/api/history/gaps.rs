//! Known gaps: rows that were deleted by hand, told beside the rows so that nobody takes them for
//! lost ones.

use std::ops::RangeInclusive;

use actix_web::HttpResponseBuilder;
use diesel::{PgConnection, QueryResult};
use rovi_common::http::Problem;

use crate::{
    hub::Hub,
    store::{
        corrections,
        rows::{PageLimits, Selected, Selection},
        source::Source,
    },
};

/// First and last `seq` of each.
pub(super) type Gaps = Vec<(i64, i64)>;

/// Gaps that one answer tells; a page ends where there are more.
const MOST: usize = 1000;
const HEADER: &str = "Rovi-Deleted";

/// Finds the gaps that a page leaves; a page that would have too many is cut short.
pub(super) fn of_page(
    connection: &mut PgConnection,
    source: &Source,
    mut page: Selected,
    (selection, limits): (&Selection, PageLimits),
) -> QueryResult<(Selected, Gaps)> {
    let mut from = (*selection.seq.start()).max(source.line.first_seq);
    let mut to = *selection.seq.end();
    match (page.more, limits.descending, page.seq.last()) {
        (true, false, Some(&last)) => to = last,
        (true, true, Some(&last)) => from = last,
        _ => {}
    }
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    let limit = if limits.descending { i64::MAX } else { most };
    let gaps = corrections::gaps(connection, &source.line, &(from..=to), limit)?;
    if !limits.descending
        && gaps.len() >= MOST
        && let Some(&(_, last)) = gaps.last()
    {
        let kept = page.seq.partition_point(|seq| *seq <= last);
        page.more |= kept < page.seq.len();
        page.seq.truncate(kept);
        page.received.truncate(kept);
        page.segment.truncate(kept);
        drop(page.columns.split_off(kept));
    }
    Ok((page, gaps))
}

/// Finds the first gaps of a range.
pub(super) async fn within(
    hub: &Hub,
    source: &Source,
    seqs: RangeInclusive<i64>,
) -> Result<Gaps, Problem> {
    let line = source.line.clone();
    let seqs = (*seqs.start()).max(line.first_seq)..=(*seqs.end()).min(line.last_seq);
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    let find =
        move |connection: &mut PgConnection| Ok(corrections::gaps(connection, &line, &seqs, most)?);
    Ok(hub.pool.run(find).await?)
}

/// Tells gaps in the header: `5-7,9-9`.
pub(super) fn tell(response: &mut HttpResponseBuilder, gaps: &Gaps) {
    if !gaps.is_empty() {
        let told = gaps.iter().take(MOST);
        let told: Vec<String> = told
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        response.insert_header((HEADER, told.join(",")));
    }
}
