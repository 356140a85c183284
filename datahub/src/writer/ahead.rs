//! Groups of one battery that follow each other without a pause where commits are slow: while one
//! is being committed on a thread of its own, the rows that come are written on a second
//! connection, so that nothing but their commit is left when their turn comes.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rovi_common::error::ErrorChain;

use super::{aside::between_faults, link::Link, thread::Writer};
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
/// rarely leaves more to do when it ends.
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

/// The thread that commits, and a connection besides that of the writer.
pub(super) struct Committer {
    commits: mpsc::SyncSender<Open>,
    ended: mpsc::Receiver<Ended>,
    spare: Option<Link>,
}

impl Committer {
    fn start() -> io::Result<Self> {
        let (commits, todo) = mpsc::sync_channel::<Open>(1);
        let (report, ended) = mpsc::sync_channel(1);
        let commit = move || {
            while let Ok(mut open) = todo.recv() {
                let begun = Instant::now();
                let written = between_faults(|| open.ahead.commit(&mut open.link.connection));
                let took = begun.elapsed();
                let ended = Ended {
                    open,
                    written,
                    took,
                };
                if report.send(ended).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("committer".to_owned())
            .spawn(commit)?;
        Ok(Self {
            commits,
            ended,
            spare: None,
        })
    }

    /// Returns what became of the commit, if it ends within `patience`.
    fn ended_within(&self, patience: Duration) -> Result<Option<Ended>, Panicked> {
        match self.ended.recv_timeout(patience) {
            Ok(ended) => Ok(Some(ended)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Panicked),
        }
    }
}

/// Where a run of groups stands.
struct Course {
    /// What rows are being added to.
    open: Option<Open>,
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
            match Committer::start() {
                Ok(committer) => self.committer = Some(committer),
                Err(error) => tracing::warn!("no thread that commits: {error}"),
            }
        }
        let Some(committer) = &mut self.committer else {
            return false;
        };
        if committer.spare.is_none() {
            match Link::open(&self.wiring) {
                Ok(link) => committer.spare = Some(link),
                Err(error) => tracing::debug!("no second link: {}", ErrorChain(&error)),
            }
        }
        committer.spare.is_some() && self.link.is_some()
    }

    /// Writes group after group until nothing comes any more, or something that cannot be written
    /// ahead.
    fn go_ahead(&mut self, line: Line) -> Result<(), Panicked> {
        let mut course = Course {
            open: None,
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
                // What is written goes out before anybody is told: the disk is what takes long.
                if matches!(ended.written, Ok(true)) {
                    self.commit_next(&mut course)?;
                }
                if let Err(lost) = self.settle_ahead(ended) {
                    return self.leave(course, (lost, Vec::new()));
                }
            }
            if self.commits_are_slow
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

    /// Has what is written committed, if there is anything.
    fn commit_next(&self, course: &mut Course) -> Result<(), Panicked> {
        let Some(open) = course.open.take() else {
            return Ok(());
        };
        course.line = open.ahead.left().clone();
        course.is_committing = true;
        let committer = self.committer.as_ref().ok_or(Panicked)?;
        committer.commits.send(open).map_err(|_panicked| Panicked)
    }

    /// Writes the rows that came meanwhile; gives back what cannot be written ahead.
    fn add(&mut self, course: &mut Course) -> Result<(), Vec<Batch>> {
        let rows = course.open.as_ref().map_or(0, |open| open.ahead.rows());
        if rows >= self.wiring.group.rows {
            return Ok(());
        }
        let batches = self.collect();
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
            let ended = self.committer.as_ref().map(|it| it.ended.recv());
            let ended = ended.and_then(Result::ok).ok_or(Panicked)?;
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
