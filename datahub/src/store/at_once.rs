//! A group of one battery in one statement, which is its own transaction.
//!
//! A battery that sends much mostly finds its line where its last group left it. Then nothing has
//! to be asked before its rows are written: one statement takes the battery's turn, makes sure
//! that line and sessions stand where the writer believes, and moves them and writes the rows, or
//! does nothing at all. A transaction in steps takes nine round trips for the same, which is most
//! of the time of a small group.

use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types::Bool};
use rovi_common::fault;

use super::{
    batteries::Line,
    group::{ByBattery, Failure, Outcome, Outcomes, Rules},
    insert::{COPY_ROWS, from_arrays},
    known::Tables,
    number::{Numbered, Span, number},
    sessions::Step,
    statement::{ArrayBind, Statement},
    steps,
    tables::Table,
    work::Work,
};
use crate::batch::Batch;

/// Writes a group of one battery, where that is likely to succeed; `None` where nothing was
/// written and the group has to go step by step.
pub(super) fn write(
    connection: &mut PgConnection,
    tables: &mut Tables,
    batches: &[Batch],
    rules: &Rules,
) -> Result<Option<Vec<Outcome>>, Failure> {
    let Some((line, table)) = expected(tables, batches) else {
        return Ok(None);
    };
    let places: Vec<usize> = (0..batches.len()).collect();
    let work = Work::new(batches, &places, table, rules);
    if !work.is_plain(rules) {
        return Ok(None);
    }
    let pieces = work.pieces();
    let spans: Vec<Span<'_, '_>> = pieces.iter().map(Span::whole).collect();
    let (moved, rows) = number(line, &spans, rules.horizon_s);
    let count: usize = rows.iter().map(Numbered::len).sum();
    if count == 0 || count >= COPY_ROWS {
        return Ok(None);
    }
    let steps = steps::joined(batches, &ByBattery::from([(line.id, places)]));
    let steps = match (line.holder, steps.as_slice()) {
        (None, steps) => steps,
        // It moves with the line.
        (Some(_), [step]) if line.carries(step, count) => &[],
        _ => return Ok(None),
    };
    let turn = Turn {
        line,
        moved: &moved,
        steps,
    };
    fault::point("hub.in_write")?;
    fault::point("hub.before_commit")?;
    let written = is_written(connection, turn.storing(table, &rows));
    let written = written.map_err(Failure::of_rows(line.id));
    let runs = rows.into_iter().map(|rows| rows.run).collect();
    drop(spans);
    drop(pieces);
    if !matches!(written, Ok(true)) {
        let battery = line.id;
        tables.unsettle([battery]);
        return written.map(|_| None);
    }
    let mut outcomes = Outcomes::new(batches.len());
    work.all_stored(&moved, runs, &mut outcomes);
    let found = line.clone();
    tables.left(&[found], vec![moved]);
    Ok(Some(outcomes.into_vec()))
}

/// Returns line and table of the group's only battery, where both are expected to be as they were.
fn expected<'t>(tables: &'t Tables, batches: &[Batch]) -> Option<(&'t Line, &'t Table)> {
    let (line, table) = tables.steady(batches.first()?.battery_id())?;
    table.is_current(line).then_some((line, table))
}

/// A battery's turn: where line and sessions are expected, and where they move.
struct Turn<'g> {
    line: &'g Line,
    /// The line after it.
    moved: &'g Line,
    /// Of sessions that do not move with the line.
    steps: &'g [Step],
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    written: bool,
}

/// Runs a statement of [`Turn`]: it writes everything, or nothing where line or sessions stand
/// elsewhere.
fn is_written(connection: &mut PgConnection, statement: Statement) -> QueryResult<bool> {
    let answer: Answer = statement.get_result(connection)?;
    Ok(answer.written)
}

impl Turn<'_> {
    /// Moves line and sessions and stores rows. The line is locked before the sessions, as
    /// everywhere: each part waits for the one that it asks for.
    fn storing(&self, table: &Table, rows: &[Numbered<'_, '_>]) -> Statement {
        let statement = self.moving(self.taking_turn(Statement::cached()));
        let statement = statement.sql(", stored AS (");
        from_arrays(statement, self.line, table, rows)
            .sql(" WHERE (SELECT written FROM may)) SELECT written FROM may")
    }

    /// Locks line and sessions, and finds out whether they stand where they should.
    fn taking_turn(&self, statement: Statement) -> Statement {
        let line = self.line;
        let steps = self.steps.iter();
        statement
            .sql("WITH turn AS (SELECT FROM hub.batteries WHERE id = ")
            .long(line.id)
            .sql(" AND name = ")
            .text(&line.name)
            .sql(" AND epoch = ")
            .long(line.epoch)
            .sql(" AND form = ")
            .long(line.form)
            .sql(" AND last_seq = ")
            .long(line.last_seq)
            .sql(" AND segment = ")
            .long(i64::from(line.segment))
            .sql(" AND coalesce(latest_test_time, 'NaN') = ")
            .real(line.latest_test_time.unwrap_or(f64::NAN))
            .sql(" AND holder IS NOT DISTINCT FROM (")
            .array(ArrayBind::uuids([line.holder]))
            .sql(")[1] AND holder_attempt = ")
            .long(line.holder_attempt)
            .sql(" AND holder_offset = ")
            .long(line.holder_offset)
            .sql(" FOR NO KEY UPDATE), steps AS (SELECT * FROM unnest(")
            .array(ArrayBind::uuids(steps.clone().map(|step| Some(step.session))))
            .sql(", ")
            .array(ArrayBind::longs(steps.clone().map(|step| step.attempt)))
            .sql(", ")
            .array(ArrayBind::longs(steps.clone().map(|step| step.from)))
            .sql(", ")
            .array(ArrayBind::longs(steps.map(|step| step.to)))
            .sql(
                ") AS p(id, attempt, old, new)), held AS (SELECT FROM hub.sessions s \
                 JOIN steps p ON s.id = p.id AND s.attempt = p.attempt AND s.noted_position = p.old \
                 WHERE (SELECT count(*) FROM turn) = 1 FOR NO KEY UPDATE OF s), may AS MATERIALIZED \
                 (SELECT (SELECT count(*) FROM turn) = 1 AND (SELECT count(*) FROM held) = ",
            )
            .long(i64::try_from(self.steps.len()).unwrap_or(i64::MAX))
            .sql(" AS written)")
    }

    fn moving(&self, statement: Statement) -> Statement {
        let moved = self.moved;
        statement
            .sql(", line AS (UPDATE hub.batteries SET last_seq = ")
            .long(moved.last_seq)
            .sql(", segment = p.segment, latest_test_time = p.latest FROM unnest(")
            .array(ArrayBind::ints([moved.segment]))
            .sql(", ")
            .array(ArrayBind::doubles([moved.latest_test_time]))
            .sql(") AS p(segment, latest) WHERE id = ")
            .long(moved.id)
            .sql(
                " AND (SELECT written FROM may)), moved AS (UPDATE hub.sessions s \
                 SET noted_position = p.new, used = now() FROM steps p \
                 WHERE s.id = p.id AND (SELECT written FROM may))",
            )
    }
}
