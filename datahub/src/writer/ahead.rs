//! Groups that do not wait for one another's commits where those are slow: they are committed
//! early, one after the other, and answered when the disk has them, by a thread that does nothing
//! but see to that. Whoever reads such rows before settles them first (`store/durable.rs`).
//!
//! When nothing comes any more the thread ends. Batches that want a change of their table are given
//! back to the writer then, and those that the disk may not have: they are written again the usual
//! way, in their order.

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use diesel::QueryResult;
use rovi_common::{error::ErrorChain, fault};

use super::{Wiring, answer, aside::between_faults, link::Link, thread::Writer};
use crate::{
    batch::Batch,
    store::{
        StoreError, durable,
        group::{self, Failure, Outcome},
    },
};

/// A group of few rows that took longer was held up by its commit, where so many did in a row: one
/// may have made its table.
const SLOW: Duration = Duration::from_millis(2);
const SLOW_IN_A_ROW: u32 = 2;
const FEW_ROWS: usize = 1000;
/// Flushes that are faster need nothing to be done beside them, where so many come in a row: one
/// may have been another's.
const QUICK: Duration = Duration::from_millis(1);
const QUICK_IN_A_ROW: u32 = 3;
/// How often a group is written: more often costs more statements, more rarely rows wait longer.
const EVERY: Duration = Duration::from_micros(700);
/// After a second connection could not be made.
const PAUSE: Duration = Duration::from_secs(5);
/// Groups that may wait for the disk.
const MOST: usize = 64;

/// The thread that flushes ended by a panic.
pub(super) struct Panicked;

/// A group that was committed early.
struct Group {
    begun: Instant,
    batches: Vec<Batch>,
    outcomes: Vec<Outcome>,
    /// Where PostgreSQL's log ended after its commit.
    end: i64,
}

/// What writer and flushing thread know of each other.
#[derive(Default)]
struct Shared {
    /// Groups that wait for the disk.
    waiting: AtomicUsize,
    /// Flushing failed.
    has_failed: AtomicBool,
    /// Flushing is quick: nothing is won by it.
    is_quick: AtomicBool,
}

/// A thread that flushes groups and answers them, for as long as rows keep coming.
struct Flusher {
    groups: mpsc::SyncSender<Group>,
    shared: Arc<Shared>,
    thread: JoinHandle<Flushed>,
}

/// What is left when a flusher ends.
struct Flushed {
    /// Its connection, where it is still good.
    link: Option<Link>,
    /// Groups that may not be durable, in order.
    lost: Vec<Vec<Batch>>,
    /// Batches that must be written alone, and whether that rewrites their table.
    later: Vec<(Batch, bool)>,
}

impl Flusher {
    fn start(wiring: Wiring, link: Link) -> io::Result<Self> {
        let (groups, committed) = mpsc::sync_channel(MOST);
        let shared = Arc::new(Shared::default());
        let work = Flushing {
            wiring,
            shared: Arc::clone(&shared),
            committed,
            waiting: Vec::new(),
            later: Vec::new(),
            quick_in_a_row: 0,
        };
        let thread = thread::Builder::new().name("flusher".to_owned());
        Ok(Self {
            groups,
            shared,
            thread: thread.spawn(move || work.run(link))?,
        })
    }

    fn hand_over(&self, group: Group) -> Result<(), Panicked> {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        self.groups.send(group).map_err(|_ended| Panicked)
    }

    /// Tells whether it flushes, and that takes long enough for something to be done beside it.
    fn is_wanted(&self) -> bool {
        !self.thread.is_finished()
            && !self.shared.has_failed.load(Ordering::Acquire)
            && !self.shared.is_quick.load(Ordering::Acquire)
    }

    /// Waits until all is answered, or given back.
    fn end(self) -> Result<Flushed, Panicked> {
        drop(self.groups);
        self.thread.join().map_err(|_panic| Panicked)
    }
}

/// The flushing thread's state.
struct Flushing {
    wiring: Wiring,
    shared: Arc<Shared>,
    committed: mpsc::Receiver<Group>,
    /// In the order of their commits.
    waiting: Vec<Group>,
    later: Vec<(Batch, bool)>,
    quick_in_a_row: u32,
}

impl Flushing {
    fn run(mut self, mut link: Link) -> Flushed {
        loop {
            if self.waiting.is_empty() {
                let Ok(group) = self.committed.recv() else {
                    return self.ended(Some(link));
                };
                self.waiting.push(group);
            }
            self.waiting.extend(self.committed.try_iter());
            if let Err(failure) = self.flush(&mut link) {
                tracing::debug!("rows go back: {}", ErrorChain(&failure.error));
                self.shared.has_failed.store(true, Ordering::Release);
                // The writer sends nothing more when it knows.
                self.waiting.extend(self.committed.iter());
                return self.ended(None);
            }
        }
    }

