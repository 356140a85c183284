//! Other tables of a battery's file, such as `cycle_stats` and `eis_data`: schema `tables`, listed
//! in `hub.tables`. A table is replaced as a whole.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryDsl, QueryResult, QueryableByName,
    RunQueryDsl, deserialize,
    pg::Pg,
    row::{Field, NamedRow, Row as DieselRow},
    sql_query,
    sql_types::{BigInt, Text},
};
use rovi_common::{
    name::{BatteryName, MAX_NAME_BYTES},
    rows::{Column, Columns, Value},
};

use super::{
    StoreError,
    batteries::{self, Line},
    cells::value_of,
    column_type::ColumnType,
    fit,
    schema::tables::dsl,
    share,
    statement::{ArrayBind, Element, Statement},
    tables::{Change, Table},
};

/// The most tables of a battery.
const MOST_TABLES: i64 = 100;
/// Rows of one insert.
const PIECE_ROWS: usize = 10_000;

/// Why a table is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// There is no such battery.
    #[error("there is no such battery")]
    NoBattery,
    /// A row has no place in the table.
    #[error("row {row}: {reason}")]
    Row {
        /// Its place, from 0.
        row: usize,
        /// Why.
        reason: String,
    },
    /// The battery has too many.
    #[error("the battery has {MOST_TABLES} other tables, which is the most")]
    TooMany,
}

/// A table that is there.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Listed {
    /// Its name within the battery.
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    /// Its name in schema `tables`.
    #[diesel(sql_type = Text)]
    pub(crate) sql_name: String,
    #[diesel(sql_type = BigInt)]
    pub(crate) rows: i64,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    pub(crate) changed: i64,
}

/// Replaces a table, or makes it; returns its name in schema `tables`.
///
/// # Errors
/// PostgreSQL is away or refuses, nothing was changed; and see [`TableError`].
pub(crate) fn replace(
    connection: &mut PgConnection,
    battery: &BatteryName,
    name: &str,
    columns: &Columns,
) -> Result<Result<String, TableError>, StoreError> {
    let mut table = Table::default();
    let mut kinds = Vec::new();
    for change in fit::wanted(columns, &mut table, usize::MAX) {
        if let Change::Add(name, kind) = change {
            kinds.push((name, kind));
        }
    }
    let fitted = fit::fit(columns, &table);
    if let Some((row, reason)) = fitted.rejected.into_iter().next() {
        return Ok(Err(TableError::Row { row, reason }));
    }
    connection.transaction(|connection| {
        // Whoever deletes the battery waits for this.
        sql_query("SELECT FROM hub.batteries WHERE name = $1 FOR KEY SHARE")
            .bind::<Text, _>(battery.as_str())
            .execute(connection)?;
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Ok(Err(TableError::NoBattery));
        };
        let sql_name = sql_name(&line, name);
        // Two who store the same table take turns.
        sql_query("SELECT pg_advisory_xact_lock(hashtextextended('tables.' || $1, 0))")
            .bind::<Text, _>(&sql_name)
            .execute(connection)?;
        if !register(connection, &line, (name, &sql_name), columns.rows())? {
            return Ok(Err(TableError::TooMany));
        }
        let drop = Statement::once().sql("DROP TABLE IF EXISTS tables.");
        drop.identifier(&sql_name).execute(connection)?;
        create(connection, &sql_name, &kinds)?;
        share::table(connection, ("tables", &sql_name), &line.name)?;
        for from in (0..columns.rows()).step_by(PIECE_ROWS) {
            let to = columns.rows().min(from + PIECE_ROWS);
            insert(connection, &sql_name, &kinds, &fitted.columns, (from, to))?;
        }
        Ok(Ok(sql_name))
    })
}

/// Returns `<battery>/<table>`, where a battery's name too long for that is cut and told apart.
fn sql_name(line: &Line, table: &str) -> String {
    let suffix = format!("/{table}");
    if line.name.len() + suffix.len() <= MAX_NAME_BYTES {
        return format!("{}{suffix}", line.name);
    }
    let suffix = format!("~{}{suffix}", line.id);
    let room = MAX_NAME_BYTES.saturating_sub(suffix.len());
    let start: String = line.name.chars().take(room).collect();
    start + &suffix
}

/// Notes the table; false where the battery has too many.
fn register(
    connection: &mut PgConnection,
    line: &Line,
    (name, sql_name): (&str, &str),
    rows: usize,
) -> QueryResult<bool> {
    let written = sql_query(
        "INSERT INTO hub.tables (battery_id, name, sql_name, \"rows\") \
         SELECT $1, $2, $3, $4 WHERE $5 > ( \
           SELECT count(*) FROM hub.tables WHERE battery_id = $1 AND name <> $2) \
         ON CONFLICT (battery_id, name) DO UPDATE SET \"rows\" = excluded.\"rows\", \
           changed = now()",
    )
    .bind::<BigInt, _>(line.id)
    .bind::<Text, _>(name)
    .bind::<Text, _>(sql_name)
    .bind::<BigInt, _>(i64::try_from(rows).unwrap_or(i64::MAX))
    .bind::<BigInt, _>(MOST_TABLES)
    .execute(connection)?;
    Ok(written > 0)
}

