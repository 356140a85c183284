//! Candidate and champion side by side over the same rows, at full speed.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::StreamExt;
use rovi_common::registration::Registration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    figures::{Side, Sums},
    lane::Lane,
    read::History,
};
use crate::fleet::Shared;

/// What a backtest found: both sides over the rows for which both predicted the voltage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// Rows for which both predicted the voltage, or the candidate alone where there is no champion.
    pub rows_compared: u64,
    /// The candidate.
    pub candidate: Side,
    /// The champion, started anew with the first row, as the candidate is.
    pub champion: Option<Side>,
}

/// Runs the estimators over the history; `done` counts rows meanwhile.
///
/// # Errors
/// Why there is nothing to compare.
pub(super) async fn compare(
    shared: &Shared,
    history: &History,
    (candidate, champion): (Arc<Registration>, Option<Arc<Registration>>),
    done: &AtomicU64,
) -> Result<Comparison, String> {
    let mut candidate = Lane::open(shared, candidate, history.epoch).await?;
    let mut champion = match champion {
        Some(champion) => Some(Lane::open(shared, champion, history.epoch).await?),
        None => None,
    };
    let (mut ours, mut theirs) = (Sums::default(), Sums::default());
    let mut pages = pin!(history.pages());
    while let Some(page) = pages.next().await {
        let frames = page.map_err(|error| error.to_string())?;
        let rows: usize = frames.iter().map(|frame| frame.received.len()).sum();
        let other = async {
            match champion {
                Some(champion) => champion.take(Arc::clone(&frames)).await.map(Some),
                None => Ok(None),
            }
        };
        let (one, other) = tokio::join!(candidate.take(Arc::clone(&frames)), other);
        (candidate, champion) = (one?, other?);
        meet(
            (&mut candidate, &mut ours),
            (champion.as_mut(), &mut theirs),
        );
        let rows = u64::try_from(rows).unwrap_or(0);
        done.fetch_add(rows, Ordering::Relaxed);
    }
    candidate = candidate.finish().await?;
    champion = match champion {
        Some(champion) => Some(champion.finish().await?),
        None => None,
    };
    meet(
        (&mut candidate, &mut ours),
        (champion.as_mut(), &mut theirs),
    );
    Ok(Comparison {
        rows_compared: ours.steps(),
        candidate: candidate.side(&ours),
        champion: champion.map(|champion| champion.side(&theirs)),
    })
}

/// Adds what both showed of the same rows; what only one showed is left out. Without another, all
/// counts.
fn meet((one, ours): (&mut Lane, &mut Sums), (other, theirs): (Option<&mut Lane>, &mut Sums)) {
    let Some(other) = other else {
        return one.shown.drain(..).for_each(|shown| ours.add(&shown));
    };
    while let (Some(a), Some(b)) = (one.shown.front(), other.shown.front()) {
        let (first, second) = (a.seq, b.seq);
        if first <= second
            && let Some(a) = one.shown.pop_front()
            && first == second
        {
            ours.add(&a);
        }
        if second <= first
            && let Some(b) = other.shown.pop_front()
            && first == second
        {
            theirs.add(&b);
        }
    }
}
