//! Rows as integrals over time need them: time, current, voltage, temperature and cycle number,
//! whatever numeric types the table gave them.

use diesel::{
    Connection, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_types::{BigInt, Double, Integer, Nullable},
};

use super::{
    batteries::Line,
    statement::Statement,
    tables::{self, ColumnType},
};
use crate::cycles::integral::{Point, Sample};

/// Columns in the order in which they are read.
const COLUMNS: [&str; 5] = [
    "test_time",
    "current",
    "voltage",
    "temperature",
    "cycle_number",
];
/// Rows fetched at once from a query that is read to its end.
const FETCHED: &str = "FETCH 10000 FROM samples";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Integer)]
    segment: i32,
    #[diesel(sql_type = Nullable<Double>)]
    test_time: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    current: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    voltage: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    temperature: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    cycle_number: Option<f64>,
}

impl From<Row> for Sample {
    fn from(row: Row) -> Self {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let measured = (
            finite(row.test_time),
            finite(row.current),
            finite(row.voltage),
        );
        Self {
            seq: row.seq,
            segment: row.segment,
            cycle: finite(row.cycle_number).map(whole),
            point: match measured {
                (Some(time), Some(current), Some(voltage)) => Some(Point {
                    time,
                    current,
                    voltage,
                }),
                _ => None,
            },
            temperature: finite(row.temperature),
        }
    }
}

/// Some cyclers write whole numbers as floats.
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of cycles are small"
)]
fn whole(number: f64) -> i64 {
    number.floor() as i64
}

/// Which rows are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// Up to so many rows after a `seq`, in the order of `seq`.
    After(i64, usize),
    /// Rows of a range of `seq`, in the order of `seq`.
    Range(i64, i64),
    /// Rows of a range of `seq` with one segment and cycle number, in the order of `test_time`.
    OfCycle {
        /// First and last `seq`.
        range: (i64, i64),
        segment: i32,
        number: Option<i64>,
    },
}

/// What can be read of a table.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    name: String,
    /// The columns that the table has, null for the others.
    has: [bool; COLUMNS.len()],
}

impl Samples {
    /// Looks at a battery's table; `None` where there is none.
    pub(crate) fn of(connection: &mut PgConnection, line: &Line) -> QueryResult<Option<Self>> {
        let table = tables::load(connection, line)?;
        let is_number = |kind: &ColumnType| matches!(kind, ColumnType::Int | ColumnType::Float);
        let has = |name: &str| {
            let mut columns = table.columns().iter();
            columns.any(|(known, kind)| known == name && is_number(kind))
        };
        let name = line.name.clone();
        Ok((!table.columns().is_empty()).then(|| Self {
            name,
            has: COLUMNS.map(has),
        }))
    }

    fn select(&self, statement: Statement, which: Which) -> Statement {
        let columns = COLUMNS.into_iter().zip(self.has);
        let statement =
            statement
                .sql("SELECT seq, segment")
                .each(columns, |statement, (name, has)| {
                    let statement = statement.sql(", ");
                    let statement = if has {
                        statement.identifier(name)
                    } else {
                        statement.sql("NULL")
                    };
                    statement.sql("::double precision AS ").identifier(name)
                });
        let statement = statement.sql(" FROM ").battery(&self.name).sql(" WHERE ");
        let between = |statement: Statement, (first, last): (i64, i64)| {
            let statement = statement.sql("seq BETWEEN ").long(first);
            statement.sql(" AND ").long(last)
        };
        match which {
            Which::After(seq, limit) => {
                let statement = statement.sql("seq > ").long(seq);
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                statement.sql(" ORDER BY seq LIMIT ").long(limit)
            }
            Which::Range(first, last) => between(statement, (first, last)).sql(" ORDER BY seq"),
            Which::OfCycle {
                range,
                segment,
                number,
            } => {
                let statement = between(statement, range).sql(" AND segment = ");
                let statement = statement.long(segment.into());
                let [time, .., has_number] = self.has;
                let statement = match number.filter(|_| has_number) {
                    Some(number) => {
                        let statement = statement.sql(" AND floor(cycle_number) = ");
                        statement.long(number)
                    }
                    None if has_number => statement.sql(" AND cycle_number IS NULL"),
                    None => statement,
                };
                statement.sql(if time {
                    " ORDER BY test_time, seq"
                } else {
                    " ORDER BY seq"
                })
            }
        }
    }

    /// Reads rows that are few enough for memory.
    pub(crate) fn read(
        &self,
        connection: &mut PgConnection,
        which: Which,
    ) -> QueryResult<Vec<Sample>> {
        let rows: Vec<Row> = self.select(Statement::once(), which).load(connection)?;
        Ok(rows.into_iter().map(Sample::from).collect())
    }

    /// Hands all rows over one by one, however many there are.
    pub(crate) fn each(
        &self,
        connection: &mut PgConnection,
        which: Which,
        mut take: impl FnMut(Sample),
    ) -> QueryResult<()> {
        connection.transaction(|connection| {
            let declare = Statement::once().sql("DECLARE samples NO SCROLL CURSOR FOR ");
            self.select(declare, which).execute(connection)?;
            loop {
                let rows: Vec<Row> = diesel::sql_query(FETCHED).load(connection)?;
                if rows.is_empty() {
                    return connection.batch_execute("CLOSE samples");
                }
                rows.into_iter().map(Sample::from).for_each(&mut take);
            }
        })
    }
}