    /// Has the groups that wait on the disk, and those that came meanwhile where it has them too.
    fn flush(&mut self, link: &mut Link) -> Result<(), Failure> {
        let begun = Instant::now();
        let sure = self.waiting.len();
        fault::point("hub.before_flush")?;
        durable::flush(&mut link.connection)?;
        fault::point("hub.after_flush")?;
        let is_quick = begun.elapsed() < QUICK;
        self.quick_in_a_row = if is_quick { self.quick_in_a_row + 1 } else { 0 };
        let durable = durable::durable(&mut link.connection)?;
        if durable > 0
            && self
                .waiting
                .iter()
                .take(sure)
                .any(|group| group.end > durable)
        {
            let error = "the second connection is one to another server".into();
            return Err(StoreError::Away(error).into());
        }
        let are_quick = self.quick_in_a_row >= QUICK_IN_A_ROW;
        self.shared.is_quick.store(are_quick, Ordering::Release);
        self.waiting.extend(self.committed.try_iter());
        let taken_along = self.waiting.iter().skip(sure);
        let taken_along = taken_along.take_while(|group| group.end <= durable).count();
        self.answer(sure + taken_along);
        Ok(())
    }

    /// Answers the first groups all at once: each connection hears once, the relay gets long frames.
    fn answer(&mut self, groups: usize) {
        let metrics = &self.wiring.metrics;
        let (mut batches, mut outcomes) = (Vec::new(), Vec::new());
        for group in self.waiting.drain(..groups) {
            let took = group.begun.elapsed();
            metrics.commit_seconds.observe(took.as_secs_f64());
            metrics.groups.inc();
            batches.extend(group.batches);
            outcomes.extend(group.outcomes);
        }
        let stored = self.wiring.stored.as_ref();
        let later = answer::answer(batches, outcomes, stored, metrics);
        self.later.extend(later);
        self.shared.waiting.fetch_sub(groups, Ordering::AcqRel);
    }

    fn ended(self, link: Option<Link>) -> Flushed {
        let lost = self.waiting.into_iter().map(|group| group.batches);
        Flushed {
            link,
            lost: lost.collect(),
            later: self.later,
        }
    }
}

/// A second connection, which flushes: the writer's own is quick at its tables.
#[derive(Default)]
pub(super) enum Second {
    #[default]
    None,
    /// Made beside the writer's work, which it would hold up longer than some commits take.
    Connecting(JoinHandle<Option<Link>>),
    Ready(Link),
    /// None could be made, or commits wait for replicas: not again before this.
    Failed(Instant),
}

impl Second {
    /// Begins to make the connection where there is none, unless commits wait for replicas.
    fn prepare(&mut self, wiring: &Wiring, own: &mut Link) {
        *self = match mem::take(self) {
            Self::Connecting(made) if made.is_finished() => match made.join().ok().flatten() {
                Some(link) => Self::Ready(link),
                None => Self::Failed(Instant::now() + PAUSE),
            },
            Self::Failed(until) if until > Instant::now() => Self::Failed(until),
            Self::None | Self::Failed(_) => match durable::has_replicas(&mut own.connection) {
                Ok(false) => Self::begin(wiring),
                Ok(true) | Err(_) => Self::Failed(Instant::now() + PAUSE),
            },
            as_it_is => as_it_is,
        };
    }

    fn begin(wiring: &Wiring) -> Self {
        let wiring = wiring.clone();
        let thread = thread::Builder::new().name("connector".to_owned());
        match thread.spawn(move || connect(&wiring)) {
            Ok(made) => Self::Connecting(made),
            Err(error) => {
                tracing::warn!("no thread that connects: {error}");
                Self::None
            }
        }
    }

    /// Takes the connection, where it is ready.
    fn take(&mut self) -> Option<Link> {
        match mem::take(self) {
            Self::Ready(link) => Some(link),
            other => {
                *self = other;
                None
            }
        }
    }
}

fn connect(wiring: &Wiring) -> Option<Link> {
    Link::open(wiring)
        .inspect_err(|error| tracing::debug!("no second link: {}", ErrorChain(error)))
        .ok()
}

/// A connection that commits before its rows are on the disk.
struct Early(Link);

impl Early {
    fn begin(mut link: Link) -> QueryResult<Self> {
        durable::commit_early(&mut link.connection)?;
        Ok(Self(link))
    }

