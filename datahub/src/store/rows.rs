//! Rows read back from a battery's table.

use std::{collections::BTreeMap, ops::RangeInclusive};

use diesel::{
    Connection, PgConnection, QueryResult, QueryableByName, RunQueryDsl, deserialize,
    pg::{Pg, PgValue},
    row::{Field, NamedRow, Row as DieselRow},
};
use rovi_common::{
    name::BatteryName,
    rows::{Column, Columns, Value},
};

use super::{
    StoreError,
    batteries::{self, Line},
    columns,
    statement::{Statement, US_1970_TO_2000},
    tables::{self, ColumnType},
};
use crate::stored::StoredRows;

/// Which rows are asked for; bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// First and last `seq`.
    pub seq: RangeInclusive<i64>,
    /// First and last `test_time`, in seconds; rows without one are left out then.
    pub test_time: Option<(Option<f64>, Option<f64>)>,
    /// Names of columns; all if none are named.
    pub columns: Option<Vec<String>>,
    /// Most rows.
    pub limit: usize,
}

/// Rows in the order of `seq`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selected {
    /// `seq` of each row.
    pub seq: Vec<i64>,
    /// When the hub took each row, in microseconds since 1970.
    pub received: Vec<i64>,
    /// Segment of each row.
    pub segment: Vec<i32>,
    /// The columns asked for.
    pub columns: Columns,
    /// Units by column, where one is known.
    pub units: BTreeMap<String, String>,
    /// Whether the limit left rows out.
    pub more: bool,
}

/// Why rows cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The table has no such column.
    #[error("there is no column `{0}`")]
    NoColumn(String),
    /// Somebody dropped the table.
    #[error("its table is missing or has no columns any more")]
    NoTable,
    /// PostgreSQL did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads rows by a range of `seq`, at most `limit`, cut at segments; all columns.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub fn read(
    connection: &mut PgConnection,
    battery: &BatteryName,
    range: RangeInclusive<i64>,
    limit: i64,
) -> Result<Vec<StoredRows>, StoreError> {
    connection.transaction(|connection| {
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Ok(Vec::new());
        };
        let selection = Selection {
            seq: range,
            test_time: None,
            columns: None,
            limit: usize::try_from(limit).unwrap_or_default(),
        };
        let columns = tables::load(connection, &line)?.columns().to_vec();
        let rows = load(connection, &line, &selection, &columns)?;
        Ok(by_segment(battery, &line, rows))
    })
}

/// Reads rows of a battery, and its line as it was then.
///
/// # Errors
/// - `NoColumn`: a named column is missing, or `test_time` is asked for and missing.
/// - `NoTable`: the battery had a table once.
/// - `Store`: PostgreSQL is away or refuses.
pub fn select(
    connection: &mut PgConnection,
    line: &Line,
    selection: &Selection,
) -> Result<Selected, SelectError> {
    let table = tables::load(connection, line).map_err(StoreError::from)?;
    if line.form != 0 && table.columns().is_empty() {
        return Err(SelectError::NoTable);
    }
    let find = |name: &str| {
        let column = table.columns().iter().find(|(known, _)| known == name);
        column
            .cloned()
            .ok_or_else(|| SelectError::NoColumn(name.to_owned()))
    };
    if selection.test_time.is_some() {
        find("test_time")?;
    }
    let columns = match &selection.columns {
        Some(names) => names
            .iter()
            .map(|name| find(name))
            .collect::<Result<Vec<_>, _>>()?,
        None => table.columns().to_vec(),
    };
    let mut selected = load(connection, line, selection, &columns).map_err(StoreError::from)?;
    let names = columns.iter().map(|(name, _)| name.as_str());
    let meanings = columns::of_battery(connection, line, names).map_err(StoreError::from)?;
    let units = meanings.into_iter();
    selected.units = units
        .filter_map(|(name, meaning)| Some((name, meaning.unit?)))
        .collect();
    Ok(selected)
}

fn load(
    connection: &mut PgConnection,
    line: &Line,
    selection: &Selection,
    columns: &[(String, ColumnType)],
) -> QueryResult<Selected> {
    if line.form == 0 {
        return Ok(Selected::default());
    }
    let statement = statement(line, selection, columns);
    let mut selected = Selected::default();
    let mut cells = vec![Column::new(); columns.len()];
    for row in statement.load_iter::<Row, diesel::connection::DefaultLoadingMode>(connection)? {
        let row = row?;
        if selected.seq.len() == selection.limit {
            selected.more = true;
            break;
        }
        selected.seq.push(row.seq);
        selected.received.push(row.received);
        selected.segment.push(row.segment);
        for (column, value) in cells.iter_mut().zip(row.values) {
            column.push(value);
        }
    }
    let names = columns.iter().map(|(name, _)| name.clone());
    // PostgreSQL's names are unique, and every row gave each column a cell.
    selected.columns = Columns::new(names.zip(cells).collect()).unwrap_or_default();
    Ok(selected)
}

