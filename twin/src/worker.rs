//! Hop 6 of 7: one worker per registered estimator, for as long as it is registered.
//!
//! In: deliveries of the fleet, or past rows of [`catch_up`](crate::catch_up). Out: estimate frames
//! on the bus and a [`Report`]. A row that makes no step is counted with its reason. Whatever happens
//! to a worker, it goes on from its last checkpoint: rows it estimates again give the same
//! estimates. What it does with the rows of one registration stands in `run.rs`.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use rovi_common::{name::EstimatorName, registration::Registration, subjects};

use crate::{
    checkpoint::Found,
    estimates::Stopped,
    fleet::{Battery, Delivery, Shared},
    mailbox::{Mailbox, Told},
    run::Run,
    runner::{Definition, Failure},
    status::{Phase, Report},
};

const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long a script that fails again and again waits at most.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What a worker is started with.
#[derive(Debug)]
pub struct Worker {
    /// What every worker uses.
    pub shared: Arc<Shared>,
    /// The battery.
    pub battery: Arc<Battery>,
    /// Its estimator.
    pub estimator: EstimatorName,
    /// What it is told, and where it tells its state.
    pub mailbox: Arc<Mailbox>,
}

/// Why a worker stops what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The service stops.
    Stopped,
    /// The registration was replaced or removed.
    Replaced,
    /// Another twin wrote the checkpoint: its state is taken over.
    TakenOver,
    /// The estimator cannot go on; the report says why.
    Failed,
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Worker {
    /// Returns when the worker has to stop what it does.
    pub(crate) async fn interrupted(&self) -> End {
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => End::Stopped,
            end = self.mailbox.interrupted() => end,
        }
    }

    /// Returns what happens next; frames go into `deliveries`, at most `most` at once.
    pub(crate) async fn told(&self, deliveries: &mut Vec<Arc<Delivery>>, most: usize) -> Told {
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Told::End(End::Stopped),
            told = self.mailbox.told(deliveries, most) => told,
        }
    }

    /// Waits, unless the worker has to stop.
    pub(crate) async fn pause(&self, time: Duration) -> Result<(), End> {
        tokio::select! {
            end = self.interrupted() => Err(end),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Tells why the estimator cannot go on.
    pub(crate) fn fail(&self, failure: &Failure) {
        tracing::warn!("{}.{}: {failure}", self.battery.name, self.estimator);
        self.battery.hold_back(&self.estimator);
        self.shared.metrics.script_failures.inc();
        self.report(|report| {
            report.phase = Phase::Broken;
            report.last_error = Some(failure.to_string());
        });
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut Report)) {
        self.mailbox.say(change);
        self.shared.outlet.touch(&self.battery.name);
    }
}

/// Runs the estimator of whatever registration is in force, until it is removed.
///
/// What it waits for takes its room only then: there may be thousands of estimators.
pub async fn run(worker: Worker) {
    let mut wait = TRY_AGAIN;
    let mut failure = None;
    loop {
        let Some(registration) = worker.mailbox.take_registration() else {
            return Box::pin(remove_checkpoint(&worker)).await;
        };
        let began = Instant::now();
        let last_error = failure.take();
        worker.mailbox.say(|report| {
            *report = Report {
                revision: registration.revision,
                last_error,
                ..Report::default()
            };
        });
        let served = AssertUnwindSafe(Box::pin(serve(&worker, &registration))).catch_unwind();
        match served.await {
            Ok(End::Stopped) => return,
            Ok(End::Replaced) => wait = TRY_AGAIN,
            Ok(End::TakenOver) => {
                // Time to hear that the partition is another's, if it is: then this worker ends.
                wait = TRY_AGAIN;
                if Box::pin(worker.pause(TRY_AGAIN)).await == Err(End::Stopped) {
                    return;
                }
            }
            Ok(End::Failed) => {
                if began.elapsed() > LONGEST_WAIT {
                    wait = TRY_AGAIN;
                }
                match Box::pin(worker.pause(wait)).await {
                    Err(End::Stopped) => return,
                    Err(_replaced) => wait = TRY_AGAIN,
                    Ok(()) => {
                        wait = (wait * 2).min(LONGEST_WAIT);
                        failure.clone_from(&worker.mailbox.report().last_error);
                    }
                }
            }
            Err(_panic) => {
                let (battery, estimator) = (&worker.battery.name, &worker.estimator);
                tracing::error!("estimator {estimator} of {battery} failed; it starts again");
                worker.battery.hold_back(&worker.estimator);
                worker.report(|report| {
                    report.last_error = Some("the estimator failed and starts again".to_owned());
                    report.is_troubled = true;
                });
                if Box::pin(worker.pause(TRY_AGAIN)).await == Err(End::Stopped) {
                    return;
                }
            }
        }
    }
}

async fn remove_checkpoint(worker: &Worker) {
    let key = subjects::estimator_key(&worker.battery.name, &worker.estimator);
    let checkpoints = &worker.shared.checkpoints;
    let removed = match checkpoints.read(&key).await {
        Ok(Found {
            checkpoint: Some(checkpoint),
            entry,
        }) => {
            let (battery, estimator) = (&worker.battery.name, &worker.estimator);
            for kept in checkpoint.ring.keys(battery, estimator) {
                // One that stays is not used.
                let _forgotten = checkpoints.forget(&kept).await;
            }
            checkpoints.remove(&key, &entry).await
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::info!("checkpoint {key} stays behind and will not be used: {error}");
    }
}

/// Serves one registration.
async fn serve(worker: &Worker, registration: &Arc<Registration>) -> End {
    let (definition, warnings) = match Definition::of(registration, &worker.shared.documents) {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("{}.{}: {error}", worker.battery.name, worker.estimator);
            worker.report(|report| {
                report.phase = Phase::Broken;
                report.last_error = Some(error);
            });
            return worker.interrupted().await;
        }
    };
    worker.report(|report| report.warnings = warnings);
    let shared = Arc::clone(&worker.shared);
    let prepared = tokio::select! {
        end = worker.interrupted() => return end,
        prepared = Box::pin(definition.prepare(&shared)) => prepared,
    };
    if let Err(failure) = prepared {
        worker.fail(&failure);
        return End::Failed;
    }
    let found = match Box::pin(read_checkpoint(worker)).await {
        Ok(found) => found,
        Err(end) => return end,
    };
    let mut run = Run::new(worker, registration, definition, found);
    match run.follow_or_rest().await {
        Ok(never) => match never {},
        Err(End::Stopped) => {
            // The state is kept in any case; what is not saved now is estimated again.
            let _saved = Box::pin(run.save()).await;
            End::Stopped
        }
        Err(end) => Box::pin(run.leave(end)).await,
    }
}

async fn read_checkpoint(worker: &Worker) -> Result<Found, End> {
    let key = subjects::estimator_key(&worker.battery.name, &worker.estimator);
    let checkpoints = worker.shared.checkpoints.clone();
    let mut known = worker.shared.knows_corrections.subscribe();
    tokio::select! {
        end = worker.interrupted() => return Err(end),
        _known = known.wait_for(|known| *known) => {}
    }
    loop {
        let read = tokio::select! {
            end = worker.interrupted() => return Err(end),
            read = checkpoints.read(&key) => read,
        };
        match read {
            Ok(found) => return Ok(found),
            Err(error) => worker.report(|report| {
                report.last_error = Some(error.to_string());
                report.is_troubled = true;
            }),
        }
        worker.pause(TRY_AGAIN).await?;
    }
}
