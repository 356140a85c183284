//! One battery's part of a transaction: its table is changed, its rows are fitted and written,
//! those that do not fit are kept aside.

use std::borrow::Cow;

use diesel::{Connection, PgConnection};
use rovi_common::fault;

use super::{
    batteries::Line,
    fit::{self, Fitted},
    group::{Failure, Outcome, Outcomes, Rules, Stored},
    insert::{self, Piece, Run, Span},
    is_away, rejected,
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

/// The writing of one battery's batches.
pub(super) struct Work<'w> {
    /// The whole group.
    pub(super) batches: &'w [Batch],
    /// The places of this battery's batches in it.
    pub(super) places: Vec<usize>,
    pub(super) rules: &'w Rules,
    /// Whether rows that PostgreSQL refuses are set aside instead of failing all.
    pub(super) tolerant: bool,
}

impl Work<'_> {
    fn each(&self) -> impl Iterator<Item = (usize, &Batch)> {
        let batch = |&place| Some((place, self.batches.get(place)?));
        self.places.iter().filter_map(batch)
    }

    /// Writes the rows that fit and keeps the others in `hub.rejected_rows`.
    pub(super) fn write(
        &self,
        connection: &mut PgConnection,
        line: &mut Line,
        table: &Table,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        if self.places.is_empty() {
            return Ok(());
        }
        let fitted: Vec<(usize, &Batch, Fitted<'_>)> = self
            .each()
            .map(|(place, batch)| (place, batch, fit::fit(&batch.decoded.columns, table)))
            .collect();
        let piece = |(place, batch, fitted)| Piece::of(place, batch, fitted);
        let pieces: Vec<Piece<'_>> = fitted
            .iter()
            .map(|(place, batch, fitted)| piece((*place, *batch, fitted)))
            .collect();
        let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
        let horizon_s = self.rules.horizon_s;
        let (runs, refused) = if self.tolerant {
            insert::insert_what_fits(connection, line, table, &spans, horizon_s)?
        } else {
            let runs = insert::insert(connection, line, table, &spans, horizon_s)
                .map_err(Failure::of_rows(line.id))?;
            (runs, Vec::new())
        };
        let refused: Vec<(usize, usize, String)> = refused
            .into_iter()
            .map(|(span, reason)| (span.piece.batch, span.from, reason))
            .collect();
        drop(spans);
        drop(pieces);
        let mut stored = stored_by_batch(line, fitted, runs, refused);
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
        for (place, _, stored) in stored.drain(..) {
            outcomes.set(place, Outcome::Stored(stored));
        }
        Ok(())
    }
}

impl<'a> Piece<'a> {
    fn of(place: usize, batch: &Batch, fitted: &'a Fitted<'_>) -> Self {
        Self {
            batch: place,
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
    runs: Vec<Run>,
    refused: Vec<(usize, usize, String)>,
) -> Vec<(usize, &'b Batch, Stored)> {
    let mut runs = runs.into_iter().peekable();
    let mut refused = refused.into_iter().peekable();
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
