//! Groups of one battery that follow each other without a pause where commits are slow: while one
//! is being committed on a thread of its own, the rows that come are written on a second
//! connection, so that little but their commit is left when their turn comes.

use std::{
    io, mem,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rovi_common::error::ErrorChain;

use super::{Wiring, aside::between_faults, link::Link, thread::Writer};
use crate::{
    batch::Batch,
    store::{
        StoreError,
        ahead::{self, Ahead, Written},
        batteries::Line,
        group::Failure,
    },
};

/// A group of few rows that took longer was held up by its commit.
const SLOW: Duration = Duration::from_millis(2);
const FEW_ROWS: usize = 1000;
/// Commits that are faster need nothing to be done beside them.
const QUICK: Duration = Duration::from_millis(1);
/// How often rows are written while a commit is under way: more often costs more statements, more
/// rarely leaves more to do when it ends, since the last rows are written with the turn.
const PIECE_EVERY: Duration = Duration::from_micros(700);

/// The committing thread ended by a panic.
pub(super) struct Panicked;

/// A transaction and its connection.
struct Open {
    link: Link,
    ahead: Ahead,
}

/// What became of a commit.
struct Ended {
    open: Open,
    written: Result<bool, Failure>,
    took: Duration,
}

/// What the committing thread is told.
enum Order {
    Connect,
    Commit(Box<Open>),
}

/// What the committing thread has done.
enum Done {
    Connected(Option<Link>),
    Committed(Box<Ended>),
}

/// The thread that commits, and a connection besides that of the writer.
pub(super) struct Committer {
    orders: mpsc::SyncSender<Order>,
    done: mpsc::Receiver<Done>,
    spare: Option<Link>,
    is_connecting: bool,
}

impl Committer {
    fn start(wiring: Wiring) -> io::Result<Self> {
        let (orders, todo) = mpsc::sync_channel(1);
        let (report, done) = mpsc::sync_channel(1);
        let work = move || {
            while let Ok(order) = todo.recv() {
                let done = match order {
                    Order::Connect => Done::Connected(connect(&wiring)),
                    Order::Commit(open) => Done::Committed(Box::new(commit(*open))),
                };
                if report.send(done).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("committer".to_owned())
            .spawn(work)?;
        Ok(Self {
            orders,
            done,
            spare: None,
            is_connecting: false,
        })
    }

    /// Tells whether there is a spare connection; makes one beside the writer's work, which a
    /// new connection would hold up longer than some commits take.
    fn has_spare(&mut self) -> bool {
        if self.spare.is_none() && !self.is_connecting {
            self.is_connecting = self.orders.send(Order::Connect).is_ok();
        } else if let Ok(Done::Connected(spare)) = self.done.try_recv() {
            self.spare = spare;
            self.is_connecting = false;
        }
        self.spare.is_some()
    }

    /// Returns what became of the commit, if it ends within `patience`.
    fn ended_within(&self, patience: Duration) -> Result<Option<Ended>, Panicked> {
        match self.done.recv_timeout(patience) {
            Ok(Done::Committed(ended)) => Ok(Some(*ended)),
            Ok(Done::Connected(_)) | Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Panicked),
        }
    }

    /// Waits until the commit ends.
    fn ended(&self) -> Result<Ended, Panicked> {
        loop {
            if let Done::Committed(ended) = self.done.recv().map_err(|_panicked| Panicked)? {
                return Ok(*ended);
            }
        }
    }
}

fn connect(wiring: &Wiring) -> Option<Link> {
    let link = Link::open(wiring);
    link.inspect_err(|error| tracing::debug!("no second link: {}", ErrorChain(error)))
        .ok()
}

fn commit(mut open: Open) -> Ended {
    let begun = Instant::now();
    let written = between_faults(|| open.ahead.commit(&mut open.link.connection));
    let took = begun.elapsed();
    Ended {
        open,
        written,
        took,
    }
}

/// Where a run of groups stands.
struct Course {
    /// What rows are being added to.
    open: Option<Open>,
    /// Rows that came too late to go with the turn, and are to be added first.
    late: Vec<Batch>,
    /// Where what is being committed, or was last, leaves the battery's line.
    line: Line,
    is_committing: bool,
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
        match self.tables.steadiest().cloned() {
            Some(line)
                if self.commits_are_slow && self.is_undisturbed() && self.has_both_links() =>
            {
                self.go_ahead(line)
            }
            _ => Ok(()),
        }
    }

    /// Connects and starts the thread where that was not done yet.
    fn has_both_links(&mut self) -> bool {
        if self.committer.is_none() {
            match Committer::start(self.wiring.clone()) {
                Ok(committer) => self.committer = Some(committer),
                Err(error) => tracing::warn!("no thread that commits: {error}"),
            }
        }
        let has_spare = self.committer.as_mut().is_some_and(Committer::has_spare);
        has_spare && self.link.is_some()
    }

    /// Writes group after group until nothing comes any more, or something that cannot be written
    /// ahead.
    fn go_ahead(&mut self, line: Line) -> Result<(), Panicked> {
        let mut course = Course {
            open: None,
            late: Vec::new(),
            line,
            is_committing: false,
        };
        loop {
            if course.is_committing
                && let Some(ended) = self.committed(PIECE_EVERY)?
            {
                course.is_committing = false;
                if ended.took < QUICK {
                    self.commits_are_slow = false;
                }
                // The next rows go out before anybody is told: the disk is what takes long.
                if matches!(ended.written, Ok(true)) {
                    self.commit_next(&mut course)?;
                }
                if let Err(lost) = self.settle_ahead(ended) {
                    return self.leave(course, (lost, Vec::new()));
                }
            }
            if (self.commits_are_slow || !course.late.is_empty())
                && let Err(rest) = self.add(&mut course)
            {
                return self.leave(course, (Vec::new(), rest));
            }
            if !course.is_committing {
                self.commit_next(&mut course)?;
                if !course.is_committing {
                    return Ok(());
                }
            }
        }
    }

    fn committed(&self, patience: Duration) -> Result<Option<Ended>, Panicked> {
        let committer = self.committer.as_ref().ok_or(Panicked)?;
        committer.ended_within(patience)
    }

    /// Has what is written committed, if there is anything, and with it the rows that came since.
    fn commit_next(&mut self, course: &mut Course) -> Result<(), Panicked> {
        let Some(mut open) = course.open.take() else {
            return Ok(());
        };
        let came = if self.commits_are_slow {
            self.collect()
        } else {
            Vec::new()
        };
        let rules = &self.wiring.rules;
        course.late = open.ahead.close(&self.tables, came, rules);
        course.line = open.ahead.left().clone();
        course.is_committing = true;
        let committer = self.committer.as_ref().ok_or(Panicked)?;
        let sent = committer.orders.send(Order::Commit(Box::new(open)));
        sent.map_err(|_panicked| Panicked)
    }

    /// Writes the rows that came meanwhile; gives back what cannot be written ahead.
    fn add(&mut self, course: &mut Course) -> Result<(), Vec<Batch>> {
        let rows = course.open.as_ref().map_or(0, |open| open.ahead.rows());
        if rows >= self.wiring.group.rows {
            return Ok(());
        }
        let mut batches = mem::take(&mut course.late);
        if batches.is_empty() {
            batches = self.collect();
        }
        if batches.is_empty() {
            return Ok(());
        }
        if course.open.is_none() {
            course.open = self.open_after(&course.line);
        }
        let Some(open) = &mut course.open else {
            return Err(batches);
        };
        let (tables, rules) = (&self.tables, &self.wiring.rules);
        match open
            .ahead
            .add(&mut open.link.connection, tables, batches, rules)
        {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(failure) => tracing::debug!("rows go back: {}", ErrorChain(&failure.error)),
        }
        Err(Vec::new())
    }

    /// Begins a transaction on the connection that is free.
    fn open_after(&mut self, line: &Line) -> Option<Open> {
        let free = self.link.take();
        let mut taken = free.or_else(|| self.committer.as_mut()?.spare.take())?;
        match Ahead::begin(&mut taken.connection, line) {
            Ok(ahead) => Some(Open { link: taken, ahead }),
            Err(failure) => {
                tracing::debug!("a link is given up: {}", ErrorChain(&failure.error));
                None
            }
        }
    }

    /// Answers what was committed; gives back what was not.
    fn settle_ahead(&mut self, ended: Ended) -> Result<(), Vec<Batch>> {
        let Ended {
            open: Open { link, ahead },
            written,
            took,
        } = ended;
        match written {
            Ok(true) => {
                self.wiring
                    .metrics
                    .commit_seconds
                    .observe(took.as_secs_f64());
                self.wiring.metrics.groups.inc();
                self.keep_either(link);
                let Written { batches, outcomes } = ahead.settle(&mut self.tables);
                self.answer(batches, outcomes);
                return Ok(());
            }
            Ok(false) => self.keep_either(link),
            Err(failure) => {
                tracing::debug!("rows go back: {}", ErrorChain(&failure.error));
                if !matches!(failure.error, StoreError::Away(_)) {
                    self.keep_either(link);
                }
            }
        }
        Err(ahead.into_batches())
    }

    /// Writes the usual way what was not committed: `lost` before, and `rest` after what is under
    /// way.
    fn leave(
        &mut self,
        course: Course,
        (mut lost, rest): (Vec<Batch>, Vec<Batch>),
    ) -> Result<(), Panicked> {
        if course.is_committing {
            let ended = self.committer.as_ref().ok_or(Panicked)?.ended()?;
            if let Err(batches) = self.settle_ahead(ended) {
                lost = batches;
            }
        }
        if let Some(Open { mut link, ahead }) = course.open {
            if ahead::roll_back(&mut link.connection).is_ok() {
                self.keep_either(link);
            }
            lost.extend(ahead.into_batches());
        }
        lost.extend(course.late);
        lost.extend(rest);
        self.write(lost);
        Ok(())
    }

    /// Keeps a connection as the writer's own or as the other one.
    fn keep_either(&mut self, link: Link) {
        let own = self.link.take();
        self.keep(link);
        if let (Some(own), Some(committer)) = (own, &mut self.committer) {
            committer.spare = self.link.replace(own);
        }
    }
}
