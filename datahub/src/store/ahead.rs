//! Rows of one battery that are written while the group before them is still being committed.
//!
//! A commit holds the battery's line until it is on the disk, so the commits of a battery follow
//! one another. Writing the rows need not wait for that: a second connection inserts them under
//! the numbers that they will have if the commit under way succeeds. Then one statement takes the
//! battery's turn, makes sure that line and sessions stand where they were expected, moves them,
//! and writes the rows that came last; if they do not, all is rolled back, and the rows go the
//! usual way.
//!
//! Such a transaction holds rows before it has the line, against the order that all others keep.
//! Another hub that has the line may wait for one of these rows, so the line is waited for only
//! shortly, and a hub that stands still loses the transaction.

use diesel::{
    PgConnection,
    connection::{AnsiTransactionManager, TransactionManager},
};
use rovi_common::fault;

use super::{
    at_once::{Turn, are_plain, is_written},
    batteries::Line,
    group::{ByBattery, Failure, Outcome, Outcomes, Rules},
    insert::{self, COPY_ROWS},
    known::Tables,
    number::{Numbered, Span, number},
    sessions::Step,
    statement::Statement,
    steps,
    work::Work,
};
use crate::batch::Batch;

/// Longer than any commit beside which it makes sense to write ahead, and far shorter than
/// PostgreSQL takes to find that two wait for each other (1 s).
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '50ms'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// Rows in a transaction that is open, numbered as expected.
pub(crate) struct Ahead {
    /// Where the line has to be when the turn comes.
    found: Line,
    /// Where the rows leave it.
    left: Line,
    rows: usize,
    batches: Vec<Batch>,
    outcomes: Vec<Outcome>,
    /// Takes the turn and writes the last rows; none where all are written.
    writing: Option<Statement>,
}

/// The last rows, which are written with the turn.
struct Last {
    left: Line,
    rows: usize,
    outcomes: Vec<Outcome>,
    turn: Statement,
}

/// Batches that were stored.
pub(crate) struct Written {
    /// The batches.
    pub(crate) batches: Vec<Batch>,
    /// What became of each.
    pub(crate) outcomes: Vec<Outcome>,
}

impl Ahead {
    /// Begins where another transaction leaves the battery's line, committed or not yet.
    ///
    /// # Errors
    /// No transaction is open.
    pub(crate) fn begin(connection: &mut PgConnection, line: &Line) -> Result<Self, Failure> {
        AnsiTransactionManager::begin_transaction_sql(connection, BEGIN)?;
        Ok(Self {
            found: line.clone(),
            left: line.clone(),
            rows: 0,
            batches: Vec::new(),
            outcomes: Vec::new(),
            writing: None,
        })
    }

    /// Returns where the rows leave the line.
    pub(crate) fn left(&self) -> &Line {
        &self.left
    }

    /// Counts the rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds rows; tells whether they could be written ahead. In any case the batches are kept.
    ///
    /// # Errors
    /// PostgreSQL refuses the rows, or is away.
    pub(crate) fn add(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        batches: Vec<Batch>,
        rules: &Rules,
    ) -> Result<bool, Failure> {
        let written = self.write(connection, tables, &batches, rules);
        self.batches.extend(batches);
        let outcomes = written?;
        let is_written = outcomes.is_some();
        self.outcomes.extend(outcomes.into_iter().flatten());
        Ok(is_written)
    }

    fn write(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        batches: &[Batch],
        rules: &Rules,
    ) -> Result<Option<Vec<Outcome>>, Failure> {
        let Some(table) = tables.get(self.left.id) else {
            return Ok(None);
        };
        if !are_plain(batches, &self.left, table, rules) {
            return Ok(None);
        }
        let places: Vec<usize> = (0..batches.len()).collect();
        let work = Work::new(batches, &places, table, rules);
        if !work.fits() {
            return Ok(None);
        }
        fault::point("hub.in_write")?;
        let pieces = work.pieces();
        let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
        self.rows += spans.iter().map(Span::rows).sum::<usize>();
        let runs = insert::insert(connection, &mut self.left, table, &spans, rules.horizon_s)
            .map_err(Failure::of_rows(self.found.id))?;
        drop(spans);
        drop(pieces);
        let mut outcomes = Outcomes::new(batches.len());
        work.all_stored(&self.left, runs, &mut outcomes);
        Ok(Some(outcomes.into_vec()))
    }

