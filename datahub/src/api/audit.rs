//! `GET /audit`: who did what.

use actix_web::web;
use rovi_common::{auth::audit::Chained, http::Problem};
use serde::{Deserialize, Serialize};

use crate::{hub::Hub, store::audit};

const DEFAULT_LIMIT: i64 = 1000;
const MOST_ENTRIES: i64 = 10_000;

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only entries after this one.
    #[serde(default)]
    #[param(minimum = 0)]
    after: i64,
    /// Most entries: 1,000 if not given, at most 10,000.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<i64>,
}

/// Entries in their order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AuditBody {
    #[schema(value_type = Vec<Object>)]
    entries: Vec<Chained>,
}

/// Lists who did what, oldest first; `rovicli audit` checks the chain.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "access",
    params(AuditQuery),
    responses(
        (status = 200, body = AuditBody), (status = 400, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_audit(
    query: web::Query<AuditQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<AuditBody>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_ENTRIES).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_ENTRIES}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    let after = query.after;
    let entries = hub
        .pool
        .run(move |conn| audit::list(conn, after, limit))
        .await?;
    Ok(web::Json(AuditBody { entries }))
}
