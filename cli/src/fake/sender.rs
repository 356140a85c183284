//! One battery's way to the hub.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Beat, Tally, Trouble};
use crate::upload_client::{Event, EventSink, Target, UploadClient};

/// The most rows that leave at once after a pause.
const MOST_AT_ONCE: u64 = 1024;
/// How long rows on their way may take at the end.
const LAST_ROWS_WITHIN: Duration = Duration::from_secs(10);

/// Sends each row when it is due until `stop`; then waits until all are durable.
///
/// # Errors
/// The hub refuses the rows or stays away; see `UploadError`.
pub async fn send(
    target: Target,
    mut rows: Trouble,
    beat: Beat,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Result<()> {
    let mut client = UploadClient::connect(target, counting(tally)).await?;
    let mut taken = 0;
    loop {
        let waiting = tokio::select! {
            () = stop.cancelled() => break,
            listened = client.listen_until(beat.due(taken)) => listened,
        };
        waiting?;
        // The clock of the runtime ticks in milliseconds: a row that is due may seem not to be.
        let due = beat.rows_due(Instant::now()).saturating_sub(taken).max(1);
        let count = due.min(MOST_AT_ONCE);
        let batch = rows.take(usize::try_from(count)?)?;
        taken += count;
        tokio::select! {
            () = stop.cancelled() => break,
            sent = client.send(batch) => sent?,
        }
    }
    // With the hub away nobody waits for the last rows; the tally tells how many are durable.
    match timeout(LAST_ROWS_WITHIN, client.finish()).await {
        Ok(finished) => finished.map(drop)?,
        Err(_elapsed) => {}
    }
    Ok(())
}

/// Adds up what the client tells.
fn counting(tally: Arc<Tally>) -> EventSink {
    let mut known = 0;
    Box::new(move |event| match event {
        Event::Stored { position } => {
            Tally::add(&tally.stored, position.saturating_sub(known));
            known = position;
        }
        Event::Rejected { .. } => Tally::add(&tally.rejected, 1),
        Event::Lost { .. } => Tally::add(&tally.broken, 1),
        _ => {}
    })
}
