//! Rows into one battery's table, the way that suits their number.

use diesel::{
    Connection, PgConnection, QueryResult, RunQueryDsl,
    connection::SimpleConnection,
    result::{DatabaseErrorKind, Error as DieselError},
};
use rovi_common::rows::Column;

use super::{
    batteries::Line,
    copy, is_away, is_of_the_server,
    number::{self, Numbered, Run, Span, number},
    statement::{ArrayBind, Element, Statement},
    tables::{self, ColumnType, Table},
};

/// Rows of one table from which on `COPY` is the faster way; measured, see `docs/BENCHMARKS.md`.
pub(super) const COPY_ROWS: usize = 1000;

/// Inserts rows and moves `line` along.
///
/// # Errors
/// As diesel's; `line` is then as it was.
pub(super) fn insert(
    connection: &mut PgConnection,
    line: &mut Line,
    table: &Table,
    spans: &[Span<'_, '_>],
    horizon_s: f64,
) -> QueryResult<Vec<Run>> {
    let (moved, rows) = number(line, spans, horizon_s);
    match rows.iter().map(Numbered::len).sum() {
        0 => (),
        COPY_ROWS.. => {
            copy::copy(connection, &line.name, table, &rows)?;
            is_as_known(connection, line, table)?;
        }
        _ => {
            from_arrays(Statement::cached(), line, table, &rows).execute(connection)?;
        }
    }
    *line = moved;
    Ok(rows.into_iter().map(|rows| rows.run).collect())
}

/// Refuses rows that were copied into columns of other types than those known: `COPY` converts
/// nothing, and would take the bits of an integer for those of a float.
///
/// People change tables, too. The copied rows keep them from doing so until the transaction ends.
fn is_as_known(connection: &mut PgConnection, line: &Line, table: &Table) -> QueryResult<()> {
    let found = tables::load(connection, line)?;
    let known = table.columns().iter().enumerate();
    let differs = |(hint, (name, kind)): &(usize, &(String, ColumnType))| {
        let place = found.place(*hint, name);
        let found = place.and_then(|place| found.columns().get(place));
        found.is_none_or(|(_, found)| found != kind)
    };
    match known.filter(differs).map(|(_, (name, _))| name).next() {
        None => Ok(()),
        Some(name) => Err(DieselError::DatabaseError(
            DatabaseErrorKind::Unknown,
            Box::new(format!("column `{name}` has been given another type")),
        )),
    }
}

/// The columns that rows may have values for: not those of types that somebody else gave them.
pub(super) fn own_columns(table: &Table) -> impl Iterator<Item = (&str, Element)> {
    let columns = table.columns().iter();
    columns.filter_map(|(name, kind)| match kind {
        ColumnType::Foreign(_) => None,
        kind => Some((name.as_str(), kind.element())),
    })
}

/// Finds the rows' columns in the order of [`own_columns`]; none for those that the rows lack.
pub(super) fn find_columns<'a>(rows: &Numbered<'_, 'a>, table: &Table) -> Vec<Option<&'a Column>> {
    let mut found: Vec<Option<&Column>> = vec![None; table.columns().len()];
    for (hint, (name, column)) in rows.piece.columns.iter().enumerate() {
        let place = table.place(hint, name);
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = Some(column);
        }
    }
    let mut kinds = table.columns().iter();
    found.retain(|_| !matches!(kinds.next(), Some((_, ColumnType::Foreign(_)))));
    found
}

/// Appends one text for a form of a table, however many rows: each connection prepares it once.
///
/// The arrays are taken apart in the list of what is selected: in `FROM`, PostgreSQL would first
/// keep each of them as a table of its own, which takes half as long again.
pub(super) fn from_arrays(
    statement: Statement,
    line: &Line,
    table: &Table,
    rows: &[Numbered<'_, '_>],
) -> Statement {
    let count = rows.iter().map(Numbered::len).sum();
    let [seqs, received, segments] = numbers(rows, count);
    statement
        .sql("INSERT INTO ")
        .battery(&line.name)
        .sql(" (seq, received, segment")
        .each(own_columns(table), |statement, (name, _)| {
            statement.sql(", ").identifier(name)
        })
        .sql(") SELECT unnest(")
        .array(seqs)
        .sql("), unnest(")
        .array(received)
        .sql("), unnest(")
        .array(segments)
        .each(cells(rows, table, count), |statement, array| {
            statement.sql("), unnest(").array(array)
        })
        .sql(")")
}

