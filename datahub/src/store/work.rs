//! One battery's part of a transaction: its table is changed, its rows are fitted and written,
//! those that do not fit are kept aside.

use std::borrow::Cow;

use diesel::{Connection, PgConnection};
use rovi_common::fault;

use super::{
    batteries::Line,
    fit::{self, Fitted},
    group::{Failure, Outcome, Outcomes, Rules, Stored},
    insert, is_away,
    joined::{self, Part},
    neighbours::{Neighbours, Seen},
    number::{Piece, Run, Span, number},
    rejected,
    tables::{self, Table},
};
use crate::{
    batch::Batch,
    upload::{RefusedBy, RejectedRow, kept},
};

/// Changes a table as a batch wants; a change that PostgreSQL refuses is left out, and rows that
/// need it are rejected with what it said.
pub(super) fn change(
    connection: &mut PgConnection,
    line: &mut Line,
    table: &mut Table,
    batch: &Batch,
    rules: &Rules,
) -> Result<(), Failure> {
    let changes = fit::wanted(&batch.decoded.columns, &mut table.clone(), rules.columns);
    insert::lock_table(connection, line, true)?;
    let (mut new_line, mut new_table) = (line.clone(), table.clone());
    let done = connection.transaction(|connection| {
        tables::change(connection, &mut new_line, &mut new_table, &changes)
    });
    fault::point("hub.schema_change")?;
    match done {
        Ok(()) => (*line, *table) = (new_line, new_table),
        Err(error) if is_away(&error) => return Err(error.into()),
        Err(error) => {
            tracing::warn!("the table of {} cannot be changed: {error}", line.name);
            table.frozen = Some(error.to_string());
        }
    }
    Ok(())
}

/// One battery's batches, fitted to its table.
pub(super) struct Work<'w> {
    table: &'w Table,
    /// Each batch with its place in the group.
    batches: Vec<(usize, &'w Batch, Fitted<'w>)>,
    horizon_s: f64,
    /// Whether rows that PostgreSQL refuses are set aside instead of failing all.
    tolerant: bool,
}

/// What became of the rows that fit.
struct Written {
    runs: Vec<Run>,
    /// Place of the batch, place of the row in it, and what PostgreSQL said.
    refused: Vec<(usize, usize, String)>,
}

impl<'w> Work<'w> {
    /// Fits the batches at `places` of a group.
    pub(super) fn new(
        batches: &'w [Batch],
        places: &[usize],
        table: &'w Table,
        rules: &Rules,
    ) -> Self {
        let fitted = |&place: &usize| {
            let batch = batches.get(place)?;
            Some((place, batch, fit::fit(&batch.decoded.columns, table)))
        };
        Self {
            table,
            batches: places.iter().filter_map(fitted).collect(),
            horizon_s: rules.horizon_s,
            tolerant: false,
        }
    }

    /// With `tolerant`, rows that PostgreSQL refuses are set aside instead of failing all.
    pub(super) fn tolerating(self, tolerant: bool) -> Self {
        Self { tolerant, ..self }
    }

    /// Tells whether the table takes all rows as it is, and there is nothing to do besides.
    pub(super) fn is_plain(&self, rules: &Rules) -> bool {
        let agree = |batch: &Batch, fitted: &Fitted<'_>| {
            let rows = &batch.decoded.columns;
            matches!(fitted.columns, Cow::Borrowed(_))
                || fitted.rejected.is_empty()
                    && !fit::wants_change(rows, self.table, rules.columns)
                    && !fit::may_reject(rows, self.table)
        };
        self.batches.iter().all(|(_, batch, fitted)| {
            let is_all = batch.replayed.is_empty() && batch.decoded.rejected.is_empty();
            is_all && agree(batch, fitted)
        })
    }

    /// Counts the rows that fit.
    pub(super) fn rows(&self) -> usize {
        let rows = self
            .batches
            .iter()
            .map(|(.., fitted)| fitted.columns.rows());
        rows.sum()
    }

    pub(super) fn pieces(&self) -> Vec<Piece<'_>> {
        self.batches.iter().map(Piece::of).collect()
    }

    /// Numbers the rows of all pieces behind `line`.
    pub(super) fn number<'p, 'a>(&'p self, line: &Line, pieces: &'p [Piece<'a>]) -> Part<'p, 'a> {
        let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
        let (line, rows) = number(line, &spans, self.horizon_s);
        let table = self.table;
        Part { line, table, rows }
    }

    /// Writes the rows that fit and keeps the others in `hub.rejected_rows`.
    pub(super) fn write(
        self,
        connection: &mut PgConnection,
        line: &mut Line,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        let pieces = self.pieces();
        let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
        let (runs, refused) = if self.tolerant {
            insert::insert_what_fits(connection, line, self.table, &spans, self.horizon_s)?
        } else {
            let runs = insert::insert(connection, line, self.table, &spans, self.horizon_s)
                .map_err(Failure::of_rows(line.id))?;
            (runs, Vec::new())
        };
        let refused = refused
            .into_iter()
            .map(|(span, reason)| (span.piece.batch, span.from, reason))
            .collect();
        drop(spans);
        drop(pieces);
        self.settle(connection, line, Written { runs, refused }, outcomes)
    }

    /// Says of each batch that all its rows are stored.
    pub(super) fn all_stored(self, line: &Line, runs: Vec<Run>, outcomes: &mut Outcomes) {
        let refused = Vec::new();
        for (place, _, stored) in stored_by_batch(line, self.batches, Written { runs, refused }) {
            outcomes.set(place, Outcome::Stored(stored));
        }
    }

    /// Keeps what was not stored and says what became of each batch.
    fn settle(
        self,
        connection: &mut PgConnection,
        line: &Line,
        written: Written,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        let stored = stored_by_batch(line, self.batches, written);
        for (_, batch, stored) in &stored {
            if !batch.replayed.is_empty() {
                rejected::settle(connection, &batch.replayed, &stored.rejected)
                    .map_err(Failure::of(line.id))?;
            }
        }
        let rejected: Vec<(&Batch, RejectedRow)> = stored
            .iter()
            .filter(|(_, batch, _)| batch.replayed.is_empty())
            .flat_map(|(_, batch, stored)| stored.rejected.iter().map(|row| (*batch, row.clone())))
            .collect();
        rejected::keep(connection, line, &rejected).map_err(Failure::of(line.id))?;
        for (place, _, stored) in stored {
            outcomes.set(place, Outcome::Stored(stored));
        }
        Ok(())
    }
}

