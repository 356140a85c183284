//! `hub.audit`: who did what, as a chain.

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Integer, Text},
};
use rovi_common::auth::audit::{Chained, Entry, FIRST};

use super::StoreError;

/// Number of the advisory lock under which entries get their places: `audi` in ASCII.
const CHAIN_LOCK: i64 = 0x6175_6469;

#[derive(QueryableByName)]
struct Last {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    digest: String,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    previous: String,
    #[diesel(sql_type = Text)]
    digest: String,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Text)]
    service: String,
    #[diesel(sql_type = Text)]
    who: String,
    #[diesel(sql_type = Text)]
    source: String,
    #[diesel(sql_type = Text)]
    action: String,
    #[diesel(sql_type = Text)]
    path: String,
    #[diesel(sql_type = Text)]
    subject: String,
    #[diesel(sql_type = Integer)]
    status: i32,
}

impl From<Row> for Chained {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            previous: row.previous,
            digest: row.digest,
            entry: Entry {
                at: row.at,
                service: row.service,
                who: row.who,
                source: row.source,
                action: row.action,
                path: row.path,
                subject: row.subject,
                status: row.status,
            },
        }
    }
}

/// Puts an entry at the end of the chain.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn append(conn: &mut PgConnection, entry: &Entry) -> Result<(), StoreError> {
    let appended: QueryResult<()> = conn.transaction(|conn| {
        conn.batch_execute(&format!("SELECT pg_advisory_xact_lock({CHAIN_LOCK})"))?;
        let last = "SELECT id, digest FROM hub.audit ORDER BY id DESC LIMIT 1";
        let last: Option<Last> = sql_query(last).get_result(conn).optional()?;
        let (id, previous) = match last {
            Some(last) => (last.id + 1, last.digest),
            None => (1, FIRST.to_owned()),
        };
        let chained = Chained::after(id, previous, entry.clone());
        insert(conn, &chained)
    });
    Ok(appended?)
}

fn insert(conn: &mut PgConnection, chained: &Chained) -> QueryResult<()> {
    let entry = &chained.entry;
    sql_query(
        "INSERT INTO hub.audit (id, previous, digest, at, service, who, source, action, path, \
         subject, status) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind::<BigInt, _>(chained.id)
    .bind::<Text, _>(&chained.previous)
    .bind::<Text, _>(&chained.digest)
    .bind::<BigInt, _>(entry.at)
    .bind::<Text, _>(&entry.service)
    .bind::<Text, _>(&entry.who)
    .bind::<Text, _>(&entry.source)
    .bind::<Text, _>(&entry.action)
    .bind::<Text, _>(&entry.path)
    .bind::<Text, _>(&entry.subject)
    .bind::<Integer, _>(entry.status)
    .execute(conn)
    .map(drop)
}

/// Lists entries behind one, in their order.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn list(
    conn: &mut PgConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<Chained>, StoreError> {
    let rows: Vec<Row> = sql_query("SELECT * FROM hub.audit WHERE id > $1 ORDER BY id LIMIT $2")
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(limit)
        .load(conn)?;
    Ok(rows.into_iter().map(Chained::from).collect())
}
