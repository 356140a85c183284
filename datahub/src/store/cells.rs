//! PostgreSQL's answers to typed columns.

use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl, deserialize,
    pg::{Pg, PgRowByRowLoadingMode, PgValue},
    row::{Field, NamedRow, Row as DieselRow},
};
use rovi_common::rows::{Column, Columns, Value};

use super::{
    rows::{Form, PageLimits, Selected},
    statement::{Statement, US_1970_TO_2000},
};

/// Reads the answers to statements, one after another and row by row, so that what a bound leaves
/// out is never kept, nor asked for.
pub(super) fn collect(
    connection: &mut PgConnection,
    statements: impl IntoIterator<Item = Statement>,
    columns: &Form,
    limits: PageLimits,
) -> QueryResult<Selected> {
    let mut selected = Selected::default();
    let mut cells: Vec<Column> = columns.iter().map(|(_, kind)| kind.empty()).collect();
    let mut bytes = 0_usize;
    'all: for statement in statements {
        for row in statement.load_iter::<Row, PgRowByRowLoadingMode>(connection)? {
            let row = row?;
            if selected.seq.len() == limits.rows || bytes > limits.bytes {
                selected.more = true;
                break 'all;
            }
            selected.seq.push(row.seq);
            selected.received.push(row.received);
            selected.segment.push(row.segment);
            for (column, value) in cells.iter_mut().zip(row.values) {
                bytes = bytes
                    .saturating_add(size_of::<Value>())
                    .saturating_add(text_bytes(&value));
                column.push(value);
            }
        }
    }
    let names = columns.iter().map(|(name, _)| name.clone());
    // PostgreSQL's names are unique, and every row gave each column a cell.
    selected.columns = Columns::new(names.zip(cells).collect()).unwrap_or_default();
    Ok(selected)
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        _ => 0,
    }
}

/// A row with as many cells as were asked for.
struct Row {
    seq: i64,
    received: Option<i64>,
    segment: Option<i32>,
    values: Vec<Value>,
}

impl QueryableByName<Pg> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let cell =
            |place| DieselRow::get(row, place).ok_or("a column is missing in PostgreSQL's answer");
        let integer = |place| match value_of(cell(place)?.value())? {
            Value::Null => deserialize::Result::Ok(None),
            Value::Int(value) | Value::Time(value) => Ok(Some(value)),
            value => Err(format!("seq, received or segment is {}", value.kind()).into()),
        };
        let values = (3..row.field_count()).map(|place| value_of(cell(place)?.value()));
        Ok(Self {
            seq: integer(0)?.ok_or("a row has no seq")?,
            received: integer(1)?,
            segment: integer(2)?.map(i32::try_from).transpose()?,
            values: values.collect::<deserialize::Result<_>>()?,
        })
    }
}

/// Reads a cell by the type that PostgreSQL says it has.
pub(super) fn value_of(value: Option<PgValue<'_>>) -> deserialize::Result<Value> {
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
