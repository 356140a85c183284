//! Writing one battery's batches while its neighbours go on: each on a thread and a connection of
//! its own, which end with it.
//!
//! A change of a large table may take minutes, and a locked one is waited for; neither may hold
//! up the other batteries of the writer.

use std::mem;

use diesel::PgConnection;
use rovi_common::fault;
use tokio::sync::mpsc;

use super::{Wiring, answer, link::Link};
use crate::{
    batch::Batch,
    store::group::{self, Failure, Outcome, Rules, Tables},
};

/// Batteries of one writer that are written aside at once; further ones wait for a place.
const MOST: usize = 4;
/// How long a table's lock is waited for: longer than the second after which PostgreSQL ends an
/// automatic vacuum that holds it.
const LOCK_MS: u128 = 1500;

/// What became of a battery's batches.
pub(super) enum Ended {
    /// They are written and answered.
    Written(i64),
    /// They are not written.
    Failed(i64, Vec<Batch>, Failure),
    /// The system gave no thread.
    NotTried(i64, Vec<Batch>),
    /// The thread ended by a panic.
    Panicked,
}

/// The threads of one writer.
pub(super) struct Asides {
    ended: mpsc::Receiver<Ended>,
    report: mpsc::Sender<Ended>,
    running: usize,
}

impl Asides {
    pub(super) fn new() -> Self {
        let (report, ended) = mpsc::channel(MOST);
        Self {
            ended,
            report,
            running: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.running < MOST
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Starts a thread for a battery's batches.
    pub(super) fn start(&mut self, wiring: Wiring, battery: i64, batches: Vec<Batch>) {
        self.running += 1;
        let mut report = Report {
            to: self.report.clone(),
            ended: Ended::NotTried(battery, batches),
        };
        let thread = std::thread::Builder::new().name(format!("aside-{battery}"));
        let started = thread.spawn(move || report.write(&wiring));
        if let Err(error) = started {
            tracing::warn!("no thread for a battery that is set aside: {error}");
        }
    }

    /// Waits until a thread ends; for ever where none runs.
    pub(super) async fn ended(&mut self) -> Ended {
        let ended = self.ended.recv().await;
        self.running -= 1;
        ended.unwrap_or(Ended::Panicked)
    }
}

/// Tells the writer when a thread ends, however it does.
struct Report {
    to: mpsc::Sender<Ended>,
    ended: Ended,
}

impl Report {
    fn write(&mut self, wiring: &Wiring) {
        if let Ended::NotTried(battery, batches) = mem::replace(&mut self.ended, Ended::Panicked) {
            self.ended = write(wiring, battery, batches);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let ended = mem::replace(&mut self.ended, Ended::Panicked);
        // There is a place for each thread; only a writer that ended itself does not listen.
        let _unheard = self.to.try_send(ended);
    }
}

fn write(wiring: &Wiring, battery: i64, batches: Vec<Batch>) -> Ended {
    let rules = Rules {
        alone_lock_ms: LOCK_MS,
        ..wiring.rules.clone()
    };
    let written = Link::open(wiring)
        .map_err(Failure::from)
        .and_then(|mut link| {
            let timer = wiring.metrics.commit_seconds.start_timer();
            let written = between_faults(|| {
                write_alone(
                    &mut link.connection,
                    &mut Tables::default(),
                    &batches,
                    &rules,
                )
            });
            match &written {
                Ok(_) => timer.observe_duration(),
                Err(_) => drop(timer.stop_and_discard()),
            }
            written
        });
    match written {
        Ok(outcomes) => {
            wiring.metrics.groups.inc();
            answer::answer(batches, outcomes, wiring.stored.as_ref(), &wiring.metrics);
            Ended::Written(battery)
        }
        Err(failure) => Ended::Failed(battery, batches, failure),
    }
}

/// Runs a transaction between the faults that may be injected before and after it.
pub(super) fn between_faults<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    fault::point("hub.before_write")?;
    let done = work()?;
    fault::point("hub.after_commit")?;
    Ok(done)
}

/// Writes one battery's batches; where PostgreSQL refuses rows, these are set aside.
pub(super) fn write_alone(
    connection: &mut PgConnection,
    tables: &mut Tables,
    batches: &[Batch],
    rules: &Rules,
) -> Result<Vec<Outcome>, Failure> {
    match group::write_alone(connection, tables, batches, rules, false) {
        Err(failure) if failure.is_of_rows => {
            group::write_alone(connection, tables, batches, rules, true)
        }
        written => written,
    }
}
