//! Rows into one battery's table: `seq`, segments and the insert itself.

use diesel::{
    Connection, PgConnection, QueryResult, RunQueryDsl, connection::SimpleConnection,
    result::Error as DieselError,
};
use rovi_common::rows::{Column, Columns};

use super::{
    batteries::Line,
    is_away, is_of_the_server,
    statement::{ArrayBind, Element, Statement},
    tables::Table,
};

/// Fitted rows of one batch.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Which batch of the group.
    pub(super) batch: usize,
    /// The rows, each column of the table's type.
    pub(super) columns: &'a Columns,
    /// When the hub took them, in microseconds since 1970.
    pub(super) received: i64,
    /// Whether the first row was asked to begin a segment.
    pub(super) begins_segment: bool,
}

/// Some rows of a piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'p, 'a> {
    pub(super) piece: &'p Piece<'a>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl<'p, 'a> Span<'p, 'a> {
    /// Returns all rows of a piece.
    pub(super) fn whole(piece: &'p Piece<'a>) -> Self {
        Self {
            piece,
            from: 0,
            to: piece.columns.rows(),
        }
    }

    /// Whether a segment begins here; so it does even where no row of the piece is left.
    fn begins_segment(&self) -> bool {
        self.piece.begins_segment && self.from == 0
    }

    fn rows(&self) -> usize {
        self.to - self.from
    }
}

/// Consecutive rows of one batch that were stored in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Which batch of the group.
    pub(crate) batch: usize,
    /// First row, by its place in the fitted batch.
    pub(crate) from: usize,
    /// The row after the last one.
    pub(crate) to: usize,
    /// The segment of all these rows.
    pub(crate) segment: i32,
    /// `seq` of the first row.
    pub(crate) first_seq: i64,
}

/// Numbers rows and finds where segments begin.
#[derive(Debug)]
struct Counter<'l> {
    line: &'l mut Line,
    horizon_s: f64,
}

impl Counter<'_> {
    /// Begins a segment, unless the present one has no rows yet.
    fn begin_segment(&mut self) {
        if self.line.segment > 0 {
            self.line.segment += 1;
        }
        self.line.latest_test_time = None;
    }

    /// Takes the next `seq` for a row and returns its segment.
    fn next(&mut self, test_time: Option<f64>) -> i32 {
        self.line.last_seq += 1;
        let test_time = test_time.filter(|time| time.is_finite());
        let falls = match (test_time, self.line.latest_test_time) {
            (Some(time), Some(latest)) => latest - time > self.horizon_s,
            _ => false,
        };
        if self.line.segment == 0 || falls {
            self.line.segment += 1;
            self.line.latest_test_time = None;
        }
        if let Some(time) = test_time {
            let latest = self.line.latest_test_time.unwrap_or(time);
            self.line.latest_test_time = Some(latest.max(time));
        }
        self.line.segment
    }
}

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
    let rows: usize = spans.iter().map(Span::rows).sum();
    let mut moved = line.clone();
    let mut own = OwnColumns::new(rows);
    let mut counter = Counter {
        line: &mut moved,
        horizon_s,
    };
    for span in spans {
        own.take(span, &mut counter);
    }
    if rows > 0 {
        let columns = rows_of(spans, table, rows);
        statement(line, table, own.arrays, columns).execute(connection)?;
    }
    *line = moved;
    Ok(own.runs)
}

/// The columns that the hub gives to rows.
struct OwnColumns {
    /// `seq`, `received` and `segment`.
    arrays: [ArrayBind; 3],
    runs: Vec<Run>,
}

impl OwnColumns {
    fn new(rows: usize) -> Self {
        let array = |element| ArrayBind::new(element, rows);
        Self {
            arrays: [
                array(Element::Long),
                array(Element::Time),
                array(Element::Int),
            ],
            runs: Vec::new(),
        }
    }

    fn take(&mut self, span: &Span<'_, '_>, counter: &mut Counter<'_>) {
        let [seqs, received, segments] = &mut self.arrays;
        if span.begins_segment() {
            counter.begin_segment();
        }
        let test_time = span.piece.columns.get("test_time");
        let mut run: Option<Run> = None;
        for row in span.from..span.to {
            let segment = counter.next(test_time.and_then(|column| column.number(row)));
            seqs.put_long(counter.line.last_seq);
            received.put_time(span.piece.received);
            segments.put_int(segment);
            match &mut run {
                Some(run) if run.segment == segment => run.to = row + 1,
                run => self.runs.extend(run.replace(Run {
                    batch: span.piece.batch,
                    from: row,
                    to: row + 1,
                    segment,
                    first_seq: counter.line.last_seq,
                })),
            }
        }
        self.runs.extend(run);
    }
}