fn statement(line: &Line, selection: &Selection, columns: &[(String, ColumnType)]) -> Statement {
    let mut statement = Statement::once()
        .sql("SELECT seq, received, segment")
        .each(columns, |statement, (name, kind)| {
            let statement = statement.sql(", ").identifier(name);
            match kind {
                ColumnType::Foreign(_) => statement.sql("::text"),
                _ => statement,
            }
        })
        .sql(" FROM ")
        .battery(&line.name)
        .sql(" WHERE seq BETWEEN ")
        .long(*selection.seq.start())
        .sql(" AND ")
        .long(*selection.seq.end());
    if let Some((from, to)) = selection.test_time {
        statement = statement
            .sql(" AND test_time BETWEEN ")
            .real(from.unwrap_or(f64::NEG_INFINITY))
            .sql(" AND ")
            .real(to.unwrap_or(f64::INFINITY));
    }
    // One more tells whether there are more.
    let limit = i64::try_from(selection.limit).unwrap_or(i64::MAX);
    statement
        .sql(" ORDER BY seq LIMIT ")
        .long(limit.saturating_add(1))
}

/// A row with as many cells as were asked for.
struct Row {
    seq: i64,
    received: i64,
    segment: i32,
    values: Vec<Value>,
}

impl QueryableByName<Pg> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let cell =
            |place| DieselRow::get(row, place).ok_or("a column is missing in PostgreSQL's answer");
        let integer = |place| match value_of(cell(place)?.value())? {
            Value::Int(value) | Value::Time(value) => deserialize::Result::Ok(value),
            value => Err(format!("seq, received or segment is {}", value.kind()).into()),
        };
        let values = (3..row.field_count()).map(|place| value_of(cell(place)?.value()));
        Ok(Self {
            seq: integer(0)?,
            received: integer(1)?,
            segment: i32::try_from(integer(2)?)?,
            values: values.collect::<deserialize::Result<_>>()?,
        })
    }
}

/// Reads a cell by the type that PostgreSQL says it has.
fn value_of(value: Option<PgValue<'_>>) -> deserialize::Result<Value> {
    let Some(value) = value else {
        return Ok(Value::Null);
    };
    let bytes = value.as_bytes();
    Ok(match value.get_oid().get() {
        16 => Value::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
        20 => Value::Int(i64::from_be_bytes(bytes.try_into()?)),
        23 => Value::Int(i32::from_be_bytes(bytes.try_into()?).into()),
        25 => Value::Text(str::from_utf8(bytes)?.to_owned()),
        701 => Value::Float(f64::from_be_bytes(bytes.try_into()?)),
        1184 => {
            let since_2000 = i64::from_be_bytes(bytes.try_into()?);
            Value::Time(since_2000.saturating_add(US_1970_TO_2000))
        }
        oid => return Err(format!("PostgreSQL's type {oid} is not expected here").into()),
    })
}

/// Cuts rows where the segment changes, and at holes in `seq`.
pub(crate) fn by_segment(battery: &BatteryName, line: &Line, rows: Selected) -> Vec<StoredRows> {
    let mut cut: Vec<StoredRows> = Vec::new();
    let mut columns = rows.columns;
    let mut taken = 0;
    let keys: Vec<(i64, i32)> = rows.seq.iter().copied().zip(rows.segment).collect();
    let continues = |a: &(i64, i32), b: &(i64, i32)| a.0 + 1 == b.0 && a.1 == b.1;
    for run in keys.chunk_by(continues) {
        let rest = columns.split_off(run.len());
        let run_columns = std::mem::replace(&mut columns, rest);
        let received = rows.received.iter().skip(taken).take(run.len());
        taken += run.len();
        if let Some(&(first_seq, segment)) = run.first() {
            cut.push(StoredRows {
                battery_id: line.id,
                battery: battery.clone(),
                epoch: line.epoch,
                segment,
                first_seq,
                received: received.copied().collect(),
                columns: run_columns,
            });
        }
    }
    cut
}
