//! Hop 7 of 7: the state of estimators over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{get, web};
use rovi_common::{
    auth::{Access, Role},
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::Registration,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::battery_name;
use crate::{fleet::Fleet, status::EstimatorStatus};

/// One estimator with what it was registered with.
#[derive(Debug, Serialize, ToSchema)]
struct EstimatorDetails {
    #[serde(flatten)]
    status: EstimatorStatus,
    /// Rows with `test_time` below this, in seconds, are not used.
    valid_from: f64,
    /// The estimator's document.
    #[schema(value_type = Object)]
    definition: Box<RawValue>,
}

/// All estimators of a battery.
#[derive(Debug, Serialize, ToSchema)]
struct BatteryDetails {
    #[schema(value_type = String)]
    battery: BatteryName,
    #[schema(value_type = BTreeMap<String, EstimatorDetails>)]
    estimators: BTreeMap<EstimatorName, EstimatorDetails>,
}

/// The state of the `default` estimator of every battery that has one.
#[utoipa::path(
    tag = "status",
    responses((status = 200, description = "Battery to state", body = BTreeMap<String, EstimatorStatus>))
)]
#[get("/online/status")]
pub(super) async fn get_status(
    access: Access,
    fleet: web::Data<Fleet>,
) -> web::Json<BTreeMap<BatteryName, EstimatorStatus>> {
    let default = EstimatorName::default();
    let seen = fleet.all().into_iter();
    let seen = seen.filter(|battery| access.may(Role::Reader, &battery.name));
    let shown = seen.filter_map(|battery| {
        let status = battery.status(&default)?;
        Some((battery.name.clone(), status))
    });
    web::Json(shown.collect())
}

/// All estimators of a battery, with their definitions.
#[utoipa::path(
    tag = "status",
    params(("battery" = String, Path, description = "The battery's name")),
    responses(
        (status = 200, description = "The estimators", body = BatteryDetails),
        (status = 400, description = "No name", body = Problem),
        (status = 404, description = "No estimator is registered", body = Problem),
    )
)]
#[get("/online/{battery}")]
pub(super) async fn get_battery(
    fleet: web::Data<Fleet>,
    path: web::Path<String>,
) -> Result<web::Json<BatteryDetails>, Problem> {
    let battery = battery_name(&path)?;
    let statuses = fleet.find(&battery).map(|known| known.statuses());
    let statuses = statuses.filter(|statuses| !statuses.is_empty());
    let statuses = statuses.ok_or_else(|| no_estimator(&battery))?;
    let estimators = statuses
        .into_iter()
        .map(|(name, shown)| (name, details(shown)));
    Ok(web::Json(BatteryDetails {
        battery,
        estimators: estimators.collect(),
    }))
}

/// 404: the battery has no estimator.
pub(super) fn no_estimator(battery: &BatteryName) -> Problem {
    Problem::not_found(format!(
        "no estimator is registered for the battery `{battery}`"
    ))
}

fn details((status, registration): (EstimatorStatus, Arc<Registration>)) -> EstimatorDetails {
    let definition = serde_json::from_str(&registration.definition)
        .or_else(|_| serde_json::value::to_raw_value(&registration.definition))
        .unwrap_or_else(|_| RawValue::NULL.to_owned());
    EstimatorDetails {
        status,
        valid_from: registration.valid_from,
        definition,
    }
}
