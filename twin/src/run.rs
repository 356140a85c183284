//! Hop 6 of 7: one estimator under one registration: frames in, then estimates to the bus, the
//! checkpoint, and the acknowledgements, in this order.

use std::{
    borrow::Borrow,
    convert::Infallible,
    panic,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use rovi_common::{
    corrections::Corrections,
    files,
    frame::{Lineage, RowFrame},
    registration::Registration,
    subjects,
};
use rovi_python::Cancel;
use tokio::time::MissedTickBehavior;

mod rewind;
mod wiped;

use crate::{
    catch_up::catch_up,
    checkpoint::{Checkpoint, CheckpointError, Entry, Found, Origin},
    estimates::{Outbox, Publisher, Sender},
    filter::{Continuity, Filter, Position, Progress, Rules},
    fleet::{Delivery, Receipt},
    inputs::Skip,
    mailbox::Told,
    order::Late,
    ring::{Recomputation, Ring},
    runner::{Definition, Failure, Runner, Saved},
    status::{HealthStatus, Phase, Report, TrustStatus},
    worker::{End, Worker},
};

/// The generation of a first pass over the rows.
const FIRST_GENERATION: i64 = 1;
/// Deliveries taken from the mailbox at once.
const DELIVERIES_AT_ONCE: usize = 16;
/// Frames that wait for a checkpoint before one is made early.
const MOST_RECEIPTS: usize = 4096;
const LONG_FIRST_STEP_S: f64 = 3600.0;

/// What moves to another thread for long work.
#[derive(Debug)]
struct Steps {
    runner: Runner,
    outbox: Outbox,
    late: Late,
}

/// What became of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They were dealt with.
    All,
    /// The run went back to rows before them, which are to be read again.
    WentBack,
}

