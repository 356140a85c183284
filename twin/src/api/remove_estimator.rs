//! Removing estimators.

use actix_web::{HttpRequest, delete, web};
use rovi_common::{
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::Deregister,
};

use super::{battery_name, committed, estimator_name, get_status::no_estimator, hub_problem};
use crate::fleet::Fleet;

/// Removes one estimator of a battery; its estimates stay.
#[utoipa::path(
    tag = "estimators",
    params(
        ("battery" = String, Path, description = "The battery's name"),
        ("estimator" = String, Path, description = "The estimator's name"),
    ),
    responses(
        (status = 200, description = "What was removed, in words", body = String),
        (status = 404, description = "No such estimator", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[delete("/online/{battery}/{estimator}")]
pub(super) async fn remove_estimator(
    fleet: web::Data<Fleet>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<String>, Problem> {
    let (battery, estimator) = path.into_inner();
    let (battery, estimator) = (battery_name(&battery)?, estimator_name(&estimator)?);
    remove(&fleet, battery, estimator).await.map(web::Json)
}

/// Removes all estimators of a battery; their estimates stay.
#[utoipa::path(
    tag = "estimators",
    params(("battery" = String, Path, description = "The battery's name")),
    responses(
        (status = 200, description = "What was removed, in words", body = String),
        (status = 400, description = "A query, which might have meant one of them", body = Problem),
        (status = 404, description = "No estimator is registered", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[delete("/online/{battery}")]
pub(super) async fn remove_estimators(
    request: HttpRequest,
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
) -> Result<web::Json<String>, Problem> {
    let battery = battery_name(&path)?;
    if !request.query_string().is_empty() {
        let detail = format!(
            "DELETE takes no query; one estimator is removed by \
             DELETE /online/{battery}/<estimator>, all of them without a query"
        );
        return Err(Problem::bad_request(detail));
    }
    let known = fleet.find(&battery).map(|known| known.registrations());
    let estimators = known.unwrap_or_default();
    if estimators.is_empty() {
        return Err(no_estimator(&battery));
    }
    let names: Vec<String> = estimators.keys().map(|name| format!("`{name}`")).collect();
    for estimator in estimators.into_keys() {
        remove(&fleet, battery.clone(), estimator).await?;
    }
    Ok(web::Json(format!(
        "removed {} of `{battery}`",
        names.join(", ")
    )))
}

/// Removes one estimator; tells what was removed, in words.
pub(crate) async fn remove(
    fleet: &Fleet,
    battery: BatteryName,
    estimator: EstimatorName,
) -> Result<String, Problem> {
    let words = format!("removed `{estimator}` of `{battery}`");
    let reply = fleet
        .shared()
        .hub
        .deregister(&Deregister { battery, estimator })
        .await;
    let tombstone = committed(reply.map_err(|error| hub_problem(&error))?)?;
    fleet.apply(tombstone);
    Ok(words)
}