    /// Adds the last rows, which are written as the turn is taken; gives those back that cannot be
    /// written so.
    pub(crate) fn close(
        &mut self,
        tables: &Tables,
        batches: Vec<Batch>,
        rules: &Rules,
    ) -> Vec<Batch> {
        let written = self.batches.len();
        self.batches.extend(batches);
        if let Some(last) = self.last(tables, written, rules) {
            self.left = last.left;
            self.rows += last.rows;
            self.outcomes.extend(last.outcomes);
            self.writing = Some(last.turn);
            return Vec::new();
        }
        self.batches.split_off(written)
    }

    /// Makes the statement that writes the batches from `first` on with the turn, where there are
    /// any and it takes them.
    fn last(&self, tables: &Tables, first: usize, rules: &Rules) -> Option<Last> {
        let batches = self.batches.get(first..).filter(|last| !last.is_empty())?;
        let table = tables.get(self.left.id)?;
        if !are_plain(batches, &self.left, table, rules) {
            return None;
        }
        let places: Vec<usize> = (0..batches.len()).collect();
        let work = Work::new(batches, &places, table, rules);
        let pieces = work.pieces();
        let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
        let (left, numbered) = number(&self.left, &spans, rules.horizon_s);
        let rows = numbered.iter().map(Numbered::len).sum();
        if rows == 0 || rows >= COPY_ROWS || !work.fits() {
            return None;
        }
        let turn = self.turn(&left, &self.steps()).storing(table, &numbered);
        let runs = numbered.into_iter().map(|rows| rows.run).collect();
        drop(spans);
        drop(pieces);
        let mut outcomes = Outcomes::new(batches.len());
        work.all_stored(&left, runs, &mut outcomes);
        Some(Last {
            left,
            rows,
            outcomes: outcomes.into_vec(),
            turn,
        })
    }

    fn steps(&self) -> Vec<Step> {
        let places = (0..self.batches.len()).collect();
        steps::joined(&self.batches, &ByBattery::from([(self.found.id, places)]))
    }

    fn turn<'t>(&'t self, moved: &'t Line, steps: &'t [Step]) -> Turn<'t> {
        Turn {
            line: &self.found,
            moved,
            steps,
        }
    }

    /// Takes the turn and commits; tells whether the rows are durable. If not, nothing was
    /// written.
    ///
    /// # Errors
    /// Nothing was written, or the connection was lost and nobody knows.
    pub(crate) fn commit(&mut self, connection: &mut PgConnection) -> Result<bool, Failure> {
        let turn = match self.writing.take() {
            Some(turn) => turn,
            None => self.turn(&self.left, &self.steps()).alone(),
        };
        fault::point("hub.in_write")?;
        let moved = is_written(connection, turn).map_err(Failure::of_rows(self.found.id));
        if !matches!(moved, Ok(true)) {
            AnsiTransactionManager::rollback_transaction(connection)?;
            return moved;
        }
        fault::point("hub.before_commit")?;
        AnsiTransactionManager::commit_transaction(connection)?;
        Ok(true)
    }

    /// Notes where the rows left the line, now that they are durable.
    pub(crate) fn settle(self, tables: &mut Tables) -> Written {
        tables.left(&self.found, self.left);
        Written {
            batches: self.batches,
            outcomes: self.outcomes,
        }
    }

    /// Gives the rows up, none of which is stored.
    pub(crate) fn into_batches(self) -> Vec<Batch> {
        self.batches
    }
}

/// Ends an open transaction without a trace.
///
/// # Errors
/// The connection is lost.
pub(crate) fn roll_back(connection: &mut PgConnection) -> Result<(), Failure> {
    Ok(AnsiTransactionManager::rollback_transaction(connection)?)
}