/// Writes the rows of many batteries: those that have few in statements of many tables.
pub(super) fn write_joined(
    connection: &mut PgConnection,
    works: Vec<(&mut Line, Work<'_>)>,
    together: (Neighbours, &mut Seen),
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    let most = joined::most_rows(works.len());
    let has_few = |(_, work): &(&mut Line, Work<'_>)| work.rows() <= most;
    let (few, many): (Vec<_>, Vec<_>) = works.into_iter().partition(has_few);
    for (line, work) in many {
        work.write(connection, line, outcomes)?;
    }
    let pieces: Vec<Vec<Piece<'_>>> = few.iter().map(|(_, work)| work.pieces()).collect();
    let parts = few.iter().zip(&pieces);
    let parts: Vec<Part<'_, '_>> = parts
        .map(|((line, work), pieces)| work.number(line, pieces))
        .collect();
    joined::insert(connection, &parts, together)?;
    let numbered: Vec<(Line, Vec<Run>)> = parts.into_iter().map(Part::settle).collect();
    drop(pieces);
    for ((line, work), (moved, runs)) in few.into_iter().zip(numbered) {
        *line = moved;
        let refused = Vec::new();
        work.settle(connection, line, Written { runs, refused }, outcomes)?;
    }
    Ok(())
}

impl<'a> Piece<'a> {
    fn of((place, batch, fitted): &'a (usize, &Batch, Fitted<'_>)) -> Self {
        Self {
            batch: *place,
            columns: &fitted.columns,
            received: batch.received,
            begins_segment: batch.begins_segment,
        }
    }
}

/// Gives each batch its runs and its rejected rows.
fn stored_by_batch<'b>(
    line: &Line,
    fitted: Vec<(usize, &'b Batch, Fitted<'_>)>,
    written: Written,
) -> Vec<(usize, &'b Batch, Stored)> {
    let mut runs = written.runs.into_iter().peekable();
    let mut refused = written.refused.into_iter().peekable();
    let mut all = Vec::with_capacity(fitted.len());
    for (place, batch, fitted) in fitted {
        let mut rejected = batch.decoded.rejected.clone();
        // Places among the rows that fit, as places among those that were decoded.
        let misfits: Vec<usize> = fitted.rejected.iter().map(|(row, _)| *row).collect();
        for (row, reason) in fitted.rejected {
            rejected.push(reject(batch, row, RefusedBy::Type, reason));
        }
        while let Some((_, row, reason)) = refused.next_if(|(batch, ..)| *batch == place) {
            let row = nth_other(row, &misfits);
            rejected.push(reject(batch, row, RefusedBy::Database, reason));
        }
        rejected.sort_by_key(|row| row.offset);
        let mut own_runs = Vec::new();
        while let Some(run) = runs.next_if(|run| run.batch == place) {
            own_runs.push(run);
        }
        let stored = Stored {
            epoch: line.epoch,
            runs: own_runs,
            fitted: match fitted.columns {
                Cow::Borrowed(_) => None,
                Cow::Owned(columns) => Some(columns),
            },
            rejected,
        };
        all.push((place, batch, stored));
    }
    all
}

/// Returns the `n`-th number that is not in `taken`, which ascends.
fn nth_other(n: usize, taken: &[usize]) -> usize {
    let mut number = n;
    for &one in taken {
        if one > number {
            break;
        }
        number += 1;
    }
    number
}

/// Describes a decoded row that is not stored.
fn reject(batch: &Batch, row: usize, refused_by: RefusedBy, reason: String) -> RejectedRow {
    let cells = batch.decoded.columns.row(row);
    let cells = cells.map(|(name, value)| (name.to_owned(), kept::to_json(&value)));
    RejectedRow {
        offset: batch.decoded.offset_of(row),
        refused_by,
        reason,
        body: serde_json::Value::Object(cells.collect()),
    }
}