/// One estimator under one registration.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) origin: Origin,
    /// Since when it reads past rows without giving way.
    pub(crate) turn_began: Instant,
    registration: Arc<Registration>,
    definition: Definition,
    steps: Option<Box<Steps>>,
    generation: i64,
    /// Whether the generation is one that no run before this one spoke in.
    is_alone: bool,
    /// The newest correction of rows that is heeded.
    corrections: i64,
    /// What was told of corrections before the rows in hand were read.
    told: Arc<Corrections>,
    ring: Ring,
    recomputation: Option<Recomputation>,
    /// What makes the estimates.
    lineage: Arc<Lineage>,
    publisher: Publisher,
    /// Generation and last row of what the bus was told.
    said: Option<(i64, i64)>,
    entry: Entry,
    receipts: Vec<Arc<Receipt>>,
    unsaved_since: Option<Instant>,
    trouble: Option<String>,
    warnings: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        worker: &'a Worker,
        registration: &Arc<Registration>,
        definition: Definition,
        found: Found,
    ) -> Self {
        let sender = sender(worker, registration, FIRST_GENERATION);
        let (documents, text) = (&worker.shared.documents, &registration.definition);
        let lineage = documents.lineage(text, || Lineage {
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            definition: files::digest(text.as_bytes()),
            horizon: worker.shared.settings.horizon.as_secs_f64(),
            rows_from: 0,
        });
        let publisher = Publisher::new(Arc::clone(&worker.shared), &sender);
        let (warnings, worker_trouble) = {
            let report = worker.mailbox.report();
            (report.warnings.len(), report.last_error.clone())
        };
        let told = worker.battery.corrections();
        let mut run = Self {
            worker,
            origin: Origin::default(),
            turn_began: Instant::now(),
            registration: Arc::clone(registration),
            definition,
            steps: None,
            generation: FIRST_GENERATION,
            is_alone: false,
            corrections: 0,
            told,
            ring: Ring::default(),
            recomputation: None,
            lineage,
            publisher,
            said: None,
            entry: found.entry,
            receipts: Vec::new(),
            unsaved_since: None,
            // A failure is shown until the estimator is past it.
            trouble: worker_trouble,
            warnings,
        };
        if let Some(checkpoint) = found.checkpoint {
            run.restore(checkpoint);
        }
        run.tell(Phase::CatchingUp);
        run
    }

    fn restore(&mut self, checkpoint: Checkpoint) {
        if checkpoint.revision != self.registration.revision {
            return;
        }
        let Checkpoint {
            origin,
            generation,
            corrections,
            late,
            ring,
            recomputation,
            progress,
            snapshot,
            ..
        } = checkpoint;
        match self.definition.restore(self.rules(), (snapshot, progress)) {
            Ok(runner) => {
                self.origin = origin;
                (self.generation, self.corrections) = (generation, corrections);
                (self.ring, self.recomputation) = (ring, recomputation);
                self.begin(runner);
                if let Some(steps) = &mut self.steps {
                    steps.late = late;
                }
            }
            Err(error) => tracing::warn!(
                "checkpoint of {}.{} is left out, the rows are read again: {error}",
                self.worker.battery.name,
                self.worker.estimator
            ),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            valid_from: self.registration.valid_from,
            horizon: self.worker.shared.settings.horizon.as_secs_f64(),
        }
    }

    fn begin(&mut self, runner: Runner) {
        let sender = sender(self.worker, &self.registration, self.generation);
        let states = Arc::clone(runner.state_names());
        let outbox = match runner.native() {
            Some(_) => Outbox::with_health(sender, states),
            None => Outbox::new(sender, states),
        };
        let next = runner.position().seq + 1;
        let anew = self
            .recomputation
            .map(|anew| (next.max(anew.from_seq), anew.to_seq));
        self.steps = Some(Box::new(Steps {
            runner,
            outbox: outbox.made_by(Arc::clone(&self.lineage)).replacing(anew),
            late: Late::default(),
        }));
    }

    /// Begins with the first row of an epoch, unless a row was dealt with before.
    pub(crate) fn begin_at(&mut self, epoch: i64) {
        if self.steps.is_none() {
            self.begin_epoch(epoch);
            self.begin(self.definition.begin(self.rules(), epoch));
        }
    }

    /// Returns the last row dealt with, if the run has begun.
    pub(crate) fn position(&self) -> Option<Position> {
        self.steps.as_ref().map(|steps| steps.runner.position())
    }

    /// Goes on behind rows that nobody holds any more.
    pub(crate) fn pass_over_gone(&mut self, epoch: i64, up_to: i64) {
        let Some(steps) = &mut self.steps else {
            return;
        };
        if steps.runner.pass_over_gone(epoch, up_to) {
            tracing::warn!(
                "{}.{}: the rows up to {up_to} are gone from bus and hub",
                self.worker.battery.name,
                self.worker.estimator
            );
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// Goes on behind rows that were deleted by hand.
    pub(crate) fn pass_over_deleted(&mut self, up_to: i64) {
        if let Some(steps) = &mut self.steps
            && steps.runner.position().seq < up_to
        {
            steps.runner.pass_over(up_to);
            steps.outbox.reached((steps.runner.position().epoch, up_to));
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// Shows the last saved state, and takes no rows until the registration changes.
    async fn rest(&mut self) -> Result<Infallible, End> {
        self.worker.battery.hold_back(&self.worker.estimator);
        let left = self.worker.mailbox.take_frames(usize::MAX);
        let left = left.iter().map(|delivery| Arc::clone(&delivery.receipt));
        self.receipts.extend(left);
        self.release().await;
        self.tell(Phase::Paused);
        Err(self.worker.interrupted().await)
    }

    /// Does what the registration says: takes rows, or rests while it is paused.
    pub(crate) async fn follow_or_rest(&mut self) -> Result<Infallible, End> {
        if self.registration.standing.paused {
            Box::pin(self.rest()).await
        } else {
            self.follow().await
        }
    }

    /// Ends the run; the state of one that is only paused is saved.
    pub(crate) async fn leave(&mut self, end: End) -> End {
        if end == End::Replaced && self.is_paused_now() {
            // What is not saved now is estimated again when it is resumed.
            let _saved = self.save().await;
        }
        self.release().await;
        end
    }

    /// Whether the registration that replaces this one only pauses it.
    fn is_paused_now(&self) -> bool {
        let registration = self.worker.mailbox.registration();
        registration
            .is_some_and(|next| next.standing.paused && next.revision == self.registration.revision)
    }

    /// Takes the rows as they come, and past ones whenever some are missing.
    async fn follow(&mut self) -> Result<Infallible, End> {
        let mut tick = tokio::time::interval(self.worker.shared.settings.checkpoint_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is done takes its memory only then: there may be thousands of estimators, and most of
        // them wait.
        Box::pin(self.warm_up()).await?;
        Box::pin(catch_up(self)).await?;
        loop {
            let mut deliveries = Vec::new();
            let told = tokio::select! {
                biased;
                _ = tick.tick() => {
                    Box::pin(self.save()).await?;
                    continue;
                }
                told = self.worker.told(&mut deliveries, DELIVERIES_AT_ONCE) => told,
            };
            let is_behind = match told {
                Told::End(end) => return Err(end),
                Told::FellBehind => true,
                Told::Corrected => Box::pin(self.heed_corrections()).await? == Taken::WentBack,
                Told::Delivered => Box::pin(self.take_deliveries(&mut deliveries)).await?,
            };
            if is_behind {
                Box::pin(catch_up(self)).await?;
            }
        }
    }

    /// Starts a script that goes on from a checkpoint, so that its belief can be shown before the next row.
    async fn warm_up(&mut self) -> Result<(), End> {
        let Some(mut steps) = self.steps.take() else {
            return Ok(());
        };
        if let Some(canceller) = steps.runner.canceller() {
            let work = move || steps.runner.start().map(|()| steps);
            match self.elsewhere(work, Some(canceller)).await? {
                Ok(started) => steps = started,
                Err(Failure::Raised(reason)) => {
                    let (battery, estimator) = (&self.worker.battery.name, &self.worker.estimator);
                    tracing::warn!(
                        "checkpoint of {battery}.{estimator} is left out, the rows are read again: {reason}"
                    );
                    self.origin = Origin::default();
                    return Ok(());
                }
                Err(failure) => return Err(self.fail(&failure)),
            }
        }
        self.steps = Some(steps);
        Ok(())
    }

    /// Takes frames that wait in the mailbox without waiting for more.
    pub(crate) async fn empty_mailbox(&mut self) -> Result<(), End> {
        loop {
            let mut deliveries = self.worker.mailbox.take_frames(DELIVERIES_AT_ONCE);
            if deliveries.is_empty() {
                return Ok(());
            }
            let _gap = self.take_deliveries(&mut deliveries).await?;
        }
    }

    /// Takes the frames that continue; tells whether rows are missing before one.
    async fn take_deliveries(&mut self, deliveries: &mut Vec<Arc<Delivery>>) -> Result<bool, End> {
        let mut frames = Vec::with_capacity(deliveries.len());
        let mut is_gap = false;
        let corrections = self.worker.battery.corrections();
        self.told = Arc::clone(&corrections);
        let mut position = self.position();
        let mut origin = self.origin.clone();
        for delivery in deliveries.drain(..) {
            self.receipts.push(Arc::clone(&delivery.receipt));
            let frame = &delivery.frame;
            match continuity(position, frame) {
                Continuity::Old => origin.advance(&delivery.origin),
                // The table may have other rows than the frame.
                Continuity::Next if is_corrected(&corrections, frame) => is_gap = true,
                Continuity::Next => {
                    origin.advance(&delivery.origin);
                    position = Some(end_of(frame));
                    frames.push(Arc::clone(frame));
                }
                Continuity::Gap | Continuity::NewEpoch => is_gap = true,
            }
        }
        if !frames.is_empty() && self.take(frames).await? == Taken::WentBack {
            return Ok(true);
        }
        self.origin = origin;
        if self.receipts.len() >= MOST_RECEIPTS {
            self.save().await?;
        }
        Ok(is_gap)
    }

    /// Makes estimates of frames that continue, and hands them to the bus.
    pub(crate) async fn take(&mut self, frames: Vec<Arc<RowFrame>>) -> Result<Taken, End> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(Taken::All);
        };
        self.begin_at(first.epoch);
        if self
            .position()
            .is_some_and(|position| position.epoch < last.epoch)
        {
            self.steps = None;
            self.begin_at(last.epoch);
        }
        if self.look_for_late(&frames).await? == Taken::WentBack {
            return Ok(Taken::WentBack);
        }
        let rows_from = first.first_seq;
        let Some(mut steps) = self.steps.take() else {
            return Ok(Taken::All);
        };
        let before = steps.runner.progress().clone();
        let rows: usize = frames.iter().map(|frame| frame.received.len()).sum();
        let (is_quick, canceller) = (steps.runner.is_quick(rows), steps.runner.canceller());
        let work = move || {
            let Steps {
                runner,
                outbox,
                late,
            } = &mut *steps;
            // Frames of estimates may be closed before all rows are dealt with.
            outbox.made_from(runner.progress().first_seq.unwrap_or(rows_from));
            for frame in &frames {
                late.take(runner, frame, outbox)?;
            }
            let Position { epoch, seq } = runner.position();
            outbox.reached((epoch, seq));
            let last = outbox.last_row();
            let estimates = steps.outbox.take();
            Ok((steps, estimates, last))
        };
        let done = if is_quick {
            work()
        } else {
            self.elsewhere(work, canceller).await?
        };
        let (steps, (estimate_frames, estimates), last) =
            done.map_err(|failure| self.fail(&failure))?;
        self.said = last.map(|seq| (self.generation, seq)).or(self.said);
        self.count(&before, steps.runner.progress(), estimates);
        self.steps = Some(steps);
        self.unsaved_since.get_or_insert_with(Instant::now);
        for frame in estimate_frames {
            self.publisher.send(frame).await?;
        }
        self.tell_on();
        self.keep_state_if_due().await?;
        Ok(Taken::All)
    }

    /// Counts what was made of rows.
    fn count(&self, before: &Progress, progress: &Progress, estimates: u64) {
        let metrics = &self.worker.shared.metrics;
        metrics
            .rows
            .inc_by(progress.rows.saturating_sub(before.rows));
        metrics
            .steps
            .inc_by(progress.steps.saturating_sub(before.steps));
        metrics.estimates.inc_by(estimates);
        for (skip, &count) in &progress.skipped {
            let known = before.skipped.get(skip).copied().unwrap_or_default();
            let counter = metrics.skipped.with_label_values(&[skip.as_str()]);
            counter.inc_by(count.saturating_sub(known));
        }
    }

    /// Does work on a thread that may be blocked; a script's work is broken off when the worker has to stop.
    async fn elsewhere<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        canceller: Option<Cancel>,
    ) -> Result<T, End> {
        let mut task = tokio::task::spawn_blocking(work);
        let done = match canceller {
            None => task.await,
            Some(cancel) => tokio::select! {
                done = &mut task => done,
                end = self.worker.interrupted() => {
                    cancel.store(true, Ordering::Relaxed);
                    // What it did is of no use: the next run goes on from the checkpoint.
                    let _unused = task.await;
                    return Err(end);
                }
            },
        };
        match done {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Err(_runtime_ended) => Err(End::Stopped),
        }
    }

    /// Tells why the estimator cannot go on.
    fn fail(&self, failure: &Failure) -> End {
        self.worker.fail(failure);
        End::Failed
    }

    /// Counts rows that were read by the estimator itself.
    pub(crate) fn count_past_rows<F: Borrow<RowFrame>>(&self, source: &str, frames: &[F]) {
        let rows: usize = frames
            .iter()
            .map(|frame| frame.borrow().received.len())
            .sum();
        let metrics = &self.worker.shared.metrics;
        let counter = metrics.caught_up_rows.with_label_values(&[source]);
        counter.inc_by(u64::try_from(rows).unwrap_or_default());
    }

    /// Saves once a checkpoint is due.
    pub(crate) async fn save_if_due(&mut self) -> Result<(), End> {
        let interval = self.worker.shared.settings.checkpoint_interval;
        match self.unsaved_since {
            Some(since) if since.elapsed() >= interval => self.save().await,
            _ => Ok(()),
        }
    }

    /// Waits for the bus to have all estimates, puts the checkpoint, acknowledges the frames.
    ///
    /// A checkpoint that cannot be written now is tried again at the next tick; until then nothing
    /// is acknowledged.
    pub(crate) async fn save(&mut self) -> Result<(), End> {
        self.publisher.settle().await?;
        if self.unsaved_since.is_some() {
            self.send_rest().await?;
            let state = self.state().await?;
            if let Some(state) = &state {
                self.keep_state(state).await;
            }
            match Box::pin(self.write_checkpoint(state)).await {
                Ok(entry) => {
                    self.entry = entry;
                    self.unsaved_since = None;
                    self.worker.shared.metrics.checkpoints.inc();
                    self.trouble(None);
                    self.tell_on();
                }
                Err(CheckpointError::Away(problem)) => {
                    self.worker.shared.metrics.checkpoint_failures.inc();
                    self.trouble(Some(format!("checkpoint: {problem}")));
                    return Ok(());
                }
                Err(CheckpointError::Conflict) => return Err(End::TakenOver),
            }
        }
        self.release().await;
        Ok(())
    }

    /// Sends what is to be said of rows that were deleted, behind which no others came.
    async fn send_rest(&mut self) -> Result<(), End> {
        let Some(steps) = &mut self.steps else {
            return Ok(());
        };
        let last = steps.outbox.last_row();
        let rest = steps.outbox.take().0;
        self.said = last.map(|seq| (self.generation, seq)).or(self.said);
        for frame in rest {
            self.publisher.send(frame).await?;
        }
        self.publisher.settle().await?;
        Ok(())
    }

    /// Acknowledges frames without a checkpoint: the run that follows reads them from the stream.
    pub(crate) async fn release(&mut self) {
        for receipt in self.receipts.drain(..) {
            receipt.done().await;
        }
    }

    /// Returns what a checkpoint holds, or nothing where the estimator cannot save its state.
    async fn state(&mut self) -> Result<Option<(Saved, Progress)>, End> {
        let Some(mut steps) = self.steps.take() else {
            return Ok(None);
        };
        let canceller = steps.runner.canceller();
        let work = move || {
            let saved = steps.runner.save();
            (steps, saved)
        };
        let (steps, saved) = match canceller {
            None => work(),
            // It is short: also a service that stops waits for it.
            Some(_) => self.elsewhere(work, None).await?,
        };
        self.steps = Some(steps);
        saved.map_err(|failure| self.fail(&failure))
    }

    async fn write_checkpoint(
        &self,
        state: Option<(Saved, Progress)>,
    ) -> Result<Entry, CheckpointError> {
        let Some(state) = state else {
            return Ok(self.entry.clone());
        };
        let checkpoint = self.checkpoint(state);
        let key = subjects::estimator_key(&self.worker.battery.name, &self.worker.estimator);
        let checkpoints = &self.worker.shared.checkpoints;
        match checkpoints.write(&key, &checkpoint, &self.entry).await {
            Err(CheckpointError::Conflict) => {}
            answered => return answered,
        }
        // The bucket was wiped, an own write went through unheard, or another twin is at work: that
        // one has the battery, unless it wrote for an older registration.
        let found = checkpoints.read(&key).await?;
        let is_lost = found.checkpoint.is_some_and(|theirs| {
            let is_anothers = theirs.by != checkpoint.by && theirs.revision >= checkpoint.revision;
            is_anothers || order(&theirs) > order(&checkpoint)
        });
        if is_lost {
            return Err(CheckpointError::Conflict);
        }
        checkpoints.write(&key, &checkpoint, &found.entry).await
    }

    /// Tells what goes wrong with bus or hub, or that nothing does any more.
    pub(crate) fn trouble(&mut self, problem: Option<String>) {
        if self.trouble != problem {
            if let Some(problem) = &problem {
                let (battery, estimator) = (&self.worker.battery.name, &self.worker.estimator);
                tracing::warn!("{battery}.{estimator}: {problem}");
            }
            self.trouble = problem;
        }
        self.worker.report(|report| self.show_trouble(report));
    }

    /// What goes wrong is told at any moment; the state only where a generation is decided, so that
    /// nobody sees one that another twin may prevent.
    fn show_trouble(&self, report: &mut Report) {
        report.unsaved_since = self.unsaved_since;
        report.is_troubled = self.trouble.is_some();
        report.last_error.clone_from(&self.trouble);
        if let Some(steps) = self.steps.as_ref().filter(|_| self.trouble.is_none()) {
            let progress = steps.runner.progress();
            report.last_error.clone_from(&progress.last_refusal);
            report.is_troubled = progress.refuses_all();
        }
    }

    /// Puts the present state into the report, doing what it did.
    pub(crate) fn tell_on(&self) {
        let phase = self.worker.mailbox.report().phase;
        self.tell(phase);
    }

    /// Puts the present state into the report.
    pub(crate) fn tell(&self, phase: Phase) {
        self.worker.report(|report| {
            report.phase = phase;
            report.generation = self.generation;
            report.corrections = self.corrections;
            report.recomputation = self.recomputation;
            report.lineage = Some(Arc::clone(&self.lineage));
            self.show_trouble(report);
            let Some(steps) = &self.steps else {
                report.state_names = self.definition.state_names();
                return;
            };
            let (runner, progress) = (&steps.runner, steps.runner.progress());
            let (mean, covariance) = runner.belief();
            report.position = Some(progress.position);
            report.rows_from = progress.first_seq;
            report.state_names = Arc::clone(runner.state_names());
            report.latest_time = runner.latest_time();
            report.mean.clear();
            report.mean.extend_from_slice(mean);
            report.covariance.clear();
            report.covariance.extend_from_slice(covariance);
            report.innovation = progress.innovation;
            let native = runner.native();
            report.trust = native.map(|filter| TrustStatus::of(filter.estimator()));
            report.health = native.map(|filter| HealthStatus::from(&filter.estimator().health()));
            report.gathered = native.and_then(Filter::gathered);
            report.found.clone_from(&progress.found);
            report.skipped.clone_from(&progress.skipped);
            (report.rows, report.steps) = (progress.rows, progress.steps);
            report.warnings.truncate(self.warnings);
            if let Some(gone) = progress.skipped.get(&Skip::Gone) {
                report.warnings.push(format!(
                    "{gone} rows were gone from bus and hub before they could be used"
                ));
            }
            if let Some(late) = progress.skipped.get(&Skip::LateBeyondHorizon) {
                report.warnings.push(format!(
                    "{late} rows came later than {} s and are not used",
                    self.lineage.horizon
                ));
            }
            report
                .warnings
                .extend(runner.warning().map(ToOwned::to_owned));
            if let Some(seconds) = progress.first_step
                && seconds > LONG_FIRST_STEP_S
            {
                report.warnings.push(format!(
                    "initial_inputs.time: the first row came {seconds} s later, a long first step"
                ));
            }
        });
    }
}

/// The order of checkpoints: a newer registration, then the row further ahead.
fn order(checkpoint: &Checkpoint) -> (i64, i64, Position) {
    let position = checkpoint.progress.position;
    (checkpoint.revision, checkpoint.generation, position)
}

/// Whether the table may have other rows than a frame of the stream.
pub(crate) fn is_corrected(corrections: &Corrections, frame: &RowFrame) -> bool {
    corrections.touch(frame.epoch, frame.first_seq, frame.last_seq())
}

fn sender(worker: &Worker, registration: &Registration, generation: i64) -> Sender {
    Sender {
        battery: worker.battery.name.clone(),
        estimator: worker.estimator.clone(),
        revision: registration.revision,
        generation,
    }
}

/// How a frame stands to a position; the first row of a new epoch continues any.
pub(crate) fn continuity(position: Option<Position>, frame: &RowFrame) -> Continuity {
    let found = match position {
        Some(position) => position.continuity(frame.epoch, frame.first_seq, frame.last_seq()),
        None => Continuity::NewEpoch,
    };
    if found == Continuity::NewEpoch && frame.first_seq == 1 {
        return Continuity::Next;
    }
    found
}

/// The position after a frame.
pub(crate) fn end_of(frame: &RowFrame) -> Position {
    Position {
        epoch: frame.epoch,
        seq: frame.last_seq(),
    }
}
