//! `hub.tokens` and `hub.placements`: who may do what with which batteries.

use diesel::{
    OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Double, Nullable, Text},
};
use rovi_common::auth::{Grant, Placement, TokenRecord, secret::Digest};

use super::StoreError;

const TOKEN_COLUMNS: &str = "id, name, digest, grants::text AS grants, created_by, revision, \
     (extract(epoch FROM created) * 1000000)::bigint AS created, \
     (extract(epoch FROM expires) * 1000000)::bigint AS expires, \
     (extract(epoch FROM revoked) * 1000000)::bigint AS revoked";

/// A token and who made it when.
#[derive(Debug, Clone)]
pub(crate) struct StoredToken {
    /// What services know of it.
    pub(crate) record: TokenRecord,
    /// When it was made, in microseconds since 1970.
    pub(crate) created: i64,
    /// Who made it.
    pub(crate) created_by: String,
}

/// A token to be stored.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) grants: Vec<Grant>,
    pub(crate) created_by: String,
    /// For how many seconds it counts; for ever if not given.
    pub(crate) expires_s: Option<f64>,
}

/// What changes whenever a token or a placement does.
#[derive(Debug, Clone, Default, PartialEq, Eq, QueryableByName)]
pub(crate) struct Fingerprint {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct TokenRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    digest: String,
    #[diesel(sql_type = Text)]
    grants: String,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = BigInt)]
    created: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    expires: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    revoked: Option<i64>,
    #[diesel(sql_type = BigInt)]
    revision: i64,
}

impl From<TokenRow> for StoredToken {
    fn from(row: TokenRow) -> Self {
        // Grants that somebody else wrote and nobody can read give nothing.
        let texts: Vec<String> = serde_json::from_str(&row.grants).unwrap_or_default();
        let grants = texts.iter().filter_map(|text| text.parse().ok());
        Self {
            record: TokenRecord {
                id: row.id,
                name: row.name,
                digest: Digest::stored(row.digest),
                grants: grants.collect(),
                expires: row.expires,
                revoked: row.revoked,
                revision: row.revision,
            },
            created: row.created,
            created_by: row.created_by,
        }
    }
}

#[derive(QueryableByName)]
struct PlacementRow {
    #[diesel(sql_type = Text)]
    battery: String,
    #[diesel(sql_type = Nullable<Text>)]
    tenant: Option<String>,
    #[diesel(sql_type = Text)]
    tags: String,
}

impl PlacementRow {
    /// `None` for a line that somebody else wrote and nobody can read.
    fn placement(self) -> Option<Placement> {
        Some(Placement {
            battery: self.battery.parse().ok()?,
            tenant: self.tenant.map(|name| name.parse()).transpose().ok()?,
            tags: serde_json::from_str(&self.tags).ok()?,
        })
    }
}

/// Tells whether anything changed, revocations too, since this was asked last.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn fingerprint(conn: &mut PgConnection) -> Result<Fingerprint, StoreError> {
    // The sum, since a revision may be committed after a greater one.
    let found = sql_query(
        "SELECT concat_ws(' ', t.rows, t.sum, p.rows, p.sum, r.rows, r.sum) AS value FROM \
         (SELECT count(*) AS rows, sum(revision) AS sum FROM hub.tokens) t, \
         (SELECT count(*) AS rows, sum(revision) AS sum FROM hub.placements) p, \
         (SELECT count(*) AS rows, sum(revision) AS sum FROM hub.revocations) r",
    )
    .get_result(conn)?;
    Ok(found)
}

/// Lists all tokens, also those that no longer count.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn tokens(conn: &mut PgConnection) -> Result<Vec<StoredToken>, StoreError> {
    let statement = format!("SELECT {TOKEN_COLUMNS} FROM hub.tokens ORDER BY created, id");
    let rows: Vec<TokenRow> = sql_query(statement).load(conn)?;
    Ok(rows.into_iter().map(StoredToken::from).collect())
}

/// Lists what is said of batteries.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn placements(conn: &mut PgConnection) -> Result<Vec<Placement>, StoreError> {
    let statement = "SELECT battery, tenant, tags::text AS tags FROM hub.placements ORDER BY 1";
    let rows: Vec<PlacementRow> = sql_query(statement).load(conn)?;
    Ok(rows
        .into_iter()
        .filter_map(PlacementRow::placement)
        .collect())
}

/// Stores a token.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn create(conn: &mut PgConnection, new: &NewToken) -> Result<StoredToken, StoreError> {
    let statement = format!(
        "INSERT INTO hub.tokens (id, name, digest, grants, created_by, expires) \
         VALUES ($1, $2, $3, $4::json, $5, now() + $6 * interval '1 second') \
         RETURNING {TOKEN_COLUMNS}"
    );
    let row: TokenRow = sql_query(statement)
        .bind::<Text, _>(&new.id)
        .bind::<Text, _>(&new.name)
        .bind::<Text, _>(new.digest.as_str())
        .bind::<Text, _>(serde_json::to_string(&new.grants).unwrap_or_default())
        .bind::<Text, _>(&new.created_by)
        .bind::<Nullable<Double>, _>(new.expires_s)
        .get_result(conn)?;
    Ok(row.into())
}

/// Revokes a token, once and for all; `None` where there is none.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn revoke(conn: &mut PgConnection, id: &str) -> Result<Option<StoredToken>, StoreError> {
    let statement = format!(
        "UPDATE hub.tokens SET revoked = coalesce(revoked, clock_timestamp()), \
           revision = nextval('hub.revisions') WHERE id = $1 RETURNING {TOKEN_COLUMNS}"
    );
    let row: Option<TokenRow> = sql_query(statement)
        .bind::<Text, _>(id)
        .get_result(conn)
        .optional()?;
    Ok(row.map(StoredToken::from))
}

/// Says to whom a battery belongs, and its tags.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn place(conn: &mut PgConnection, placement: &Placement) -> Result<(), StoreError> {
    sql_query(
        "INSERT INTO hub.placements (battery, tenant, tags) VALUES ($1, $2, $3::json) \
         ON CONFLICT (battery) DO UPDATE SET tenant = excluded.tenant, tags = excluded.tags, \
           revision = nextval('hub.revisions')",
    )
    .bind::<Text, _>(placement.battery.as_str())
    .bind::<Nullable<Text>, _>(
        placement
            .tenant
            .as_ref()
            .map(|name| name.as_str().to_owned()),
    )
    .bind::<Text, _>(serde_json::to_string(&placement.tags).unwrap_or_default())
    .execute(conn)?;
    Ok(())
}
