//! Hands rows to the upload client when it is their time.

use anyhow::{Context, Result};
use rovi_common::rows::Columns;
use tokio::time::Instant;

use super::source::{Source, TIME_COLUMN};
use crate::{
    pace::{Pace, Speedup},
    upload_client::UploadClient,
};

/// Sends the rows of `source` that are not durable yet.
pub(super) async fn feed(
    client: &mut UploadClient,
    source: Source,
    speedup: Speedup,
) -> Result<()> {
    let start = usize::try_from(client.position()).context("the position is out of range")?;
    let mut batches = source.read_from(start);
    let began = Instant::now();
    let mut pace = match speedup {
        Speedup::Max => None,
        Speedup::Times(times) => Some(Pace::new(times)),
    };
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        match &mut pace {
            None => client.send(batch).await?,
            Some(pace) => send_in_time(client, batch, pace, began).await?,
        }
    }
    Ok(())
}

/// Sends each row of a batch when it is due; rows that are due together leave together.
async fn send_in_time(
    client: &mut UploadClient,
    mut rows: Columns,
    pace: &mut Pace,
    began: Instant,
) -> Result<()> {
    let times = rows.get(TIME_COLUMN);
    let due: Vec<Instant> = (0..rows.rows())
        .map(|row| pace.leaves_after(times.and_then(|times| times.number(row))))
        // A pause beyond what the clock can count is as good as for ever.
        .map(|after| {
            began
                .checked_add(after)
                .unwrap_or_else(|| began + A_CENTURY)
        })
        .collect();
    let mut due = due.as_slice();
    while let Some(&next) = due.first() {
        client.listen_until(next).await?;
        let now = Instant::now();
        let count = due.iter().take_while(|&&due| due <= now).count().max(1);
        let later = rows.split_off(count);
        client.send(rows).await?;
        rows = later;
        due = due.get(count..).unwrap_or_default();
    }
    Ok(())
}

const A_CENTURY: std::time::Duration = std::time::Duration::from_hours(24 * 365 * 100);