/// Encodes the spans' columns, one after another, for each column of the table.
fn rows_of(spans: &[Span<'_, '_>], table: &Table, rows: usize) -> Vec<ArrayBind> {
    let mut arrays: Vec<ArrayBind> = table
        .columns()
        .iter()
        .map(|(_, kind)| ArrayBind::new(kind.element(), rows))
        .collect();
    let mut found: Vec<Option<&Column>> = Vec::new();
    for span in spans {
        found.clear();
        found.resize(arrays.len(), None);
        for (hint, (name, column)) in span.piece.columns.iter().enumerate() {
            let place = table.place(hint, name);
            if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
                *slot = Some(column);
            }
        }
        for (array, column) in arrays.iter_mut().zip(&found) {
            match column {
                Some(column) => array.put_column(column, span.from, span.to),
                None => array.put_nulls(span.rows()),
            }
        }
    }
    arrays
}

/// One text for a form of a table, however many rows: each connection prepares it once.
///
/// Columns of foreign types never have a value and are left out.
fn statement(line: &Line, table: &Table, own: [ArrayBind; 3], rows: Vec<ArrayBind>) -> Statement {
    use super::tables::ColumnType::Foreign;
    let ours = |(_, kind): &&(String, super::tables::ColumnType)| !matches!(kind, Foreign(_));
    let names = table.columns().iter().filter(ours).map(|(name, _)| name);
    let arrays = table.columns().iter().zip(rows);
    let arrays = arrays
        .filter(|(column, _)| ours(column))
        .map(|(_, array)| array);
    let [seqs, received, segments] = own;
    Statement::cached()
        .sql("INSERT INTO ")
        .battery(&line.name)
        .sql(" (seq, received, segment")
        .each(names, |statement, name| {
            statement.sql(", ").identifier(name)
        })
        .sql(") SELECT * FROM unnest(")
        .array(seqs)
        .sql(", ")
        .array(received)
        .sql(", ")
        .array(segments)
        .each(arrays, |statement, array| statement.sql(", ").array(array))
        .sql(")")
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
                begin_segments(line, &spans, horizon_s);
                let rows = spans.into_iter().filter(|span| span.rows() > 0);
                refused.extend(rows.map(|span| (span, reason.clone())));
            }
        }
    }
    Ok((runs, refused))
}

/// Begins the segments that refused rows were asked to begin.
fn begin_segments(line: &mut Line, spans: &[Span<'_, '_>], horizon_s: f64) {
    let mut counter = Counter { line, horizon_s };
    for _ in spans.iter().filter(|span| span.begins_segment()) {
        counter.begin_segment();
    }
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
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            id: 1,
            name: "b".into(),
            epoch: 1,
            last_seq: 0,
            segment: 0,
            latest_test_time: None,
            form: 1,
            first_seq: 1,
        }
    }

    fn segments(times: &[Option<f64>]) -> Vec<i32> {
        let mut line = line();
        let mut counter = Counter {
            line: &mut line,
            horizon_s: 3600.0,
        };
        times.iter().map(|time| counter.next(*time)).collect()
    }

    #[test]
    fn a_segment_begins_where_test_time_falls_by_more_than_the_horizon() {
        let times = [Some(7200.0), Some(3600.0), Some(3599.0), Some(3600.0)];
        assert_eq!(segments(&times), [1, 1, 2, 2]);
    }

    #[test]
    fn rows_without_test_time_stay_in_the_segment() {
        let times = [None, Some(9999.0), Some(f64::NAN), None, Some(0.0)];
        assert_eq!(segments(&times), [1, 1, 1, 1, 2]);
    }

    #[test]
    fn late_rows_do_not_lower_what_was_reached() {
        let times = [Some(7200.0), Some(3700.0), Some(100.0)];
        assert_eq!(segments(&times), [1, 1, 2]);
    }

    #[test]
    fn a_first_row_that_asks_for_a_segment_gets_the_first_one() {
        let mut line = line();
        let mut counter = Counter {
            line: &mut line,
            horizon_s: 3600.0,
        };
        counter.begin_segment();
        assert_eq!(counter.next(None), 1);
        counter.begin_segment();
        assert_eq!(counter.next(None), 2);
    }
}
