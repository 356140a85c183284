//! `GET /db/{battery}/changes`: the journal of a battery's table.

use actix_web::web;
use diesel::{
    PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Text},
};
use rovi_common::http::Problem;
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{hub::Hub, store::batteries};

const DEFAULT_LIMIT: i64 = 100;
const MOST_CHANGES: i64 = 1000;

/// Which changes.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesQuery {
    /// Only changes with larger ids: the last `id` of the page before.
    after: Option<i64>,
    /// Most changes: 100 if not given, at most 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// A change of a battery's table.
#[derive(Debug, Clone, QueryableByName, Serialize, utoipa::ToSchema)]
pub(crate) struct JournalEntry {
    /// Ascends in the order of changing.
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    at: i64,
    /// `seq` of the newest row when the table was changed.
    #[diesel(sql_type = BigInt)]
    after_seq: i64,
    #[diesel(sql_type = Text)]
    change: String,
}

/// Changes of a battery's table.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ChangesBody {
    battery: String,
    changes: Vec<JournalEntry>,
    /// Whether the limit left changes out.
    more: bool,
}

/// Lists every change of a battery's table, and of its epoch, oldest first.
#[utoipa::path(
    get,
    path = "/db/{battery}/changes",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery"), ChangesQuery),
    responses(
        (status = 200, body = ChangesBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_changes(
    battery: web::Path<String>,
    query: web::Query<ChangesQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<ChangesBody>, Problem> {
    let battery = battery_name(&battery)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_CHANGES).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_CHANGES}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    let after = query.after.unwrap_or(i64::MIN);
    let name = battery.to_string();
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let mut changes: Vec<JournalEntry> = sql_query(
            "SELECT id, epoch, (extract(epoch FROM at) * 1000000)::bigint AS at, after_seq, \
             change FROM hub.table_changes WHERE battery_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind::<BigInt, _>(line.id)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(limit + 1)
        .load(connection)?;
        let most = usize::try_from(limit).unwrap_or_default();
        let more = changes.len() > most;
        changes.truncate(most);
        Ok(Some(ChangesBody {
            battery: name,
            changes,
            more,
        }))
    };
    let body = hub.pool.run(read).await?;
    body.map(web::Json).ok_or_else(|| no_such_battery(&battery))
}
