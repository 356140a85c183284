//! Past rows, for a start, a late registration and a gap alike: first from the stream, and what the
//! stream no longer holds from the hub.
//!
//! While an estimator catches up the fleet sends it nothing. When it has read up to the battery's
//! last message it goes live and reads on to the newest row known at that moment, so that no frame
//! falls between. With the hub away, rows that only the hub has are waited for: estimates never skip
//! rows that exist.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Stream;
use rovi_common::{frame::RowFrame, name::BatteryName};

use crate::{
    checkpoint::Origin,
    filter::Position,
    hub::{HubError, Page},
    replay::{Last, Read, Reader, last_message},
    run::{Run, Taken},
    status::Phase,
    subscribe::{bus_epoch, open_stream},
    worker::End,
};

/// How long an estimator reads while others wait to read.
const TURN: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Why a source could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatchUpError {
    /// The worker has to stop what it does.
    #[error("interrupted")]
    End(End),
    /// Others wait for their turn.
    #[error("it gave way to others that catch up")]
    Turn,
    /// The estimator went back to rows before those that were read.
    #[error("it went back")]
    WentBack,
    /// The stream does not answer or is missing.
    #[error("{0}")]
    Stream(String),
    /// The hub does not answer or has no such rows.
    #[error("the rows {from} to {to} are no longer on the bus, and {problem}")]
    Hub {
        /// The first missing row.
        from: i64,
        /// The last missing row, or that it is not known.
        to: String,
        /// What the hub said.
        problem: HubError,
    },
}

