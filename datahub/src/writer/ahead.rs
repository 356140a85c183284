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

use rovi_common::{error::ErrorChain, fault};

use super::{Wiring, answer, aside::between_faults, link::Link, thread::Writer};
use crate::{
    batch::Batch,
    store::{
        durable,
        group::{self, Failure, Outcome},
    },
};

/// A group of few rows that took longer was held up by its commit.
const SLOW: Duration = Duration::from_millis(2);
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

/// A connection that commits early.
#[derive(Default)]
pub(super) enum Early {
    #[default]
    None,
    /// Made beside the writer's work, which it would hold up longer than some commits take.
    Connecting(JoinHandle<Option<Link>>),
    Ready(Link),
    /// None could be made, or commits wait for replicas: not again before this.
    Failed(Instant),
}

impl Early {
    /// Takes the connection; begins to make one where there is none.
    fn take(&mut self, wiring: &Wiring) -> Option<Link> {
        match mem::take(self) {
            Self::Ready(link) => return Some(link),
            Self::Connecting(made) if made.is_finished() => {
                let made = made.join().ok().flatten();
                if made.is_none() {
                    *self = Self::Failed(Instant::now() + PAUSE);
                }
                return made;
            }
            Self::Connecting(made) => *self = Self::Connecting(made),
            Self::Failed(until) if Instant::now() < until => *self = Self::Failed(until),
            Self::Failed(_) | Self::None => {
                let wiring = wiring.clone();
                let thread = thread::Builder::new().name("connector".to_owned());
                match thread.spawn(move || connect(&wiring)) {
                    Ok(made) => *self = Self::Connecting(made),
                    Err(error) => tracing::warn!("no thread that connects: {error}"),
                }
            }
        }
        None
    }
}

fn connect(wiring: &Wiring) -> Option<Link> {
    let link = Link::open(wiring).and_then(|mut link| {
        let is_early = durable::commit_early(&mut link.connection)?;
        Ok(is_early.then_some(link))
    });
    link.inspect_err(|error| tracing::debug!("no second link: {}", ErrorChain(error)))
        .ok()
        .flatten()
}

impl Writer {
    /// Writes a group, and what comes after it ahead, where that is worth it.
    pub(super) fn write_and_go_ahead(&mut self, group: Vec<Batch>) -> Result<(), Panicked> {
        let rows: usize = group.iter().map(|batch| batch.decoded.sent).sum();
        let begun = Instant::now();
        self.write(group);
        if rows < FEW_ROWS {
            self.commits_are_slow = begun.elapsed() >= SLOW;
        }
        let has_come = self.take_in() > 0 || !self.waiting.is_empty();
        if self.commits_are_slow
            && has_come
            && self.is_one_battery()
            && self.is_undisturbed()
            && self.link.is_some()
            && let Some(early) = self.early.take(&self.wiring)
            && let Some(own) = self.link.take()
        {
            return self.go_ahead(early, own);
        }
        Ok(())
    }

    /// Tells whether one battery has the writer to itself; a fleet's writer rests instead.
    fn is_one_battery(&self) -> bool {
        self.tables.steadiest().is_some()
    }

    /// Commits group after group early, until nothing comes any more, or something that has to be
    /// written the usual way.
    fn go_ahead(&mut self, mut early: Link, own: Link) -> Result<(), Panicked> {
        let flusher = match Flusher::start(self.wiring.clone(), own) {
            Ok(flusher) => flusher,
            Err(error) => {
                tracing::warn!("no thread that flushes: {error}");
                return Ok(());
            }
        };
        let mut rest = None;
        while !flusher.thread.is_finished()
            && !flusher.shared.has_failed.load(Ordering::Acquire)
            && !flusher.shared.is_quick.load(Ordering::Acquire)
        {
            let begun = Instant::now();
            let group = self.collect();
            if !group.is_empty() {
                match self.write_early(&mut early, group, begun) {
                    Ok(group) => {
                        let goes_on = group.outcomes.iter().all(is_stored) && self.is_one_battery();
                        flusher.hand_over(group)?;
                        if !goes_on {
                            break;
                        }
                    }
                    Err(group) => {
                        rest = Some(group);
                        break;
                    }
                }
            } else if flusher.shared.waiting.load(Ordering::Acquire) == 0 {
                break;
            }
            thread::sleep(EVERY.saturating_sub(begun.elapsed()));
        }
        self.commits_are_slow &= !flusher.shared.is_quick.load(Ordering::Acquire);
        let Flushed { link, lost, later } = flusher.end()?;
        let is_good = link.is_some() && rest.is_none() && early.trim().is_ok();
        if let Some(link) = link {
            self.keep(link);
        }
        if is_good {
            self.early = Early::Ready(early);
        } else {
            self.tables.unsettle();
        }
        self.write_one_by_one(BTreeMap::new(), later);
        for group in lost.into_iter().chain(rest) {
            self.write(group);
        }
        Ok(())
    }

    /// Commits a group; gives it back where nobody knows whether that was done, or it was not.
    fn write_early(
        &mut self,
        early: &mut Link,
        batches: Vec<Batch>,
        begun: Instant,
    ) -> Result<Group, Vec<Batch>> {
        let (tables, rules) = (&mut self.tables, &self.wiring.rules);
        let connection = &mut early.connection;
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
