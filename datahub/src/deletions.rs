//! What follows a deletion, on every hub: open uploads end, twins hear that the estimators are
//! gone, and the bus forgets the battery.
//!
//! The deletion itself is one transaction (`store::deletion`); this is its echo, done again until
//! nothing is left. A hub that dies in between leaves it to the others or to its next start.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    message::{PublishMessage, StreamMessage},
    stream::{LastRawMessageErrorKind, Stream},
};
use rovi_common::{
    error::ErrorChain,
    frame::{EstimateFrame, RowFrame},
    lifecycle::Lifecycle,
    name::BatteryName,
    news::BatteryState,
    subjects,
};
use tokio::{sync::Notify, time::timeout};

use crate::{
    bus::{Bus, BusError},
    registrations::Registrations,
    store::{
        Pool, StoreError,
        deletion::{self, Remains},
    },
    upload::open::OpenUploads,
};

/// How often deletions by other hubs are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the bus is looked at again for one battery: hubs may still be sending what they had
/// in hand.
const AGAIN_AFTER: Duration = Duration::from_secs(20);
/// When what was in hand anywhere is sent or given up.
const SETTLED_AFTER_S: f64 = 60.0;
/// Purges of one subject in one pass.
const MOST_PURGES: usize = 8;

/// Why the bus was not cleaned.
#[derive(Debug, thiserror::Error)]
enum CleanError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("the deleted batteries cannot be read")]
    Store(#[from] StoreError),
}

/// Cleans up after deletions.
#[derive(Debug)]
pub struct Deletions {
    bus: Arc<Bus>,
    pool: Pool,
    registrations: Registrations,
    uploads: Arc<OpenUploads>,
    wake: Notify,
}

impl Deletions {
    /// Makes the task; nothing is done until [`Deletions::start`].
    pub fn new(
        bus: Arc<Bus>,
        pool: Pool,
        registrations: Registrations,
        uploads: Arc<OpenUploads>,
    ) -> Self {
        Self {
            bus,
            pool,
            registrations,
            uploads,
            wake: Notify::new(),
        }
    }

    /// Starts cleaning up, until the service stops.
    pub fn start(self: &Arc<Self>, lifecycle: &Lifecycle) {
        let (deletions, stop) = (Arc::clone(self), lifecycle.stop_token());
        lifecycle.supervise("deletions", async move {
            stop.run_until_cancelled(deletions.run()).await;
        });
    }

    /// Asks for a look now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    async fn run(&self) {
        // When the bus was last found clean, by battery.
        let mut seen: HashMap<i64, Instant> = HashMap::new();
        loop {
            if let Err(error) = self.look(&mut seen).await {
                tracing::debug!(
                    "cleaning up deleted batteries waits: {}",
                    ErrorChain(&error)
                );
            }
            self.uploads.prune();
            let _woken_or_not = timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    async fn look(&self, seen: &mut HashMap<i64, Instant>) -> Result<(), CleanError> {
        let remains = self.pool.run(deletion::remains).await?;
        seen.retain(|id, _| remains.iter().any(|one| one.id == *id));
        for one in &remains {
            let reason = format!("the battery {} was deleted", one.name);
            self.uploads.end(one.id, &reason);
        }
        for one in remains {
            let is_due = seen
                .get(&one.id)
                .is_none_or(|at| at.elapsed() >= AGAIN_AFTER);
            if self.bus.life().is_none() || !is_due {
                continue;
            }
            let is_settled = one.age_s >= SETTLED_AFTER_S;
            let id = one.id;
            if self.clean(&one).await? && is_settled {
                self.pool
                    .run(move |connection| deletion::set_cleaned(connection, id))
                    .await?;
            }
            seen.insert(id, Instant::now());
        }
        Ok(())
    }

    /// Cleans the bus; tells whether nothing was left of the battery.
    async fn clean(&self, one: &Remains) -> Result<bool, CleanError> {
        let Ok(battery) = one.name.parse::<BatteryName>() else {
            return Ok(true);
        };
        for estimator in one.estimators.iter().filter_map(|name| name.parse().ok()) {
            self.registrations.tell_of(&battery, &estimator).await;
        }
        let subject = subjects::stored_rows_of(&battery);
        let rows = self
            .forget(subjects::ROWS_STREAM, &subject, one.epoch)
            .await?;
        let subject = subjects::all_estimates_of(&battery);
        let estimates = self
            .forget(subjects::ESTIMATES_STREAM, &subject, one.epoch)
            .await?;
        let state = self.say_no_more(&battery, one.epoch).await?;
        Ok(rows && estimates && state)
    }

    /// Ends a battery's state by an empty message, which all who watch it hear; tells whether there
    /// was none of this epoch or before.
    async fn say_no_more(&self, battery: &BatteryName, epoch: i64) -> Result<bool, CleanError> {
        let Ok(stream) = self
            .bus
            .jetstream()
            .get_stream(subjects::STATE_STREAM)
            .await
        else {
            return Ok(true);
        };
        let subject = subjects::state_of(battery);
        let Some(message) = last_message(&stream, &subject).await? else {
            return Ok(true);
        };
        let said = serde_json::from_slice::<BatteryState>(&message.payload);
        if message.payload.is_empty() || said.is_ok_and(|state| state.epoch > epoch) {
            return Ok(true);
        }
        let empty = PublishMessage::build().expected_last_subject_sequence(message.sequence);
        let publish = self.bus.jetstream().send_publish(subject, empty);
        let failed = BusError::request("end the state of a battery");
        match publish.await {
            // Where a twin was faster, it is looked at again.
            Ok(answer) => drop(answer.await),
            Err(error) => return Err(failed(error).into()),
        }
        Ok(false)
    }

    /// Purges the messages of `subject` that are of no later epoch; tells whether there were none.
    ///
    /// Where the name is in use again, what is left of before ages out: readers go by the epoch.
    async fn forget(&self, stream: &str, subject: &str, epoch: i64) -> Result<bool, CleanError> {
        let Ok(stream) = self.bus.jetstream().get_stream(stream).await else {
            return Ok(true);
        };
        for purges in 0..MOST_PURGES {
            let Some((sequence, newest)) = last(&stream, subject).await? else {
                return Ok(purges == 0);
            };
            if newest > epoch {
                return Ok(true);
            }
            let purge = stream
                .purge()
                .filter(subject)
                .sequence(sequence.saturating_add(1));
            purge.await.map_err(BusError::request("forget a battery"))?;
        }
        Ok(false)
    }
}

/// Reads place and epoch of the newest message; one that is no frame of ours counts as old.
async fn last(stream: &Stream, subject: &str) -> Result<Option<(u64, i64)>, CleanError> {
    let Some(message) = last_message(stream, subject).await? else {
        return Ok(None);
    };
    let payload = &message.payload;
    let epoch = match RowFrame::decode(payload) {
        Ok(frame) => frame.epoch,
        Err(_) => EstimateFrame::decode(payload).map_or(0, |frame| frame.epoch),
    };
    Ok(Some((message.sequence, epoch)))
}

async fn last_message(stream: &Stream, subject: &str) -> Result<Option<StreamMessage>, CleanError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => {
            let what = "tell the last message of a battery";
            Err(BusError::request(what)(error).into())
        }
    }
}