impl From<End> for CatchUpError {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Reads all rows behind the run's position and goes live, trying as long as it takes.
///
/// # Errors
/// [`End`]: the worker has to stop what it does.
pub(crate) async fn catch_up(run: &mut Run<'_>) -> Result<(), End> {
    let shared = Arc::clone(&run.worker.shared);
    run.worker.battery.hold_back(&run.worker.estimator);
    Box::pin(run.empty_mailbox()).await?;
    run.tell(Phase::CatchingUp);
    shared.metrics.catch_ups.inc();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let before = run.position();
        let permit = tokio::select! {
            end = run.worker.interrupted() => return Err(end),
            permit = shared.catch_ups.acquire() => permit,
        };
        run.turn_began = Instant::now();
        // Only who has a turn takes the room to read: at a start thousands wait here.
        let round = Box::pin(read_to_the_end(run)).await;
        drop(permit);
        match round {
            Ok(()) => {
                run.trouble(None);
                run.tell(Phase::Live);
                return Ok(());
            }
            Err(CatchUpError::End(end)) => return Err(end),
            Err(CatchUpError::Turn | CatchUpError::WentBack) => continue,
            Err(error) => {
                run.worker.battery.hold_back(&run.worker.estimator);
                run.trouble(Some(error.to_string()));
            }
        }
        Box::pin(run.save_if_due()).await?;
        if run.position() != before {
            pause = SHORTEST_PAUSE;
        }
        run.worker.pause(pause).await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ends a long turn when other estimators wait to catch up.
fn give_way(run: &Run<'_>) -> Result<(), CatchUpError> {
    let others_wait = run.worker.shared.catch_ups.available_permits() == 0;
    if others_wait && run.turn_began.elapsed() >= TURN {
        return Err(CatchUpError::Turn);
    }
    Ok(())
}

/// One attempt.
async fn read_to_the_end(run: &mut Run<'_>) -> Result<(), CatchUpError> {
    let stream = open_stream(&run.worker.shared)
        .await
        .map_err(CatchUpError::Stream)?;
    let bus_epoch = bus_epoch(&stream);
    if run.origin.bus_epoch != bus_epoch {
        run.make_up_for_lost_estimates().await?;
        run.origin = Origin {
            bus_epoch,
            stream_sequence: 0,
        };
    }
    loop {
        run.heed_corrections().await?;
        let battery = Arc::clone(&run.worker.battery);
        match last_message(&stream, &battery.name).await? {
            Last::Nothing => read_hub_only(run).await?,
            Last::Unreadable => read_stream(run, &stream, None).await?,
            Last::Rows(newest) => {
                battery.note(newest);
                run.begin_at(newest.epoch);
                if run.position() < Some(newest) {
                    read_stream(run, &stream, Some(newest)).await?;
                }
            }
        }
        // A newer row may have come before the run went live: then it is in the stream.
        let newest = battery.go_live(&run.worker.estimator);
        let position = run.position();
        if newest <= position || is_all_there_is(&stream, &battery.name, position).await? {
            return Ok(());
        }
    }
}

/// Whether bus knows no row behind the position, whatever was heard of before the bus was wiped.
async fn is_all_there_is(
    stream: &Stream,
    battery: &BatteryName,
    position: Option<Position>,
) -> Result<bool, CatchUpError> {
    Ok(match last_message(stream, battery).await? {
        Last::Rows(newest) => Some(newest) <= position,
        Last::Nothing | Last::Unreadable => true,
    })
}

/// Reads the stream until the position reaches `target`, or to its end without one.
async fn read_stream(
    run: &mut Run<'_>,
    stream: &Stream,
    target: Option<Position>,
) -> Result<(), CatchUpError> {
    let mut reader = Reader::open(run, stream).await?;
    let read = read_on(run, &mut reader, target).await;
    reader.close().await;
    read
}

async fn read_on(
    run: &mut Run<'_>,
    reader: &mut Reader,
    target: Option<Position>,
) -> Result<(), CatchUpError> {
    while target.is_none() || run.position() < target {
        let position = run.position();
        let read = tokio::select! {
            end = run.worker.interrupted() => return Err(end.into()),
            read = reader.next(position, target) => read?,
        };
        match read {
            Read::Frames(frames, origin) => {
                run.count_past_rows("stream", &frames);
                take(run, frames).await?;
                run.origin.advance(&origin);
                run.save_if_due().await?;
                give_way(run)?;
            }
            Read::Gap { epoch, before } => read_hub(run, Some(epoch), Some(before - 1)).await?,
            Read::End => match target {
                // The last messages could not be read: their rows are in the hub, if anywhere.
                Some(target) => return read_hub(run, Some(target.epoch), Some(target.seq)).await,
                None => return Ok(()),
            },
        }
    }
    Ok(())
}

/// Reads the rows of a battery of which the stream holds nothing.
async fn read_hub_only(run: &mut Run<'_>) -> Result<(), CatchUpError> {
    let epoch = run.position().map(|position| position.epoch);
    match read_hub(run, epoch, None).await {
        Err(CatchUpError::Hub {
            problem: HubError::NotFound,
            ..
        }) => Ok(()),
        Err(CatchUpError::Hub {
            problem: HubError::OtherEpoch,
            ..
        }) => read_hub(run, None, None).await,
        done => done,
    }
}

/// Reads the rows of `epoch`, or of the present one, up to `to`, or to the newest; rows that the hub
/// has deleted are passed over.
async fn read_hub(
    run: &mut Run<'_>,
    mut epoch: Option<i64>,
    to: Option<i64>,
) -> Result<(), CatchUpError> {
    loop {
        let from = match run.position() {
            Some(position) if Some(position.epoch) == epoch => position.seq + 1,
            _ => 1,
        };
        if to.is_some_and(|to| from > to) {
            return Ok(());
        }
        let failed = |problem| CatchUpError::Hub {
            from,
            to: to.map_or_else(|| "the newest".to_owned(), |to| to.to_string()),
            problem,
        };
        let hub = run.worker.shared.hub.clone();
        let battery = run.worker.battery.name.clone();
        let page = tokio::select! {
            end = run.worker.interrupted() => return Err(end.into()),
            page = hub.rows(&battery, epoch, (from, to)) => page.map_err(failed)?,
        };
        let up_to = to.unwrap_or(page.last_seq);
        let newest = page.last_seq;
        if newest < up_to {
            let problem = HubError::Damaged(format!("its newest row is {newest}"));
            return Err(failed(problem));
        }
        // Retention removes the oldest rows only, and what was deleted by hand is told: any other
        // hole is a page that is not whole.
        let missing = match page.end_after(from) {
            Ok(end) if page.frames.is_empty() && end <= up_to => Some(end),
            Ok(_) => None,
            Err(missing) => Some(missing),
        };
        if let Some(missing) = missing {
            let problem = HubError::Damaged(format!("row {missing} is not in it"));
            return Err(failed(problem));
        }
        epoch = Some(page.epoch);
        if take_page(run, page, up_to).await? {
            return Ok(());
        }
        give_way(run)?;
        if run.position().is_none_or(|position| position.seq < from) {
            let problem = HubError::Damaged("its rows do not continue".to_owned());
            return Err(failed(problem));
        }
    }
}

/// Takes rows, unless some of them make the estimator go back.
async fn take(run: &mut Run<'_>, frames: Vec<Arc<RowFrame>>) -> Result<(), CatchUpError> {
    match run.take(frames).await? {
        Taken::All => Ok(()),
        Taken::WentBack => Err(CatchUpError::WentBack),
    }
}

/// Takes a page of rows; tells whether row `up_to` was reached.
async fn take_page(run: &mut Run<'_>, page: Page, up_to: i64) -> Result<bool, CatchUpError> {
    let epoch = page.epoch;
    run.begin_at(epoch);
    run.pass_over_gone(epoch, up_to.min(page.first_seq - 1));
    let from = run.position().map_or(1, |position| position.seq + 1);
    let end = page.end_after(from).unwrap_or(from);
    run.count_past_rows("hub", &page.frames);
    take(run, page.frames.into_iter().map(Arc::new).collect()).await?;
    run.pass_over_deleted(up_to.min(end - 1));
    run.save_if_due().await?;
    Ok(run.position() >= Some(Position { epoch, seq: up_to }))
}
