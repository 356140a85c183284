//! What PostgreSQL says of tables: names and types of their columns.

use std::collections::HashMap;

use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types::Text};

use super::{
    column_type::ColumnType,
    statement::{ArrayBind, Statement},
};

/// Names and types of columns, in the order of their table.
pub(super) type Columns = Vec<(String, ColumnType)>;

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
}

/// Reads the columns of a table; none where there is no table.
///
/// # Errors
/// As diesel's.
pub(super) fn of_table(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> QueryResult<Columns> {
    let mut found = of_tables(connection, schema, [table])?;
    Ok(found.remove(table).unwrap_or_default())
}

/// Reads the columns of many tables of a schema at once, by the tables' names.
///
/// # Errors
/// As diesel's.
pub(super) fn of_tables<'n>(
    connection: &mut PgConnection,
    schema: &str,
    tables: impl IntoIterator<Item = &'n str>,
) -> QueryResult<HashMap<String, Columns>> {
    let found: Vec<Found> = Statement::cached()
        .sql(
            "SELECT c.relname::text AS table_name, a.attname::text AS name, \
             format_type(a.atttypid, NULL) AS kind \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname = ",
        )
        .text(schema)
        .sql(" AND c.relname = ANY(")
        .array(ArrayBind::texts(tables))
        .sql("::name[]) ORDER BY a.attnum")
        .load(connection)?;
    let mut columns: HashMap<String, Columns> = HashMap::new();
    for column in found {
        let kind = ColumnType::from_sql(&column.kind);
        let columns = columns.entry(column.table_name).or_default();
        columns.push((column.name, kind));
    }
    Ok(columns)
}
