//! `hub.revocations`: JWTs that do not count any more.

use diesel::{
    PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use rovi_common::auth::Revocation;

use super::StoreError;

const COLUMNS: &str = "id, jti, subject, created_by, revision, \
     (extract(epoch FROM issued_before) * 1000000)::bigint AS issued_before, \
     (extract(epoch FROM created) * 1000000)::bigint AS created";

/// A revocation and who made it when.
#[derive(Debug, Clone)]
pub(crate) struct StoredRevocation {
    /// What services know of it.
    pub(crate) record: Revocation,
    /// When it was made, in microseconds since 1970.
    pub(crate) created: i64,
    /// Who made it.
    pub(crate) created_by: String,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Nullable<Text>)]
    jti: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    subject: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    issued_before: Option<i64>,
    #[diesel(sql_type = BigInt)]
    created: i64,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = BigInt)]
    revision: i64,
}

impl From<Row> for StoredRevocation {
    fn from(row: Row) -> Self {
        Self {
            record: Revocation {
                id: row.id,
                jti: row.jti,
                subject: row.subject,
                issued_before: row.issued_before,
                revision: row.revision,
            },
            created: row.created,
            created_by: row.created_by,
        }
    }
}

/// Lists all revocations.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn list(conn: &mut PgConnection) -> Result<Vec<StoredRevocation>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM hub.revocations ORDER BY created, id");
    let rows: Vec<Row> = sql_query(statement).load(conn)?;
    Ok(rows.into_iter().map(StoredRevocation::from).collect())
}

/// Keeps a revocation; one of the same subject goes on to hold where it reaches further.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn put(
    conn: &mut PgConnection,
    new: &Revocation,
    created_by: &str,
) -> Result<StoredRevocation, StoreError> {
    let statement = format!(
        "INSERT INTO hub.revocations AS r (id, jti, subject, issued_before, created_by) \
         VALUES ($1, $2, $3, to_timestamp($4 / 1000000.0), $5) \
         ON CONFLICT (id) DO UPDATE SET \
           issued_before = greatest(r.issued_before, excluded.issued_before), \
           revision = nextval('hub.revisions') \
         RETURNING {COLUMNS}"
    );
    let row: Row = sql_query(statement)
        .bind::<Text, _>(&new.id)
        .bind::<Nullable<Text>, _>(new.jti.as_ref())
        .bind::<Nullable<Text>, _>(new.subject.as_ref())
        .bind::<Nullable<BigInt>, _>(new.issued_before)
        .bind::<Text, _>(created_by)
        .get_result(conn)?;
    Ok(row.into())
}
