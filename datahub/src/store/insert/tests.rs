//! The ways of writing, straight into PostgreSQL.

use rovi_common::{
    rows::{Column, Columns},
    testing,
};

use super::*;
use crate::store::{
    joined::{self, Part},
    neighbours::{Neighbours, Seen},
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
        first_seq: 1,
        holder: None,
        holder_attempt: 0,
        holder_offset: 0,
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

#[derive(diesel::QueryableByName)]
struct Text {
    #[diesel(sql_type = diesel::sql_types::Text)]
    text: String,
}

fn texts(connection: &mut PgConnection, name: &str) -> Vec<String> {
    let read = Statement::once()
        .sql("SELECT t::text AS text FROM ")
        .battery(name);
    let rows: Vec<Text> = read.sql(" t ORDER BY seq").load(connection).unwrap();
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
        (Neighbours::of_writers(1), &mut Seen::default()),
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

#[test]
fn neighbours_that_come_together_again_share_a_prepared_statement() {
    const STATEMENTS: &str = "SELECT name AS text FROM pg_prepared_statements \
                              WHERE statement LIKE 'WITH%'";
    let postgres = testing::postgres();
    let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
    connection.batch_execute("CREATE SCHEMA battery").unwrap();
    let mut columns = columns();
    let _others = columns.split_off(1);
    let names: Vec<String> = (0..9).map(|number| format!("b{number}")).collect();
    let tables: Vec<Table> = names
        .iter()
        .map(|name| make_table(&mut connection, name))
        .collect();
    let mut seen = Seen::default();
    // Rounds of eight, one with one more, and rounds of eight again.
    for (round, count) in [8, 8, 8, 9, 8, 8].into_iter().enumerate() {
        let received = i64::try_from(round).unwrap();
        let piece = Piece {
            batch: 0,
            columns: &columns,
            received,
            begins_segment: false,
        };
        let spans = [Span::whole(&piece)];
        let parts = names.iter().zip(&tables).zip(1..).take(count);
        let parts = parts.map(|((name, table), id)| {
            let line = Line {
                id,
                last_seq: received,
                ..line(name)
            };
            let (line, rows) = number(&line, &spans, 3600.0);
            Part { line, table, rows }
        });
        let parts: Vec<Part<'_, '_>> = parts.collect();
        joined::insert(
            &mut connection,
            &parts,
            (Neighbours::of_writers(1), &mut seen),
        )
        .unwrap();
        let kept = diesel::sql_query(STATEMENTS).load::<Text>(&mut connection);
        assert_eq!(kept.unwrap().len(), usize::from(round > 0), "round {round}");
    }
    assert_eq!(texts(&mut connection, "b7").len(), 6);
    assert_eq!(texts(&mut connection, "b8").len(), 1);
}
