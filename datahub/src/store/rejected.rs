//! `hub.rejected_rows`: rows that fit no rule, with the reason.

use std::ops::RangeInclusive;

use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{Array, BigInt, Json, Nullable, Text, Uuid as SqlUuid},
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    batteries::Line,
    statement::{ArrayBind, Statement},
};
use crate::{batch::Batch, upload::RejectedRow};

/// Keeps rejected rows of one battery.
pub(super) fn keep(
    connection: &mut PgConnection,
    line: &Line,
    rows: &[(&Batch, RejectedRow)],
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = rows.iter().map(|(_, row)| storable(&row.reason)).collect();
    let bodies: Vec<String> = rows.iter().map(|(_, row)| row.body.to_string()).collect();
    let position = |(batch, row): &(&Batch, RejectedRow)| {
        batch.position + i64::try_from(row.offset).unwrap_or_default()
    };
    let session = |(batch, _): &(&Batch, RejectedRow)| Some(batch.uploader.claim.session);
    Statement::cached()
        .sql(
            "INSERT INTO hub.rejected_rows \
             (battery_id, epoch, session, position, received, reason, body) SELECT ",
        )
        .long(line.id)
        .sql(", ")
        .long(line.epoch)
        .sql(", s, p, r, t, b::json FROM unnest(")
        .array(ArrayBind::uuids(rows.iter().map(session)))
        .sql(", ")
        .array(ArrayBind::longs(rows.iter().map(position)))
        .sql(", ")
        .array(ArrayBind::times(
            rows.iter().map(|(batch, _)| batch.received),
        ))
        .sql(", ")
        .array(ArrayBind::texts(reasons.iter().map(String::as_str)))
        .sql(", ")
        .array(ArrayBind::texts(bodies.iter().map(String::as_str)))
        .sql(") AS u(s, p, r, t, b)")
        .execute(connection)
        .map(drop)
}

/// PostgreSQL's text cannot hold NUL, which a refused name may.
fn storable(reason: &str) -> String {
    reason.replace('\0', "\\0")
}

/// After a replay: the rows that were stored leave, the others stay with their new reasons.
///
/// `replayed` are the lines' ids by row.
pub(super) fn settle(
    connection: &mut PgConnection,
    replayed: &[i64],
    rejected: &[RejectedRow],
) -> QueryResult<()> {
    let id = |row: &RejectedRow| replayed.get(row.offset).copied();
    let still: Vec<i64> = rejected.iter().filter_map(id).collect();
    let reasons: Vec<String> = rejected.iter().map(|row| storable(&row.reason)).collect();
    sql_query(
        "UPDATE hub.rejected_rows r SET reason = n.reason FROM unnest($1, $2) AS n(id, reason) \
         WHERE r.id = n.id",
    )
    .bind::<Array<BigInt>, _>(&still)
    .bind::<Array<Text>, _>(&reasons)
    .execute(connection)?;
    let stored: Vec<i64> = replayed
        .iter()
        .copied()
        .filter(|id| !still.contains(id))
        .collect();
    sql_query("DELETE FROM hub.rejected_rows WHERE id = ANY($1)")
        .bind::<Array<BigInt>, _>(&stored)
        .execute(connection)
        .map(drop)
}

/// A rejected row as it is kept.
#[derive(Debug, Clone, QueryableByName, Serialize, utoipa::ToSchema)]
pub(crate) struct KeptRow {
    /// Names the row; ascends in the order of rejecting.
    #[diesel(sql_type = BigInt)]
    pub(crate) id: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    /// The upload session that it came by.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    #[schema(value_type = Option<String>, format = "uuid")]
    session: Option<Uuid>,
    /// Its place in the session.
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    received: i64,
    #[diesel(sql_type = Text)]
    reason: String,
    /// As it was sent.
    #[diesel(sql_type = Json)]
    pub(crate) row: serde_json::Value,
}

/// Ids of rejected rows: ranges, bounds inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids(pub(crate) Vec<RangeInclusive<i64>>);

impl Ids {
    fn bounds(&self) -> (Vec<i64>, Vec<i64>) {
        let bounds = self.0.iter().map(|range| (*range.start(), *range.end()));
        bounds.unzip()
    }
}

/// Reads up to `limit` rejected rows with these ids that are above `after`, by id.
pub(crate) fn read(
    connection: &mut PgConnection,
    battery_id: i64,
    ids: &Ids,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<KeptRow>> {
    let (low, high) = ids.bounds();
    sql_query(
        "SELECT id, epoch, session, position, \
         (extract(epoch FROM received) * 1000000)::bigint AS received, reason, body AS row \
         FROM hub.rejected_rows WHERE battery_id = $1 AND id > $2 \
         AND EXISTS (SELECT FROM unnest($3, $4) AS range(low, high) WHERE id BETWEEN low AND high) \
         ORDER BY id LIMIT $5",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<BigInt, _>(after)
    .bind::<Array<BigInt>, _>(low)
    .bind::<Array<BigInt>, _>(high)
    .bind::<BigInt, _>(limit)
    .load(connection)
}

/// How many rows a reason cost.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName, Serialize, utoipa::ToSchema)]
pub(crate) struct Reason {
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// Lists the commonest reasons with their numbers of rows.
pub(crate) fn reasons(
    connection: &mut PgConnection,
    battery_id: i64,
    limit: i64,
) -> QueryResult<Vec<Reason>> {
    sql_query(
        "SELECT reason, count(*) AS rows FROM hub.rejected_rows WHERE battery_id = $1 \
         GROUP BY reason ORDER BY rows DESC, reason LIMIT $2",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<BigInt, _>(limit)
    .load(connection)
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// Counts a battery's rejected rows.
pub(crate) fn count(connection: &mut PgConnection, battery_id: i64) -> QueryResult<i64> {
    let counted: Counted =
        sql_query("SELECT count(*) AS rows FROM hub.rejected_rows WHERE battery_id = $1")
            .bind::<BigInt, _>(battery_id)
            .get_result(connection)?;
    Ok(counted.rows)
}

/// Drops rejected rows; returns how many.
pub(crate) fn drop_rows(
    connection: &mut PgConnection,
    battery_id: i64,
    ids: &Ids,
) -> QueryResult<usize> {
    let (low, high) = ids.bounds();
    sql_query(
        "DELETE FROM hub.rejected_rows WHERE battery_id = $1 \
         AND EXISTS (SELECT FROM unnest($2, $3) AS range(low, high) WHERE id BETWEEN low AND high)",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<Array<BigInt>, _>(low)
    .bind::<Array<BigInt>, _>(high)
    .execute(connection)
}

/// What a session's rows came to that were rejected.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub(crate) struct OfSession {
    #[diesel(sql_type = BigInt)]
    pub(crate) rows: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) position: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) reason: Option<String>,
}

/// Counts a session's rejected rows and finds the first.
pub(crate) fn of_session(
    connection: &mut PgConnection,
    battery_id: i64,
    session: Uuid,
) -> QueryResult<OfSession> {
    sql_query(
        "SELECT count(*) AS rows, min(position) AS position, \
         (array_agg(reason ORDER BY position))[1] AS reason \
         FROM hub.rejected_rows WHERE battery_id = $1 AND session = $2",
    )
    .bind::<BigInt, _>(battery_id)
    .bind::<SqlUuid, _>(session)
    .get_result(connection)
}
