//! A bus that was wiped: estimates that it had taken, and that were not stored yet, went with it.
//!
//! A run that lives through it asks the hub whether the last estimate that it handed to the bus is
//! in the table. If not, or if nobody can tell, it begins again before all of them: the checkpoints
//! are gone, too, and the same rows give the same bits.

use std::time::Duration;

use serde::Deserialize;

use super::Run;
use crate::{hub::HubError, ring::Reason, worker::End};

/// How often the hub is asked, which may be about to store what it took from the bus.
const ASKED: usize = 20;
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What the hub says of stored estimates.
#[derive(Debug, Deserialize)]
struct Stored {
    lineage: Vec<Made>,
}

/// Estimates of one generation.
#[derive(Debug, Deserialize)]
struct Made {
    epoch: i64,
    revision: i64,
    generation: i64,
    last_seq: i64,
}

impl Run<'_> {
    /// Goes back before estimates that were lost with a bus that is no more.
    pub(crate) async fn make_up_for_lost_estimates(&mut self) -> Result<(), End> {
        let has_spoken = self.steps.as_ref().is_some_and(|steps| {
            let is_of_a_bus = !self.origin.bus_epoch.is_empty();
            is_of_a_bus && steps.runner.progress().steps > 0
        });
        if !has_spoken {
            return Ok(());
        }
        self.publisher.settle().await?;
        for _ in 0..ASKED {
            match self.is_all_stored().await {
                Ok(true) | Err(HubError::NotFound) => return Ok(()),
                Ok(false) => {}
                Err(error) => self.trouble(Some(error.to_string())),
            }
            self.worker.pause(ASK_AGAIN).await?;
        }
        self.go_back(Reason::LostEstimates, Some(1)).await
    }

    /// Whether the last estimate that was handed to the bus is in the table, and so all before it.
    async fn is_all_stored(&self) -> Result<bool, HubError> {
        let Some(position) = self.position() else {
            return Ok(true);
        };
        let path = [
            "db",
            self.worker.battery.name.as_str(),
            "estimates",
            "lineage",
        ];
        let query = [("estimator", self.worker.estimator.as_str())];
        let stored: Stored = self.worker.shared.hub.get(&path, &query).await?;
        let revision = self.registration.revision;
        // A run that took over does not know which row was the last with an estimate.
        let (generation, seq) = match self.said {
            Some((generation, seq)) => (Some(generation), seq),
            None => (None, position.seq),
        };
        Ok(stored.lineage.iter().any(|made| {
            (made.epoch, made.revision) == (position.epoch, revision)
                && generation.is_none_or(|generation| made.generation == generation)
                && made.last_seq >= seq
        }))
    }
}