fn create(
    connection: &mut PgConnection,
    sql_name: &str,
    kinds: &[(String, ColumnType)],
) -> QueryResult<()> {
    Statement::once()
        .sql("CREATE TABLE tables.")
        .identifier(sql_name)
        .sql(" (seq bigint PRIMARY KEY")
        .each(kinds, |statement, (name, kind)| {
            let statement = statement.sql(", ").identifier(name);
            statement.sql(" ").sql(kind.sql())
        })
        .sql(")")
        .execute(connection)
        .map(drop)
}

fn insert(
    connection: &mut PgConnection,
    sql_name: &str,
    kinds: &[(String, ColumnType)],
    columns: &Columns,
    (from, to): (usize, usize),
) -> QueryResult<()> {
    let mut seqs = ArrayBind::new(Element::Long, to - from);
    for row in from..to {
        seqs.put_long(i64::try_from(row + 1).unwrap_or(i64::MAX));
    }
    let arrays = kinds.iter().map(|(name, kind)| {
        let mut array = ArrayBind::new(kind.element(), to - from);
        match columns.get(name) {
            Some(column) => array.put_column(column, from, to),
            None => array.put_nulls(to - from),
        }
        array
    });
    Statement::once()
        .sql("INSERT INTO tables.")
        .identifier(sql_name)
        .sql(" (seq")
        .each(kinds, |statement, (name, _)| {
            statement.sql(", ").identifier(name)
        })
        .sql(") SELECT * FROM unnest(")
        .array(seqs)
        .each(arrays, |statement, array| statement.sql(", ").array(array))
        .sql(")")
        .execute(connection)
        .map(drop)
}

/// Lists a battery's tables; `None` where there is no such battery.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn list(
    connection: &mut PgConnection,
    battery: &BatteryName,
) -> Result<Option<Vec<Listed>>, StoreError> {
    let Some(line) = batteries::find(connection, battery.as_str())? else {
        return Ok(None);
    };
    let listed = sql_query(
        "SELECT name, sql_name, \"rows\", (extract(epoch FROM changed) * 1000000)::bigint \
         AS changed FROM hub.tables WHERE battery_id = $1 ORDER BY name",
    )
    .bind::<BigInt, _>(line.id)
    .load(connection)?;
    Ok(Some(listed))
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    /// Places of the rows, from 1.
    pub(crate) seq: Vec<i64>,
    /// Its columns, in their order.
    pub(crate) columns: Columns,
    /// All rows of the table.
    pub(crate) rows: i64,
}

struct Row(i64, Vec<Value>);

impl QueryableByName<Pg> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let cell = |place| {
            let cell = DieselRow::get(row, place).ok_or("a column is missing in the answer")?;
            value_of(cell.value())
        };
        let Value::Int(seq) = cell(0)? else {
            return Err("seq is no integer".into());
        };
        let values = (1..row.field_count()).map(cell);
        Ok(Self(seq, values.collect::<deserialize::Result<_>>()?))
    }
}

/// Reads up to `limit` rows after the `after`-th; `None` where there is no such table.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn read(
    connection: &mut PgConnection,
    battery: &BatteryName,
    name: &str,
    (after, limit): (i64, i64),
) -> Result<Option<Read>, StoreError> {
    connection.transaction(|connection| {
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Ok(None);
        };
        let known: Option<(String, i64)> = dsl::tables
            .find((line.id, name))
            .select((dsl::sql_name, dsl::rows))
            .first(connection)
            .optional()?;
        let Some((sql_name, rows)) = known else {
            return Ok(None);
        };
        let names = column_names(connection, &sql_name)?;
        let statement = Statement::once()
            .sql("SELECT seq")
            .each(&names, |statement, name| {
                statement.sql(", ").identifier(name)
            })
            .sql(" FROM tables.")
            .identifier(&sql_name)
            .sql(" WHERE seq > ")
            .long(after)
            .sql(" ORDER BY seq LIMIT ")
            .long(limit);
        let found: Vec<Row> = statement.load(connection)?;
        let mut cells = vec![Column::new(); names.len()];
        let mut seq = Vec::with_capacity(found.len());
        for Row(place, values) in found {
            seq.push(place);
            for (column, value) in cells.iter_mut().zip(values) {
                column.push(value);
            }
        }
        let columns = names.into_iter().zip(cells).collect();
        // PostgreSQL's names are unique, and every row gave each column a cell.
        let columns = Columns::new(columns).unwrap_or_default();
        Ok(Some(Read { seq, columns, rows }))
    })
}

fn column_names(connection: &mut PgConnection, sql_name: &str) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let names: Vec<Named> = sql_query(
        "SELECT a.attname::text AS name FROM pg_attribute a \
         JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'tables' AND c.relname = $1 AND a.attnum > 1 AND NOT a.attisdropped \
         ORDER BY a.attnum",
    )
    .bind::<Text, _>(sql_name)
    .load(connection)?;
    Ok(names.into_iter().map(|one| one.name).collect())
}
