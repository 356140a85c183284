//! A backtest from its start to its last word.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use rovi_common::{
    clock,
    heartbeat::new_instance,
    http::Problem,
    news::{BacktestChange, Event, Happening, NEWS_VERSION},
    registration::{Register, Registration, Standing},
};
use rovi_python::is_script;
use tokio::sync::OwnedSemaphorePermit;

use super::{Backtest, Comparison, State, StoreError, engine, read::History};
use crate::{
    fleet::{Fleet, Shared},
    hub::HubError,
};

/// How often progress is told, and an order to end is looked for.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// How often the last word is tried while the bus is away.
const LAST_TRIES: u32 = 20;

/// What a backtest is asked for with.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The candidate, checked; with `revision` 0 its definition was sent along.
    pub(crate) candidate: Register,
    /// The revision where it is a registered estimator.
    pub(crate) revision: i64,
    /// Whether it has a name of its own.
    pub(crate) is_named: bool,
    /// The first and the last row; else all.
    pub(crate) seq: (Option<i64>, Option<i64>),
}

struct Job {
    fleet: Arc<Fleet>,
    backtest: Backtest,
    entry: u64,
    history: History,
    sides: (Arc<Registration>, Option<Arc<Registration>>),
    _place: OwnedSemaphorePermit,
}

/// Starts a backtest and returns its record.
///
/// # Errors
/// 400 or 404 where there is nothing to run over, 503 where hub or bus are away or all places are
/// taken.
pub(crate) async fn start(fleet: &Arc<Fleet>, asked: Asked) -> Result<Backtest, Problem> {
    let shared = fleet.shared();
    let name = asked.candidate.battery.clone();
    let places = Arc::clone(&shared.backtests.places);
    let place = places.try_acquire_owned().map_err(|_none| {
        let jobs = shared.settings.backtest.jobs;
        Problem::unavailable(format!(
            "{jobs} backtests run already, which is the setting `backtest.jobs`; ask again later"
        ))
    })?;
    let known = fleet.find(&name);
    let champion = known.and_then(|known| known.champion_registration());
    let candidate = Arc::new(in_form_of_registration(&asked));
    let scripts = [Some(&candidate), champion.as_ref()];
    let reads_all = scripts
        .iter()
        .flatten()
        .any(|one| is_script(&one.definition));
    let history = History::open(&shared.hub, &name, asked.seq, reads_all).await;
    let history = history.map_err(|error| no_history(&error))?;
    if history.rows() == 0 {
        let detail = format!(
            "`{name}` has no rows in this range; its rows end at {}",
            history.last
        );
        return Err(Problem::bad_request(detail).at("seq"));
    }
    let now = clock::now_us();
    let backtest = Backtest {
        id: new_instance(),
        battery: name,
        state: State::Running,
        candidate: asked.is_named.then(|| asked.candidate.estimator.clone()),
        revision: asked.revision,
        champion: champion.as_ref().map(|one| one.estimator.clone()),
        epoch: history.epoch,
        seq: [history.first, history.last],
        rows_done: 0,
        rows_total: history.rows(),
        rows_per_s: 0.0,
        started: now,
        updated: now,
        by: shared.instance.clone(),
        error: None,
        result: None,
    };
    let begun = shared.backtests.begin(&backtest, &asked.candidate).await;
    let entry = begun.map_err(|error| Problem::unavailable(error.to_string()))?;
    let job = Job {
        fleet: Arc::clone(fleet),
        backtest: backtest.clone(),
        entry,
        history,
        sides: (candidate, champion),
        _place: place,
    };
    fleet.spawn(job.run());
    Ok(backtest)
}

fn in_form_of_registration(asked: &Asked) -> Registration {
    let Register {
        battery,
        estimator,
        definition,
        valid_from,
        required_time,
        files,
    } = asked.candidate.clone();
    Registration {
        battery,
        estimator,
        revision: asked.revision,
        definition: definition.into(),
        valid_from,
        required_time,
        files,
        deleted: false,
        changed: 0,
        standing: Standing::default(),
    }
}

fn no_history(error: &HubError) -> Problem {
    match error {
        HubError::Away(_) => Problem::unavailable(error),
        HubError::NotFound => Problem::not_found(error),
        other => Problem::bad_request(other),
    }
}

