//! Going back: rows that came late, were corrected or deleted are put into the past by beginning
//! again from a checkpoint before them.
//!
//! Everything after that is another *generation*. It is decided by compare-and-set of the
//! estimator's checkpoint before anything of it is told, so that no two states ever speak under one
//! generation; and since it is the moment of the decision, it is greater than every one before even
//! where the checkpoints are lost. What older generations said of the rows concerned is taken back
//! with the estimates that replace it.
//!
//! A twin that died may have told more than its last checkpoint shows. So a run that goes on from a
//! checkpoint begins a generation of its own, too, before it heeds what the dead one may not have
//! known.

use std::{sync::Arc, time::Duration};

use rovi_common::{clock::now_us, corrections::Corrections, fault, frame::RowFrame, subjects};

use super::{Run, Taken};
use crate::{
    checkpoint::{CHECKPOINT_VERSION, Checkpoint, CheckpointError, Entry, Origin},
    filter::{Position, Progress},
    order::{Late, LateRow},
    ring::{Kept, ROWS_APART, ROWS_AT_MOST, Reason, Recomputation, Ring},
    runner::{Runner, Saved},
    worker::End,
};

const TRY_AGAIN: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Looks whether rows that were dealt with have been corrected or deleted since, and goes back
    /// before them.
    pub(crate) async fn heed_corrections(&mut self) -> Result<Taken, End> {
        let told = self.worker.battery.corrections();
        self.told = Arc::clone(&told);
        let Some(position) = self.position() else {
            return Ok(Taken::All);
        };
        if told.epoch != position.epoch || told.revision <= self.corrections {
            return Ok(Taken::All);
        }
        let first = told.since(self.corrections).map(|range| range.first).min();
        let is_known = |seq| {
            told.since(self.corrections)
                .any(|one| (one.first..=one.last).contains(&seq))
        };
        let seen = self.steps.as_ref().is_some_and(|steps| {
            let mut ahead = steps.late.after(position.seq);
            ahead.any(|row| is_known(row.seq()))
        });
        if !seen && first.is_none_or(|first| first > position.seq) {
            // They are read as they are now when it comes to them.
            self.corrections = told.revision;
            self.speak_alone(Reason::CorrectedRows).await?;
            self.tell_on();
            return Ok(Taken::All);
        }
        if let Some(steps) = &mut self.steps {
            steps.late.retain(|seq| !is_known(seq));
        }
        let before = first.filter(|first| *first <= position.seq);
        self.corrections = told.revision;
        self.go_back(Reason::CorrectedRows, before).await?;
        Ok(Taken::WentBack)
    }

    /// Looks for late rows before frames are taken, and goes back where their place is behind.
    pub(super) async fn look_for_late(&mut self, frames: &[Arc<RowFrame>]) -> Result<Taken, End> {
        let rules = self.rules();
        let Some(steps) = &mut self.steps else {
            return Ok(Taken::All);
        };
        let progress = steps.runner.progress();
        let found = steps.late.find(progress, frames, rules);
        if found.is_empty() {
            return Ok(Taken::All);
        }
        let is_ahead = |row: &LateRow| steps.late.is_ahead(row, progress);
        let is_in_time = found.iter().all(is_ahead);
        let seqs: Vec<i64> = found.iter().map(LateRow::seq).collect();
        steps.late.add(found);
        // Those for which there was no room are counted as late.
        let has_room = seqs.iter().any(|seq| steps.late.knows(*seq));
        if is_in_time || !has_room {
            self.speak_alone(Reason::LateRows).await?;
            return Ok(Taken::All);
        }
        self.go_back(Reason::LateRows, None).await?;
        Ok(Taken::WentBack)
    }

    /// Begins another generation at a checkpoint that has not seen row `before`, and after which all
    /// late rows that are known can still be put in their place; without any, at the first row.
    pub(super) async fn go_back(&mut self, reason: Reason, before: Option<i64>) -> Result<(), End> {
        let Some(steps) = self.steps.take() else {
            return Ok(());
        };
        let position = steps.runner.position();
        let (runner, origin) = loop {
            match self.ring.go_back(before, &steps.late) {
                None => {
                    break (
                        self.definition.begin(self.rules(), position.epoch),
                        Origin::default(),
                    );
                }
                Some(kept) => match self.read_kept(&kept).await? {
                    Some(found) => break found,
                    None => self.ring.forget_newest(),
                },
            }
        };
        self.origin = origin;
        let late = steps.late.before(runner.position().seq);
        tracing::info!(
            "{}.{} goes back from row {} to {}: {reason:?}",
            self.worker.battery.name,
            self.worker.estimator,
            position.seq,
            runner.position().seq
        );
        self.worker.shared.metrics.recomputations.inc();
        self.begin_generation(runner, late, (reason, position))
            .await?;
        self.warm_up().await
    }

    /// Begins another generation where the run is, unless its own is one that nobody else spoke in.
    async fn speak_alone(&mut self, reason: Reason) -> Result<(), End> {
        if self.is_alone {
            return Ok(());
        }
        let Some(steps) = self.steps.take() else {
            return Ok(());
        };
        let (late, position) = (steps.late, steps.runner.position());
        self.begin_generation(steps.runner, late, (reason, position))
            .await
    }

    /// Goes on with a state as another generation; `reached` is how far it was dealt with before.
    async fn begin_generation(
        &mut self,
        runner: Runner,
        late: Late,
        (reason, reached): (Reason, Position),
    ) -> Result<(), End> {
        let newest = self.worker.battery.newest();
        let newest = newest.filter(|newest| newest.epoch == reached.epoch);
        self.generation = (self.generation + 1).max(now_us());
        self.recomputation = Some(Recomputation {
            reason,
            from_seq: runner.position().seq + 1,
            to_seq: newest
                .map_or(0, |newest| newest.seq)
                .max(reached.seq)
                .max(self.told_up_to(reached.epoch)),
        });
        self.begin(runner);
        if let Some(steps) = &mut self.steps {
            steps.late = late;
        }
        fault::passed("twin.generation.before_checkpoint");
        self.decide_generation().await?;
        fault::passed("twin.generation.after_checkpoint");
        self.is_alone = true;
        Ok(())
    }

    /// Returns how far runs of before may have told of rows that are gone: a twin that takes over
    /// knows the newest row from no frame yet.
    fn told_up_to(&self, epoch: i64) -> i64 {
        let before = self.recomputation.map_or(0, |anew| anew.to_seq);
        let told: Arc<Corrections> = self.worker.battery.corrections();
        let corrected = told.since(0).map(|range| range.last).max();
        match corrected.filter(|_| told.epoch == epoch) {
            Some(last) => last.max(before),
            None => before,
        }
    }

    /// Writes the checkpoint of a new generation, unless somebody else wrote one meanwhile.
    async fn decide_generation(&mut self) -> Result<(), End> {
        let key = subjects::estimator_key(&self.worker.battery.name, &self.worker.estimator);
        let checkpoints = self.worker.shared.checkpoints.clone();
        loop {
            let decided = match self.state().await? {
                Some(state) => {
                    checkpoints
                        .write(&key, &self.checkpoint(state), &self.entry)
                        .await
                }
                // Nothing can be kept before it has started: whoever goes on begins anew, too.
                None if self.entry != Entry::default() => self.withdraw_checkpoint(&key).await,
                None => Ok(Entry::default()),
            };
            match decided {
                Ok(entry) => {
                    self.entry = entry;
                    self.unsaved_since = None;
                    return Ok(());
                }
                Err(CheckpointError::Conflict) => return Err(End::TakenOver),
                Err(CheckpointError::Away(problem)) => {
                    self.trouble(Some(format!("checkpoint: {problem}")));
                }
            }
            self.worker.pause(TRY_AGAIN).await?;
        }
    }

    /// Removes the checkpoint, unless somebody else wrote one meanwhile.
    async fn withdraw_checkpoint(&self, key: &str) -> Result<Entry, CheckpointError> {
        let checkpoints = &self.worker.shared.checkpoints;
        let removed = checkpoints.remove(key, &self.entry).await;
        let found = checkpoints.read(key).await?;
        match removed {
            Ok(()) if found.checkpoint.is_none() => Ok(found.entry),
            Err(error) if found.entry == self.entry => Err(error),
            _ => Err(CheckpointError::Conflict),
        }
    }

    /// Reads a checkpoint of before; nothing where it is lost or another one.
    async fn read_kept(&mut self, kept: &Kept) -> Result<Option<(Runner, Origin)>, End> {
        let key = kept.key(&self.worker.battery.name, &self.worker.estimator);
        let checkpoints = self.worker.shared.checkpoints.clone();
        loop {
            match checkpoints.read(&key).await {
                Ok(found) => {
                    let is_meant = |found: &Checkpoint| {
                        found.revision == self.registration.revision
                            && found.generation == kept.generation
                            && found.progress.position == kept.position
                    };
                    let Some(found) = found.checkpoint.filter(is_meant) else {
                        return Ok(None);
                    };
                    let state = (found.snapshot, found.progress);
                    let restored = self.definition.restore(self.rules(), state);
                    return Ok(restored.ok().map(|runner| (runner, found.origin)));
                }
                Err(error) => self.trouble(Some(error.to_string())),
            }
            self.worker.pause(TRY_AGAIN).await?;
        }
    }

    /// Keeps a state to go back to, where it is some rows behind the last one and has seen no row
    /// before its turn.
    pub(super) async fn keep_state(&mut self, state: &(Saved, Progress)) {
        let position = state.1.position;
        if !self.is_settled() || self.ring.distance(position) < ROWS_APART {
            return;
        }
        let kept = self.ring.place_for(self.generation, &state.1);
        let checkpoint = Checkpoint {
            ring: Ring::default(),
            ..self.checkpoint(state.clone())
        };
        let key = kept.key(&self.worker.battery.name, &self.worker.estimator);
        match self.worker.shared.checkpoints.put(&key, &checkpoint).await {
            Ok(()) => self.ring.add(kept),
            Err(error) => tracing::debug!("checkpoint {key} is not kept: {error}"),
        }
        let floor = self.ring.floor(&state.1, self.lineage.horizon);
        if let Some(steps) = &mut self.steps {
            steps.late.retain(|seq| seq > floor);
        }
    }

    /// Whether the present state has seen every row up to its position and none behind.
    fn is_settled(&self) -> bool {
        let steps = self.steps.as_ref();
        steps.is_some_and(|steps| steps.late.is_settled_at(steps.runner.position().seq))
    }

    /// Keeps a state between checkpoints while many rows come.
    pub(super) async fn keep_state_if_due(&mut self) -> Result<(), End> {
        let is_due = self.steps.as_ref().is_some_and(|steps| {
            steps.runner.native().is_some()
                && self.ring.distance(steps.runner.position()) >= ROWS_AT_MOST
        });
        if is_due
            && self.is_settled()
            && let Some(state) = self.state().await?
        {
            self.keep_state(&state).await;
        }
        Ok(())
    }

    /// Describes the present state.
    pub(super) fn checkpoint(&self, (snapshot, progress): (Saved, Progress)) -> Checkpoint {
        let seq = progress.position.seq;
        let late = self
            .steps
            .as_ref()
            .map(|steps| steps.late.needed_after(seq));
        Checkpoint {
            v: CHECKPOINT_VERSION,
            revision: self.registration.revision,
            generation: self.generation,
            by: self.worker.shared.instance.clone(),
            origin: self.origin.clone(),
            corrections: self.corrections,
            late: late.unwrap_or_default(),
            ring: self.ring.clone(),
            recomputation: self.recomputation,
            progress,
            snapshot,
        }
    }

    /// Begins to know of an epoch's corrections: nothing of it was dealt with yet.
    pub(super) fn begin_epoch(&mut self, epoch: i64) {
        // Rows in hand may have been read before corrections that are told only now: those are
        // heeded when this run comes to them.
        let told = Arc::clone(&self.told);
        self.corrections = if told.epoch == epoch {
            told.revision
        } else {
            0
        };
        let reached = self.recomputation.map_or(0, |anew| anew.to_seq);
        self.recomputation = None;
        self.ring.clear();
        if self.corrections == 0 {
            return;
        }
        // A run that left no checkpoint may have told of the rows as they were before, and of such
        // that are gone.
        let last = told.since(0).map(|range| range.last).max();
        self.recomputation = Some(Recomputation {
            reason: Reason::UnknownPast,
            from_seq: 1,
            to_seq: last.unwrap_or(0).max(reached),
        });
        if !self.is_alone {
            self.generation = (self.generation + 1).max(now_us());
            self.is_alone = true;
        }
    }
}
