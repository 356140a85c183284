//! Hop 7 of 7: the state of estimators over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{get, web};
use rovi_common::{
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::{Champion, Registration},
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
    /// Which of them is the champion, from which row on.
    champion: Option<Champion>,
    #[schema(value_type = BTreeMap<String, EstimatorDetails>)]
    estimators: BTreeMap<EstimatorName, EstimatorDetails>,
}

/// The state of the champion of every battery that has one: `default`, or which was promoted.
#[utoipa::path(
    tag = "status",
    responses((status = 200, description = "Battery to state", body = BTreeMap<String, EstimatorStatus>))
)]
#[get("/online/status")]
pub(super) async fn get_status(
    fleet: web::Data<Fleet>,
) -> web::Json<BTreeMap<BatteryName, EstimatorStatus>> {
    let shown = fleet.all().into_iter().filter_map(|battery| {
        let status = battery.champion_status()?;
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
    let known = fleet.find(&battery);
    let champion = known.as_ref().and_then(|known| known.champion());
    let statuses = known.map(|known| known.statuses());
    let statuses = statuses.filter(|statuses| !statuses.is_empty());
    let statuses = statuses.ok_or_else(|| no_estimator(&battery))?;
    let estimators = statuses
        .into_iter()
        .map(|(name, shown)| (name, details(shown)));
    Ok(web::Json(BatteryDetails {
        battery,
        champion,
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
