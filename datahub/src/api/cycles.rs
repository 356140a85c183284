//! `GET /db/{battery}/cycles`: what each cycle came to.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::http::Problem;
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::cycles::{self, Cycles, Listed},
};

const DEFAULT_LIMIT: i64 = 10_000;
const MOST_CYCLES: i64 = 100_000;

/// Which cycles, and how.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct CyclesQuery {
    /// Only cycles that begin after this row; the last one's `first_seq` continues the list.
    #[serde(default)]
    after_seq: i64,
    /// Most cycles: 10,000 if not given, at most 100,000.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<i64>,
    /// `json` or `csv`; else what `Accept` asks for.
    format: Option<String>,
}

/// Cycles in the order of their rows.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CyclesBody {
    battery: String,
    epoch: i64,
    /// Rows up to this are in the cycles.
    up_to_seq: i64,
    cycles: Vec<Listed>,
}

/// Lists a battery's cycles, with the columns of battery-data-toolkit's `cycle_stats`.
#[utoipa::path(
    get,
    path = "/db/{battery}/cycles",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery"), CyclesQuery),
    responses(
        (status = 200, content((CyclesBody = "application/json"), (String = "text/csv"))),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_cycles(
    request: HttpRequest,
    battery: web::Path<String>,
    query: web::Query<CyclesQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let is_csv = wants_csv(&request, query.format.as_deref())?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_CYCLES).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_CYCLES}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    let (name, after_seq) = (battery.clone(), query.after_seq);
    let read = move |connection: &mut _| cycles::list(connection, &name, (after_seq, limit));
    let listed = hub.pool.run(read).await?;
    let listed = listed.ok_or_else(|| no_such_battery(&battery))?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("Rovi-Epoch", listed.epoch))
        .insert_header((header::VARY, "Accept"));
    if is_csv {
        let body = csv(&listed).map_err(|error| Problem::internal(&error))?;
        return Ok(response.content_type("text/csv; charset=utf-8").body(body));
    }
    Ok(response.json(CyclesBody {
        battery: battery.into(),
        epoch: listed.epoch,
        up_to_seq: listed.up_to_seq,
        cycles: listed.listed,
    }))
}

/// Tells whether CSV is asked for, by the query or by `Accept`.
pub(super) fn wants_csv(request: &HttpRequest, format: Option<&str>) -> Result<bool, Problem> {
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    match format {
        Some("json") => Ok(false),
        Some("csv") => Ok(true),
        Some(other) => {
            let detail = format!("format={other} is not known; there are json and csv");
            Err(Problem::bad_request(detail).at("format"))
        }
        None => Ok(accept.contains("text/csv")),
    }
}

/// Writes a line a cycle; null is empty.
fn csv(listed: &Cycles) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for cycle in &listed.listed {
        writer.serialize(cycle)?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}
