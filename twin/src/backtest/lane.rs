//! One estimator on its way through the rows of a backtest, on a thread of its own for each page.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use rovi_common::registration::Registration;

use super::{
    figures::{Side, Sums},
    read::Page,
};
use crate::{
    ahead::{Ahead, largest_of},
    estimates::{Outbox, Sender, Shown},
    filter::Rules,
    fleet::Shared,
    runner::{Definition, Failure, Runner},
    state::values_of,
    status::HealthStatus,
};

/// Pages that wait for late rows at most: rows that come later than so many pages are left out.
const MOST_PAGES: usize = 16;

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
    ahead: Ahead,
    /// Pages before whose end late rows may yet be found.
    waiting: VecDeque<Page>,
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
            ahead: Ahead::new(rules, epoch),
            waiting: VecDeque::new(),
            shown: VecDeque::new(),
        })
    }

    /// Takes the next rows on another thread.
    ///
    /// # Errors
    /// Why the estimator cannot go on, a panic among the reasons.
    pub(super) async fn take(self, frames: Page) -> Result<Self, String> {
        let take = |lane: &mut Self| {
            lane.ahead.look(&frames);
            lane.waiting.push_back(frames);
            lane.go_on(MOST_PAGES)
        };
        self.elsewhere(take).await
    }

    /// Deals with what waits for late rows that might have come.
    ///
    /// # Errors
    /// As [`Lane::take`].
    pub(super) async fn finish(self) -> Result<Self, String> {
        self.elsewhere(|lane| lane.go_on(0)).await
    }

    /// Deals with pages before whose end no late row can have its place any more, and with more
    /// where too many wait.
    fn go_on(&mut self, most: usize) -> Result<(), Failure> {
        while let Some(page) = self.waiting.front() {
            let end = page.last();
            let end = end.and_then(|frame| Some((frame.segment, largest_of(frame)?)));
            let is_due = end.is_none_or(|end| self.ahead.has_all_before(end));
            if !is_due && self.waiting.len() <= most {
                break;
            }
            let page = self.waiting.pop_front().unwrap_or_default();
            for frame in page.iter() {
                self.ahead.take(&mut self.runner, frame, &mut self.outbox)?;
            }
            self.shown.extend(self.outbox.take_shown());
        }
        Ok(())
    }

    /// Works on another thread.
    async fn elsewhere(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Self, String> {
        let name = self.name();
        let mut break_off = BreakOff(self.runner.canceller());
        let (sender, answer) = tokio::sync::oneshot::channel();
        let work = tokio::task::spawn_blocking(move || {
            let done = work(&mut self);
            // Whoever asked may have been cancelled meanwhile.
            let _gone = sender.send(done.map(|()| self));
        });
        let done = (work.await, answer.await);
        // It was waited for: the next work on the same script must not find it broken off.
        break_off.0 = None;
        match done {
            (Ok(()), Ok(done)) => done.map_err(|failure| format!("{name}: {failure}")),
            _ => Err(format!("{name} failed; the service's log says where")),
        }
    }

    /// Shows what the estimator did and where it ended; `sums` are those of the rows compared.
    pub(super) fn side(&self, sums: &Sums) -> Side {
        let progress = self.runner.progress();
        let skipped = progress.skipped.iter();
        let (voltage, consistency) = sums.figures().unzip();
        let named = self.registration.revision > 0;
        let health = self.runner.native();
        let health = health.map(|filter| HealthStatus::from(&filter.estimator().health()));
        let (states, belief) = (self.runner.state_names(), self.runner.belief());
        Side {
            estimator: named.then(|| self.registration.estimator.to_string()),
            revision: self.registration.revision,
            steps: progress.steps,
            skipped: skipped
                .map(|(skip, &count)| (skip.to_string(), count))
                .collect(),
            voltage,
            consistency,
            end: values_of(states, belief, health.as_ref())
                .into_iter()
                .collect(),
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
