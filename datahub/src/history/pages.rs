//! A selection, read page by page: one short query each, and no connection between them.

use std::{collections::VecDeque, ops::RangeInclusive, slice, sync::Arc};

use diesel::{Connection, PgConnection};
use rovi_common::auth::{Flow, budget::Purse};
use tokio_util::sync::CancellationToken;

use super::picks::Picks;
use crate::store::{
    Pool, StoreError,
    rows::{self, PageLimits, Selected, Selection},
    source::Source,
    times,
};

/// Rows of one page. More make a query long, fewer spend the time on round trips.
const PAGE_ROWS: i64 = 8192;
/// Bytes of cells after which a page ends: what one export or reduction holds in memory at once.
const PAGE_BYTES: usize = 8 << 20;

/// Why reading ended before the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// PostgreSQL is away or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The battery was deleted or has begun a new epoch.
    #[error("{0} was deleted or began a new epoch meanwhile")]
    Gone(String),
    /// The hub stops.
    #[error("the hub stops")]
    Stopped,
}

/// A selection of rows, from the oldest to the newest at the time it was asked for.
#[derive(Debug)]
pub(crate) struct Pages {
    pool: Pool,
    stop: CancellationToken,
    source: Arc<Source>,
    picks: Arc<Picks>,
    selection: Selection,
    /// First and last `seq` of the parts that are still to be read; none before they were looked
    /// for.
    left: Option<VecDeque<(i64, i64)>>,
    /// Who reads.
    purse: Purse,
}

impl Pages {
    /// Prepares to read; rows stored later than `source` was opened are left out.
    pub(crate) fn new(
        pool: &Pool,
        stop: &CancellationToken,
        source: &Arc<Source>,
        picks: &Arc<Picks>,
        selection: Selection,
    ) -> Self {
        Self {
            pool: pool.clone(),
            stop: stop.clone(),
            source: Arc::clone(source),
            picks: Arc::clone(picks),
            selection,
            left: None,
            purse: Purse::default(),
        }
    }

    /// Counts the rows for whoever reads them; beyond the budget they come more slowly.
    pub(crate) fn for_budget(self, purse: Purse) -> Self {
        Self { purse, ..self }
    }

    fn parts_within(&self, seq: RangeInclusive<i64>) -> VecDeque<(i64, i64)> {
        let (first, last) = seq.into_inner();
        let Some(left) = &self.left else {
            return VecDeque::from([(first, last)]);
        };
        let cut = |&(begin, end): &(i64, i64)| (begin.max(first), end.min(last));
        let parts = left.iter().map(cut);
        parts.filter(|(begin, end)| begin <= end).collect()
    }

    /// Returns pages of a part of the selection, with other columns.
    pub(crate) fn within(&self, seq: RangeInclusive<i64>, picks: Arc<Picks>) -> Self {
        Self {
            pool: self.pool.clone(),
            stop: self.stop.clone(),
            source: Arc::clone(&self.source),
            picks,
            selection: self.selection.clone(),
            left: Some(self.parts_within(seq)),
            purse: self.purse.clone(),
        }
    }

    /// Returns the connections that are read by.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns what is selected.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Returns the table that is read.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Returns the columns of the pages.
    pub(crate) fn picks(&self) -> &Arc<Picks> {
        &self.picks
    }

    /// Reads the next rows; `None` after the last.
    ///
    /// # Errors
    /// See [`ReadError`]; nothing more comes then.
    pub(crate) async fn next(&mut self) -> Result<Option<Selected>, ReadError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(ReadError::Stopped);
            }
            self.bounds().await?;
            let Some((first, last)) = self.left.as_mut().and_then(VecDeque::pop_front) else {
                return Ok(None);
            };
            let window = (first, last.min(first.saturating_add(PAGE_ROWS - 1)));
            let page = self.read(window).await?;
            let read_to = match (page.more, page.seq.last()) {
                (true, Some(&seq)) => seq,
                _ => window.1,
            };
            if let Some(left) = self.left.as_mut().filter(|_| read_to < last) {
                left.push_front((read_to + 1, last));
            }
            self.purse.pace(Flow::RowsRead, page.seq.len()).await;
            if !page.seq.is_empty() {
                return Ok(Some(page));
            }
        }
    }

    /// Finds where the selection begins and ends, and which parts of the table can be passed over;
    /// the first row is behind the last where there are no rows.
    pub(crate) async fn bounds(&mut self) -> Result<(i64, i64), ReadError> {
        if self.left.is_none() {
            self.left = Some(self.look().await?);
        }
        let ends = self
            .left
            .as_ref()
            .and_then(|left| left.front().zip(left.back()));
        Ok(ends.map_or((1, 0), |(first, last)| (first.0, last.1)))
    }

    async fn look(&self) -> Result<VecDeque<(i64, i64)>, ReadError> {
        let (source, mut selection) = (Arc::clone(&self.source), self.selection.clone());
        let newest = source.line.last_seq;
        selection.seq = *selection.seq.start()..=(*selection.seq.end()).min(newest);
        let found = self.pool.run(move |connection| {
            current(connection, &source, |connection| {
                let parts = times::narrow(connection, &source, &selection)?;
                let ends = rows::bounds(connection, &source, &parts)?;
                Ok(ends.map_or_else(Vec::new, |ends| between(&parts, ends)))
            })
        });
        Ok(found.await?.ok_or_else(|| self.gone())?.into())
    }

    async fn read(&self, (first, last): (i64, i64)) -> Result<Selected, ReadError> {
        let (source, picks) = (Arc::clone(&self.source), Arc::clone(&self.picks));
        let selection = Selection {
            seq: first..=last,
            ..self.selection.clone()
        };
        let limits = PageLimits {
            rows: usize::MAX,
            bytes: PAGE_BYTES,
            descending: false,
        };
        let page = self.pool.run(move |connection| {
            let page = current(connection, &source, |connection| {
                Ok(rows::page(
                    connection,
                    &source,
                    slice::from_ref(&selection),
                    picks.fetched(),
                    limits,
                )?)
            })?;
            Ok(page.map(|page| finish(&picks, page)))
        });
        page.await?.ok_or_else(|| self.gone())
    }

    /// Tells that the battery is another one now.
    pub(crate) fn gone(&self) -> ReadError {
        ReadError::Gone(self.source.battery.to_string())
    }
}

/// Cuts parts off before the first row and behind the last.
fn between(parts: &[Selection], (first, last): (i64, i64)) -> Vec<(i64, i64)> {
    let cut = |part: &Selection| {
        let (begin, end) = (*part.seq.start(), *part.seq.end());
        (begin.max(first), end.min(last))
    };
    let parts = parts.iter().map(cut);
    parts.filter(|(begin, end)| begin <= end).collect()
}

/// Computes the signals of a page.
pub(crate) fn finish(picks: &Picks, page: Selected) -> Selected {
    Selected {
        columns: picks.finish(page.columns, page.seq.len()),
        ..page
    }
}

/// Reads from a battery's table while it is known to be the same battery; else `None`.
pub(crate) fn current<T>(
    connection: &mut PgConnection,
    source: &Source,
    read: impl FnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    connection.transaction(|connection| {
        if !source.is_current(connection)? {
            return Ok(None);
        }
        read(connection).map(Some)
    })
}
