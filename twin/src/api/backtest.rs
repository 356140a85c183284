//! Candidates over stored history.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{battery_name, estimator_name, form::Form, register_estimator::read};
use crate::{
    backtest::Backtest,
    commands::{backtest, control::Stand},
    fleet::Fleet,
};

/// The fields of the form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the description of the form is used")]
struct BacktestForm {
    /// The candidate, as in `/online/register`; else `estimator` names one that is registered.
    definition: Option<String>,
    /// A registered estimator, or the name under which the definition is to be promoted.
    estimator: Option<String>,
    /// As in `/online/register`.
    valid_from: Option<f64>,
    /// As in `/online/register`.
    required_time: Option<f64>,
    /// As in `/online/register`.
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<Vec<u8>>,
}

/// Which rows a backtest reads.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeQuery {
    /// `first..last`, ends included, each may be left out; all rows if not given.
    seq: Option<String>,
}

/// The name of a candidate.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct NameQuery {
    /// The name under which a definition that was sent along is registered.
    estimator: Option<String>,
}

/// Starts a candidate over stored rows, beside the champion; it goes on after the answer.
#[utoipa::path(
    tag = "backtests",
    params(("battery" = String, Path, description = "The battery's name"), RangeQuery),
    request_body(content = BacktestForm, content_type = "multipart/form-data"),
    responses(
        (status = 202, description = "It runs; `id` names it", body = Backtest),
        (status = 400, description = "A field is wrong; `field` names it", body = Problem),
        (status = 404, description = "No such battery or estimator", body = Problem),
        (status = 429, description = "The caller started too many", body = Problem),
        (status = 503, description = "Too many run, or hub or bus are away", body = Problem),
    )
)]
#[post("/online/{battery}/backtest")]
pub(super) async fn start_backtest(
    access: Access,
    fleet: web::Data<Fleet>,
    request: HttpRequest,
    (path, query): (web::Path<String>, web::Query<RangeQuery>),
    body: web::Payload,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&path)?;
    access.purse().take_one(Flow::Registrations)?;
    let seq = range(query.seq.as_deref())?;
    let mut form = Form::read(&request, body).await?;
    form.name = Some(battery.to_string());
    let named = form.estimator.clone().filter(|name| !name.is_empty());
    let fleet = fleet.into_inner();
    let started = match (&form.definition, named) {
        (None, Some(name)) => {
            let estimator = estimator_name(&name)?;
            backtest::of_registered(&fleet, (&battery, &estimator), seq).await?
        }
        (_, named) => {
            let (candidate, files) = read(form)?;
            backtest::of_definition(&fleet, (candidate, named.is_some()), files, seq).await?
        }
    };
    Ok(HttpResponse::Accepted().json(started))
}

/// The backtests of a battery, the newest first.
#[utoipa::path(
    tag = "backtests",
    params(("battery" = String, Path, description = "The battery's name")),
    responses(
        (status = 200, description = "Those that run and those that are kept", body = Vec<Backtest>),
        (status = 503, description = "The bus is away", body = Problem),
    )
)]
#[get("/online/{battery}/backtest")]
pub(super) async fn list_backtests(
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
) -> Result<web::Json<Vec<Backtest>>, Problem> {
    let battery = battery_name(&path)?;
    backtest::list(&fleet, &battery).await.map(web::Json)
}

/// How a backtest stands, and what it found.
#[utoipa::path(
    tag = "backtests",
    params(
        ("battery" = String, Path, description = "The battery's name"),
        ("id" = String, Path, description = "The backtest"),
    ),
    responses(
        (status = 200, description = "The backtest", body = Backtest),
        (status = 404, description = "No such backtest", body = Problem),
        (status = 503, description = "The bus is away", body = Problem),
    )
)]
#[get("/online/{battery}/backtest/{id}")]
pub(super) async fn get_backtest(
    fleet: web::Data<Fleet>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<Backtest>, Problem> {
    let (battery, id) = path.into_inner();
    let battery = battery_name(&battery)?;
    backtest::show(&fleet, &battery, &id).await.map(web::Json)
}

/// Ends a backtest that runs; one that has ended is forgotten.
#[utoipa::path(
    tag = "backtests",
    params(
        ("battery" = String, Path, description = "The battery's name"),
        ("id" = String, Path, description = "The backtest"),
    ),
    responses(
        (status = 200, description = "How it stood", body = Backtest),
        (status = 404, description = "No such backtest", body = Problem),
        (status = 503, description = "The bus is away", body = Problem),
    )
)]
#[delete("/online/{battery}/backtest/{id}")]
pub(super) async fn end_backtest(
    fleet: web::Data<Fleet>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<Backtest>, Problem> {
    let (battery, id) = path.into_inner();
    let battery = battery_name(&battery)?;
    backtest::end(&fleet, &battery, &id).await.map(web::Json)
}

/// Makes the candidate of a backtest champion. A definition that was sent along is registered first
/// and promoted once it has caught up; 409 tells how far it is after 30 s, and asking again goes on.
#[utoipa::path(
    tag = "backtests",
    params(
        ("battery" = String, Path, description = "The battery's name"),
        ("id" = String, Path, description = "The backtest"),
        NameQuery,
    ),
    responses(
        (status = 200, description = "How the candidate stands now", body = Stand),
        (status = 404, description = "No such backtest", body = Problem),
        (status = 409, description = "It is not done, or the candidate is rows behind", body = Problem),
        (status = 503, description = "Hub or bus are away", body = Problem),
    )
)]
#[post("/online/{battery}/backtest/{id}/promote")]
pub(super) async fn promote_candidate(
    fleet: web::Data<Fleet>,
    path: web::Path<(String, String)>,
    query: web::Query<NameQuery>,
) -> Result<web::Json<Stand>, Problem> {
    let (battery, id) = path.into_inner();
    let battery = battery_name(&battery)?;
    let name = query.estimator.as_deref().map(estimator_name).transpose()?;
    let promoted = backtest::promote(&fleet, (&battery, &id), name).await;
    promoted.map(web::Json)
}

/// Reads `first..last`.
fn range(text: Option<&str>) -> Result<backtest::Range, Problem> {
    let Some(text) = text else {
        return Ok((None, None));
    };
    let wrong = || {
        let detail = format!("seq={text} is no range; it looks like 1..100, 50.. or ..100");
        Problem::bad_request(detail).at("seq")
    };
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let end = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_no_number| wrong()),
    };
    Ok((end(first)?, end(last)?))
}
