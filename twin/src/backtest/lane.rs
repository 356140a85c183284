//! One estimator on its way through the rows of a backtest, on a thread of its own for each page.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use rovi_common::{frame::RowFrame, registration::Registration};

use super::figures::{Side, Sums};
use crate::{
    estimates::{Outbox, Sender, Shown},
    filter::Rules,
    fleet::Shared,
    runner::{Definition, Runner},
    state::values_of,
};

/// Breaks a script's work off when nobody waits for it any more.
struct BreakOff(Option<rovi_python::Cancel>);

impl Drop for BreakOff {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.store(true, Ordering::Relaxed);
        }
    }
}

/// An estimator from its first row on.
#[derive(Debug)]
pub(super) struct Lane {
    registration: Arc<Registration>,
    runner: Runner,
    outbox: Outbox,
    /// What its steps showed and the other side has yet to show.
    pub(super) shown: VecDeque<Shown>,
}

impl Lane {
    /// Makes the estimator of a registration, or of a candidate in that form.
    ///
    /// # Errors
    /// Why it cannot be run.
    pub(super) async fn open(
        shared: &Shared,
        registration: Arc<Registration>,
        epoch: i64,
    ) -> Result<Self, String> {
        let (definition, _warnings) = Definition::of(&registration, &shared.documents)?;
        let prepared = definition.prepare(shared).await;
        prepared.map_err(|failure| failure.to_string())?;
        let rules = Rules {
            valid_from: registration.valid_from,
            horizon: shared.settings.horizon.as_secs_f64(),
        };
        let sender = Sender {
            battery: registration.battery.clone(),
            estimator: registration.estimator.clone(),
            revision: registration.revision,
            generation: 0,
        };
        Ok(Self {
            registration,
            runner: definition.begin(rules, epoch),
            outbox: Outbox::tap(sender),
            shown: VecDeque::new(),
        })
    }

    /// Takes rows on another thread.
    ///
    /// # Errors
    /// Why the estimator cannot go on, a panic among the reasons.
    pub(super) async fn take(mut self, frames: Arc<Vec<RowFrame>>) -> Result<Self, String> {
        let name = self.name();
        let _broken_off = BreakOff(self.runner.canceller());
        let (sender, answer) = tokio::sync::oneshot::channel();
        let work = tokio::task::spawn_blocking(move || {
            let mut failed = None;
            for frame in frames.iter() {
                if let Err(failure) = self.runner.take(frame, &mut self.outbox) {
                    failed = Some(failure.to_string());
                    break;
                }
            }
            self.shown.extend(self.outbox.take_shown());
            // Whoever asked may have been cancelled meanwhile.
            let _gone = sender.send(match failed {
                None => Ok(self),
                Some(reason) => Err(reason),
            });
        });
        match (work.await, answer.await) {
            (Ok(()), Ok(done)) => done.map_err(|reason| format!("{name}: {reason}")),
            _ => Err(format!("{name} failed; the service's log says where")),
        }
    }

    /// Shows what the estimator did and where it ended; `sums` are those of the rows compared.
    pub(super) fn side(&self, sums: &Sums) -> Side {
        let progress = self.runner.progress();
        let skipped = progress.skipped.iter();
        let (voltage, consistency) = sums.figures().unzip();
        let named = self.registration.revision > 0;
        Side {
            estimator: named.then(|| self.registration.estimator.to_string()),
            revision: self.registration.revision,
            steps: progress.steps,
            skipped: skipped
                .map(|(skip, &count)| (skip.to_string(), count))
                .collect(),
            voltage,
            consistency,
            end: values_of(&self.runner).into_iter().collect(),
            latest_time: self.runner.latest_time(),
        }
    }

    /// How messages call it.
    fn name(&self) -> String {
        match self.registration.revision {
            0 => "the candidate".to_owned(),
            _ => format!("estimator `{}`", self.registration.estimator),
        }
    }
}