    /// Returns a connection whose commits are durable.
    fn end(mut self) -> QueryResult<Link> {
        durable::commit_durably(&mut self.0.connection)?;
        Ok(self.0)
    }
}

impl Writer {
    /// Writes a group, and what comes after it ahead, where that is worth it.
    pub(super) fn write_and_go_ahead(&mut self, group: Vec<Batch>) -> Result<(), Panicked> {
        let rows: usize = group.iter().map(|batch| batch.decoded.sent).sum();
        let begun = Instant::now();
        self.write(group);
        if rows < FEW_ROWS {
            let is_slow = begun.elapsed() >= SLOW;
            self.slow_commits = if is_slow { self.slow_commits + 1 } else { 0 };
        }
        let has_come = self.take_in() > 0 || !self.waiting.is_empty();
        if self.slow_commits < SLOW_IN_A_ROW || !self.is_undisturbed() {
            return Ok(());
        }
        let Some(mut own) = self.link.take() else {
            return Ok(());
        };
        if self.tables.is_of_one() {
            self.second.prepare(&self.wiring, &mut own);
        }
        if has_come
            && self.is_one_battery()
            && let Some(second) = self.second.take()
        {
            match Early::begin(own) {
                Ok(early) => return self.go_ahead(early, second),
                Err(error) => tracing::debug!("a connection is given up: {error}"),
            }
        } else {
            self.link = Some(own);
        }
        Ok(())
    }

    /// Tells whether one battery has the writer to itself; a fleet's writer rests instead.
    fn is_one_battery(&self) -> bool {
        self.tables.steadiest().is_some()
    }

    /// Commits group after group early, until nothing comes any more, or something that has to be
    /// written the usual way.
    fn go_ahead(&mut self, mut early: Early, second: Link) -> Result<(), Panicked> {
        let flusher = match Flusher::start(self.wiring.clone(), second) {
            Ok(flusher) => flusher,
            Err(error) => {
                tracing::warn!("no thread that flushes: {error}");
                return Ok(());
            }
        };
        let rest = self.commit_early(&mut early, &flusher)?;
        if flusher.shared.is_quick.load(Ordering::Acquire) {
            self.slow_commits = 0;
        }
        let Flushed { link, lost, later } = flusher.end()?;
        if link.is_none() || rest.is_some() {
            self.tables.unsettle_only();
        }
        if let Some(second) = link {
            self.second = Second::Ready(second);
        }
        match early.end() {
            Ok(own) => self.keep(own),
            Err(error) => tracing::debug!("a connection is given up: {error}"),
        }
        self.write_one_by_one(BTreeMap::new(), later);
        for group in lost.into_iter().chain(rest) {
            self.write(group);
        }
        Ok(())
    }

    /// Commits groups and hands them over; returns one that failed.
    fn commit_early(
        &mut self,
        early: &mut Early,
        flusher: &Flusher,
    ) -> Result<Option<Vec<Batch>>, Panicked> {
        while flusher.is_wanted() {
            let begun = Instant::now();
            let group = self.collect();
            if group.is_empty() {
                if flusher.shared.waiting.load(Ordering::Acquire) == 0 {
                    break;
                }
            } else {
                match self.write_early(early, group, begun) {
                    Ok(group) => {
                        let goes_on = group.outcomes.iter().all(is_stored) && self.is_one_battery();
                        flusher.hand_over(group)?;
                        if !goes_on {
                            break;
                        }
                    }
                    Err(group) => return Ok(Some(group)),
                }
            }
            thread::sleep(EVERY.saturating_sub(begun.elapsed()));
        }
        Ok(None)
    }

    /// Commits a group; gives it back where nobody knows whether that was done, or it was not.
    fn write_early(
        &mut self,
        early: &mut Early,
        batches: Vec<Batch>,
        begun: Instant,
    ) -> Result<Group, Vec<Batch>> {
        let (tables, rules) = (&mut self.tables, &self.wiring.rules);
        let connection = &mut early.0.connection;
        let written = between_faults(|| {
            let outcomes = group::write(connection, tables, &batches, rules, true)?;
            Ok((outcomes, durable::end(connection)?))
        });
        match written {
            Ok((outcomes, end)) => Ok(Group {
                begun,
                batches,
                outcomes,
                end,
            }),
            Err(failure) => {
                tracing::debug!("rows go back: {}", ErrorChain(&failure.error));
                Err(batches)
            }
        }
    }
}

fn is_stored(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Stored(_) | Outcome::Before(_))
}