/// Encodes `seq`, `received` and `segment`.
fn numbers(rows: &[Numbered<'_, '_>], count: usize) -> [ArrayBind; 3] {
    let mut seqs = ArrayBind::new(Element::Long, count);
    let mut received = ArrayBind::new(Element::Time, count);
    let mut segments = ArrayBind::new(Element::Int, count);
    for rows in rows {
        for (_, seq) in rows.rows() {
            seqs.put_long(seq);
            received.put_time(rows.piece.received);
            segments.put_int(rows.run.segment);
        }
    }
    [seqs, received, segments]
}

/// Encodes the rows' columns, one after another, for each column of the table.
fn cells(rows: &[Numbered<'_, '_>], table: &Table, count: usize) -> Vec<ArrayBind> {
    let mut arrays: Vec<ArrayBind> = own_columns(table)
        .map(|(_, element)| ArrayBind::new(element, count))
        .collect();
    for rows in rows {
        for (array, column) in arrays.iter_mut().zip(find_columns(rows, table)) {
            match column {
                Some(column) => array.put_column(column, rows.run.from, rows.run.to),
                None => array.put_nulls(rows.len()),
            }
        }
    }
    arrays
}

/// Inserts what PostgreSQL takes and returns the others with its reasons.
///
/// Refused rows are found by halving, so a bad row among N costs about log N statements more.
///
/// # Errors
/// Only where the connection is lost.
pub(super) fn insert_what_fits<'p, 'a>(
    connection: &mut PgConnection,
    line: &mut Line,
    table: &Table,
    spans: &[Span<'p, 'a>],
    horizon_s: f64,
) -> QueryResult<(Vec<Run>, Refused<'p, 'a>)> {
    let mut runs = Vec::new();
    let mut refused = Vec::new();
    // The last one is next, so halves are pushed in reverse and rows keep their order.
    let mut waiting: Vec<Vec<Span<'_, '_>>> = vec![spans.to_vec()];
    while let Some(spans) = waiting.pop() {
        let tried =
            connection.transaction(|connection| insert(connection, line, table, &spans, horizon_s));
        match tried {
            Ok(more) => runs.extend(more),
            // Neither is a row's fault: all of it is tried again later.
            Err(error) if is_away(&error) || is_of_the_server(&error) => return Err(error),
            Err(error) => {
                if let Some((first, second)) = halves(&spans) {
                    waiting.extend([second, first]);
                    continue;
                }
                let reason = error.to_string();
                number::begin_segments(line, &spans, horizon_s);
                let rows = spans.into_iter().filter(|span| span.rows() > 0);
                refused.extend(rows.map(|span| (span, reason.clone())));
            }
        }
    }
    Ok((runs, refused))
}

type Spans<'p, 'a> = Vec<Span<'p, 'a>>;
/// Single rows with what PostgreSQL said.
type Refused<'p, 'a> = Vec<(Span<'p, 'a>, String)>;

/// Cuts rows in two; none where there is only one.
fn halves<'p, 'a>(spans: &[Span<'p, 'a>]) -> Option<(Spans<'p, 'a>, Spans<'p, 'a>)> {
    let rows: usize = spans.iter().map(Span::rows).sum();
    if rows < 2 {
        return None;
    }
    let mut left = rows / 2;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for span in spans {
        let taken = left.min(span.rows());
        left -= taken;
        let middle = span.from + taken;
        if taken > 0 || (span.rows() == 0 && left > 0) {
            first.push(Span {
                to: middle,
                ..*span
            });
        }
        if middle < span.to || (span.rows() == 0 && left == 0) {
            second.push(Span {
                from: middle,
                ..*span
            });
        }
    }
    Some((first, second))
}

/// Waits, at most for the lock timeout, until the table takes rows or a change of form.
///
/// A failure here is somebody else's lock, whatever language PostgreSQL says it in; a later one
/// is the rows' or the change's.
pub(super) fn lock_table(
    connection: &mut PgConnection,
    line: &Line,
    exclusively: bool,
) -> QueryResult<()> {
    if line.form == 0 {
        return Ok(());
    }
    let mode = if exclusively {
        " IN ACCESS EXCLUSIVE MODE"
    } else {
        " IN ROW EXCLUSIVE MODE"
    };
    Statement::once()
        .sql("LOCK TABLE ")
        .battery(&line.name)
        .sql(mode)
        .execute(connection)
        .map(drop)
}

/// Bounds the waiting for locks within the present transaction.
pub(super) fn set_lock_timeout(connection: &mut PgConnection, ms: u128) -> QueryResult<()> {
    connection
        .batch_execute(&format!("SET LOCAL lock_timeout = {ms}"))
        .map_err(|error: DieselError| error)
}

#[cfg(test)]
mod tests;
