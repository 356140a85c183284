//! A battery's rows from the hub, page after page, the next ones on their way while one is worked on.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use rovi_common::{frame::RowFrame, name::BatteryName};
use tokio::task::JoinSet;

use crate::hub::{Hub, HubError};

/// Rows of one page: so many that asking for them costs little beside reading them.
const PAGE_ROWS: u32 = 32_768;
/// Pages that are read ahead.
const PAGES_AHEAD: usize = 2;
/// What native estimators read.
const INPUTS: [&str; 4] = ["test_time", "current", "voltage", "temperature"];

/// Some rows, shared by those that deal with them.
pub(super) type Page = Arc<Vec<Arc<RowFrame>>>;

/// Rows of one battery and epoch.
#[derive(Debug, Clone)]
pub(super) struct History {
    hub: Hub,
    battery: BatteryName,
    /// The epoch of all rows.
    pub(super) epoch: i64,
    /// The first row.
    pub(super) first: i64,
    /// The last row.
    pub(super) last: i64,
    columns: Vec<String>,
}

impl History {
    /// Looks up which rows of a range there are; `all_columns` where a script reads them.
    ///
    /// # Errors
    /// The hub is away or has no such rows.
    pub(super) async fn open(
        hub: &Hub,
        battery: &BatteryName,
        (from, to): (Option<i64>, Option<i64>),
        all_columns: bool,
    ) -> Result<Self, HubError> {
        let wanted = (from.unwrap_or(1).max(1), to);
        let found = hub.rows_of(battery, None, wanted, (1, &[])).await?;
        let (first, last) = (wanted.0.max(found.first_seq), found.last_seq);
        let names = found.frames.first().map(|frame| frame.columns.iter());
        let names = names.into_iter().flatten().map(|(name, _)| name);
        let inputs = names.filter(|name| INPUTS.contains(name));
        Ok(Self {
            hub: hub.clone(),
            battery: battery.clone(),
            epoch: found.epoch,
            first,
            last: to.map_or(last, |to| to.min(last)),
            columns: if all_columns {
                Vec::new()
            } else {
                inputs.map(str::to_owned).collect()
            },
        })
    }

    /// Returns how many rows there are.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or(0)
    }

    /// Reads the rows in order.
    pub(super) fn pages(&self) -> impl Stream<Item = Result<Page, HubError>> + use<> {
        let history = self.clone();
        let page = usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
        let starts = stream::iter((history.first..=history.last).step_by(page));
        starts
            .map(move |first| {
                let history = history.clone();
                let last = history.last.min(first + i64::from(PAGE_ROWS) - 1);
                // Begun at once, and broken off when nobody waits for it any more.
                let mut reading = JoinSet::new();
                reading.spawn(history.read(first, last));
                async move { reading.join_next().await }
            })
            .buffered(PAGES_AHEAD)
            .map(|read| match read {
                Some(Ok(page)) => page,
                Some(Err(error)) => Err(HubError::Damaged(error.to_string())),
                None => Err(HubError::Damaged("it was never asked for".to_owned())),
            })
    }

    /// Reads some rows, in several answers where they are large.
    async fn read(self, first: i64, last: i64) -> Result<Page, HubError> {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let (mut from, mut frames) = (first, Vec::new());
        while from <= last {
            let range = (from, Some(last));
            let limits = (PAGE_ROWS, columns.as_slice());
            let found = self
                .hub
                .rows_of(&self.battery, Some(self.epoch), range, limits);
            let page = found.await?.frames;
            let Some(end) = page.last().map(RowFrame::last_seq) else {
                // Removed by retention meanwhile: what is gone is not compared.
                break;
            };
            from = end + 1;
            frames.extend(page.into_iter().map(Arc::new));
        }
        Ok(Arc::new(frames))
    }
}
