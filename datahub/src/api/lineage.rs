//! What made estimates: `/db/{battery}/estimates/lineage` and the registrations of before.

use actix_web::{HttpResponse, web};
use diesel::PgConnection;
use rovi_common::{http::Problem, name::EstimatorName};
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::{
        StoreError,
        batteries::{self, Line},
        lineage::{self, Made, Registered},
    },
};

/// Which estimates.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LineageQuery {
    /// Which estimator; else the champion of row `seq`, or of the newest.
    estimator: Option<String>,
    /// Of the estimate after this row alone.
    seq: Option<i64>,
}

/// What made an estimator's estimates.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LineageBody {
    battery: String,
    estimator: String,
    /// The newest first.
    lineage: Vec<Made>,
}

/// Registrations of an estimator.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RevisionsBody {
    battery: String,
    estimator: String,
    /// The newest first, at most 100.
    revisions: Vec<Registered>,
}

/// Tells what made an estimator's estimates: rows, registration, generation and code.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimates/lineage",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery"), LineageQuery),
    responses(
        (status = 200, body = LineageBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_lineage(
    battery: web::Path<String>,
    query: web::Query<LineageQuery>,
    hub: web::Data<Hub>,
) -> Result<web::Json<LineageBody>, Problem> {
    let battery = battery_name(&battery)?;
    let asked = query.estimator.as_deref().map(estimator_name).transpose()?;
    let (name, seq) = (battery.clone(), query.seq);
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, name.as_str())? else {
            return Ok(None);
        };
        let estimator = match asked {
            Some(estimator) => estimator,
            None => champion(connection, &line, seq)?,
        };
        let lineage = lineage::list(connection, (&name, &line), &estimator, seq)?;
        Ok(Some((estimator, lineage)))
    };
    let read = hub.pool.run(read).await?;
    let (estimator, lineage) = read.ok_or_else(|| no_such_battery(&battery))?;
    if let (Some(seq), true) = (query.seq, lineage.is_empty()) {
        let detail = format!("{estimator} of {battery} has no estimate of row {seq}");
        return Err(Problem::not_found(detail).at("seq"));
    }
    Ok(web::Json(LineageBody {
        battery: battery.into(),
        estimator: estimator.to_string(),
        lineage,
    }))
}

/// Names whose estimates are meant where nobody is named.
fn champion(
    connection: &mut PgConnection,
    line: &Line,
    seq: Option<i64>,
) -> Result<EstimatorName, StoreError> {
    let named = lineage::champion(connection, line, seq.unwrap_or(line.last_seq))?;
    Ok(named.and_then(|name| name.parse().ok()).unwrap_or_default())
}

/// Lists an estimator's registrations, those of before and removed ones included.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimators/{estimator}/revisions",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("estimator" = String, Path, description = "Name of the estimator"),
    ),
    responses(
        (status = 200, body = RevisionsBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_revisions(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<web::Json<RevisionsBody>, Problem> {
    let (battery, estimator) = path.into_inner();
    let revisions = revisions(&hub, (&battery, &estimator), None).await?;
    Ok(web::Json(RevisionsBody {
        battery,
        estimator,
        revisions,
    }))
}

/// Reads one registration of an estimator.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimators/{estimator}/revisions/{revision}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("estimator" = String, Path, description = "Name of the estimator"),
        ("revision" = i64, Path, description = "Its revision"),
    ),
    responses(
        (status = 200, body = Registered), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_revision(
    path: web::Path<(String, String, String)>,
    hub: web::Data<Hub>,
) -> Result<web::Json<Registered>, Problem> {
    let (battery, estimator, revision) = path.into_inner();
    let number: i64 = revision.parse().map_err(|_no_number| {
        Problem::bad_request(format!("`{revision}` is no revision")).at("revision")
    })?;
    let found = revisions(&hub, (&battery, &estimator), Some(number)).await?;
    found.into_iter().next().map(web::Json).ok_or_else(|| {
        let detail = format!("{estimator} of {battery} had no revision {revision}");
        Problem::not_found(detail).at("revision")
    })
}

/// Reads a file that a registration had, by its digest.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimators/{estimator}/files/{digest}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("estimator" = String, Path, description = "Name of the estimator"),
        ("digest" = String, Path, description = "SHA-256 of the file, in hexadecimal"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_file(
    path: web::Path<(String, String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, _, digest) = path.into_inner();
    let battery = battery_name(&battery)?;
    let (name, wanted) = (battery.to_string(), digest.clone());
    let read = move |connection: &mut PgConnection| -> Result<_, StoreError> {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        Ok(lineage::file(connection, line.id, &wanted)?)
    };
    let content = hub.pool.run(read).await?.ok_or_else(|| {
        Problem::not_found(format!("no registration of {battery} had a file {digest}"))
    })?;
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .body(content))
}

async fn revisions(
    hub: &Hub,
    (battery, estimator): (&str, &str),
    revision: Option<i64>,
) -> Result<Vec<Registered>, Problem> {
    let (battery, estimator) = (battery_name(battery)?, estimator_name(estimator)?);
    let name = battery.to_string();
    let read = move |connection: &mut PgConnection| {
        let Some(line) = batteries::find(connection, &name)? else {
            return Ok(None);
        };
        let found = lineage::registrations(connection, line.id, &estimator, revision)?;
        Ok(Some(found))
    };
    let found = hub.pool.run(read).await?;
    found.ok_or_else(|| no_such_battery(&battery))
}

fn estimator_name(text: &str) -> Result<EstimatorName, Problem> {
    text.parse()
        .map_err(|error| Problem::bad_request(error).at("estimator"))
}