impl Job {
    async fn run(mut self) {
        let done = AtomicU64::new(0);
        let (shared, began) = (Arc::clone(self.fleet.shared()), Instant::now());
        let (history, sides) = (self.history.clone(), self.sides.clone());
        let compare = engine::compare(&shared, &history, sides, &done);
        let compare = AssertUnwindSafe(compare).catch_unwind();
        let (state, error, result) = tokio::select! {
            () = shared.stop.cancelled() => {
                let reason = "the twin that ran it stopped; start it again";
                (State::Lost, Some(reason.to_owned()), None)
            }
            compared = compare => ending(compared),
            () = self.tell(&done, began) => (State::Cancelled, None, None),
        };
        self.progress(&done, began);
        self.backtest.state = state;
        self.backtest.error = error;
        self.backtest.result = result;
        self.say_last(&shared).await;
    }

    /// Tells progress again and again; ends when somebody wants the backtest to end.
    async fn tell(&mut self, done: &AtomicU64, began: Instant) {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            self.progress(done, began);
            let shared = self.fleet.shared();
            match shared.backtests.write(&self.backtest, self.entry).await {
                Ok(entry) => self.entry = entry,
                Err(StoreError::Away(problem)) => {
                    tracing::debug!("progress of backtest {} waits: {problem}", self.backtest.id);
                }
                Err(StoreError::Conflict) if self.is_ended().await => return,
                Err(StoreError::Conflict) => {}
            }
        }
    }

    /// Looks who changed the record: an own write that went through unheard, or an order to end.
    async fn is_ended(&mut self) -> bool {
        let Backtest { battery, id, .. } = &self.backtest;
        match self.fleet.shared().backtests.read(battery, id).await {
            Ok(Some((found, _))) if found.state == State::Cancelled => true,
            Ok(Some((_, entry))) => {
                self.entry = entry;
                false
            }
            // The bus was wiped: the record is written anew.
            Ok(None) => {
                self.entry = 0;
                false
            }
            Err(_away) => false,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rows")]
    fn progress(&mut self, done: &AtomicU64, began: Instant) {
        self.backtest.rows_done = done.load(Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64().max(1e-9);
        self.backtest.rows_per_s = self.backtest.rows_done as f64 / seconds;
        self.backtest.updated = clock::now_us();
    }

    /// Keeps how it ended, and tells it.
    async fn say_last(&mut self, shared: &Shared) {
        let id = self.backtest.id.clone();
        tracing::info!(
            battery.id = %self.backtest.battery,
            "backtest {id} of {} is {} after {} rows",
            self.backtest.battery,
            self.backtest.state.as_str(),
            self.backtest.rows_done
        );
        self.keep_last(shared).await;
        let Backtest { battery, state, .. } = &self.backtest;
        shared.events.tell(Event {
            v: NEWS_VERSION,
            id: format!("{battery}.backtest.{id}"),
            battery: battery.clone(),
            at: self.backtest.updated,
            happening: Happening::BacktestEnded(BacktestChange {
                backtest: id,
                state: state.as_str().to_owned(),
                reason: self.backtest.error.clone(),
            }),
        });
    }
}

impl Job {
    /// Writes the record for the last time, while the bus takes it.
    async fn keep_last(&mut self, shared: &Shared) {
        for _ in 0..LAST_TRIES {
            match shared.backtests.write(&self.backtest, self.entry).await {
                Ok(_) => break,
                Err(StoreError::Conflict) => {
                    // Who ended it wrote the last word but for the rows done.
                    if self.is_ended().await {
                        break;
                    }
                }
                Err(StoreError::Away(problem)) => {
                    tracing::warn!("the end of backtest {} waits: {problem}", self.backtest.id);
                    if shared.stop.is_cancelled() {
                        break;
                    }
                    tokio::time::sleep(TELL_EVERY).await;
                }
            }
        }
    }
}

type Compared = Result<Result<Comparison, String>, Box<dyn std::any::Any + Send>>;

fn ending(compared: Compared) -> (State, Option<String>, Option<Comparison>) {
    match compared {
        Ok(Ok(comparison)) => (State::Done, None, Some(comparison)),
        Ok(Err(reason)) => (State::Failed, Some(reason), None),
        Err(_panic) => {
            let reason = "it failed by a defect of the service; its log has the cause";
            (State::Failed, Some(reason.to_owned()), None)
        }
    }
}
