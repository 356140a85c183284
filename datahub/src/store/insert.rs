//! Rows into one battery's table, the way that suits their number.

use diesel::{
    Connection, PgConnection, QueryResult, RunQueryDsl, connection::SimpleConnection,
    result::Error as DieselError,
};
use rovi_common::rows::Column;

use super::{
    batteries::Line,
    copy, is_away,
    number::{self, Numbered, Run, Span, number},
    statement::{ArrayBind, Element, Statement},
    tables::{ColumnType, Table},
};

/// Rows of one table from which on `COPY` is the faster way; measured, see `docs/BENCHMARKS.md`.
const COPY_ROWS: usize = 500;

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
        COPY_ROWS.. => copy::copy(connection, &line.name, table, &rows)?,
        count => {
            statement(line, table, &rows, count).execute(connection)?;
        }
    }
    *line = moved;
    Ok(rows.into_iter().map(|rows| rows.run).collect())
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

/// One text for a form of a table, however many rows: each connection prepares it once.
fn statement(line: &Line, table: &Table, rows: &[Numbered<'_, '_>], count: usize) -> Statement {
    let [seqs, received, segments] = numbers(rows, count);
    Statement::cached()
        .sql("INSERT INTO ")
        .battery(&line.name)
        .sql(" (seq, received, segment")
        .each(own_columns(table), |statement, (name, _)| {
            statement.sql(", ").identifier(name)
        })
        .sql(") SELECT * FROM unnest(")
        .array(seqs)
        .sql(", ")
        .array(received)
        .sql(", ")
        .array(segments)
        .each(cells(rows, table, count), |statement, array| {
            statement.sql(", ").array(array)
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
            Err(error) if is_away(&error) => return Err(error),
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
mod tests {
    use rovi_common::{
        rows::{Column, Columns},
        testing,
    };

    use super::*;
    use crate::store::{
        joined::{self, Part},
        number::Piece,
        tables,
    };

    const ODD: &str = "odd \"name'; %s";
    const ROWS: usize = 7;

    fn columns() -> Columns {
        fn cells<T: Clone>(cells: &[Option<T>]) -> Vec<Option<T>> {
            cells.iter().cycle().take(ROWS).cloned().collect()
        }
        let odd = f64::from_bits(0x7ff8_0000_0000_0001);
        let floats = [
            0.1,
            odd,
            f64::INFINITY,
            -0.0,
            f64::MIN_POSITIVE,
            f64::NEG_INFINITY,
        ];
        let floats = floats.into_iter().map(Some).chain([None]);
        let texts = [Some("Ω\t\\N".to_owned()), Some(String::new()), None];
        let columns = [
            ("float \"Ω\"", Column::Float(floats.collect())),
            ("int,", Column::Int(cells(&[Some(i64::MIN), None]))),
            ("text\n", Column::Text(cells(&texts))),
            (
                "bool",
                Column::Bool(cells(&[Some(true), Some(false), None])),
            ),
            (
                "time",
                Column::Time(cells(&[Some(-1), Some(1_800_000_000_000_000), None])),
            ),
            ("never", Column::Null(ROWS)),
        ];
        let columns = columns.map(|(name, column)| (name.to_owned(), column));
        Columns::new(columns.into()).unwrap()
    }

    fn line(name: &str) -> Line {
        Line {
            id: 1,
            name: name.to_owned(),
            epoch: 1,
            last_seq: 0,
            segment: 0,
            latest_test_time: None,
            form: 1,
        }
    }

    fn make_table(connection: &mut PgConnection, name: &str) -> Table {
        let make = Statement::once().sql("CREATE TABLE ").battery(name).sql(
            " (seq bigint PRIMARY KEY, received timestamptz, segment int, \
             \"float \"\"Ω\"\"\" float8, \"int,\" int8, \"text\n\" text, bool bool, \
             foreign_kind numeric, time timestamptz, never text)",
        );
        make.execute(connection).unwrap();
        tables::load(connection, &line(name)).unwrap()
    }

    fn texts(connection: &mut PgConnection, name: &str) -> Vec<String> {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            text: String,
        }
        let read = Statement::once()
            .sql("SELECT t::text AS text FROM ")
            .battery(name);
        let rows: Vec<Row> = read.sql(" t ORDER BY seq").load(connection).unwrap();
        rows.into_iter().map(|row| row.text).collect()
    }

    #[test]
    fn every_way_writes_the_same_cells_whatever_the_names() {
        let postgres = testing::postgres();
        let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
        connection
            .batch_execute("CREATE SCHEMA battery; SET TIME ZONE 'UTC'")
            .unwrap();
        let columns = columns();
        let piece = Piece {
            batch: 0,
            columns: &columns,
            received: 5,
            begins_segment: false,
        };
        let spans = [Span::whole(&piece)];
        let names = [ODD, "joined", "by-arrays"];
        let made = names.map(|name| make_table(&mut connection, name));
        let [first, second, third] = &made;

        let (_, rows) = number(&line(ODD), &spans, 3600.0);
        copy::copy(&mut connection, ODD, first, &rows).unwrap();
        let (moved, rows) = number(&line("joined"), &spans, 3600.0);
        joined::insert(
            &mut connection,
            &[Part {
                line: moved,
                table: second,
                rows,
            }],
        )
        .unwrap();
        insert(
            &mut connection,
            &mut line("by-arrays"),
            third,
            &spans,
            3600.0,
        )
        .unwrap();

        let [copied, joined, arrays] = names.map(|name| texts(&mut connection, name));
        assert_eq!(copied.len(), ROWS);
        assert_eq!(copied, joined);
        assert_eq!(copied, arrays);
        assert!(
            copied[1].contains("NaN") && copied[5].contains("-Infinity"),
            "{copied:?}"
        );
        assert!(
            copied[0].contains("1969-12-31 23:59:59.999999+00"),
            "{copied:?}"
        );
    }

    #[test]
    fn rows_that_a_copy_refuses_leave_the_connection_and_the_table_as_they_were() {
        let postgres = testing::postgres();
        let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
        connection.batch_execute("CREATE SCHEMA battery").unwrap();
        let columns = columns();
        let piece = Piece {
            batch: 0,
            columns: &columns,
            received: 5,
            begins_segment: false,
        };
        let spans = [Span::whole(&piece)];
        let table = make_table(&mut connection, ODD);
        let (_, rows) = number(&line(ODD), &spans, 3600.0);
        copy::copy(&mut connection, ODD, &table, &rows).unwrap();
        let again = connection.transaction(|connection| copy::copy(connection, ODD, &table, &rows));
        let error = again.unwrap_err();
        assert!(error.to_string().contains("duplicate key"), "{error}");
        assert!(!is_away(&error));
        assert_eq!(texts(&mut connection, ODD).len(), ROWS);
    }
}
