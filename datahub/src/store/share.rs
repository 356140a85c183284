//! Lets the analysts of a battery's tenant read a table that was just made: `hub.share_table`.

use diesel::{PgConnection, QueryResult, RunQueryDsl, sql_query, sql_types::Text};

/// Shares a table of `schema` that belongs to a battery with the role of its tenant, where there is
/// one.
pub(crate) fn table(
    connection: &mut PgConnection,
    (schema, name): (&str, &str),
    battery: &str,
) -> QueryResult<()> {
    sql_query("SELECT hub.share_table($1, $2, $3)")
        .bind::<Text, _>(schema)
        .bind::<Text, _>(name)
        .bind::<Text, _>(battery)
        .execute(connection)
        .map(drop)
}
