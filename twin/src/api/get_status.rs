//! Hop 7 of 7: the state of estimators over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::header::{ContentType, ETag, EntityTag, Header as _, IF_NONE_MATCH, IfNoneMatch},
    web,
};
use ring::digest;
use rovi_common::{
    auth::{self, Access},
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::{Champion, Registration},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::battery_name;
use crate::{
    ask::{self, Which},
    fleet::Fleet,
    overview::{self, StatusQuery},
    status::{EstimatorStatus, Role},
};

/// One estimator with what it was registered with.
#[derive(Debug, Serialize, ToSchema)]
struct EstimatorDetails {
    #[serde(flatten)]
    #[schema(value_type = EstimatorStatus)]
    status: BTreeMap<String, Box<RawValue>>,
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

/// The state of the champion of every battery that has one (`default`, or which was promoted), or,
/// with any parameter, a page of batteries.
#[utoipa::path(
    tag = "status",
    params(StatusQuery),
    responses(
        (status = 200, description = "Battery to state; with any parameter a page", body = BTreeMap<String, EstimatorStatus>),
        (status = 304, description = "Nothing changed since `If-None-Match`"),
        (status = 400, description = "A parameter cannot be used", body = Problem),
        (status = 503, description = "The hub, which has the metadata, is away", body = Problem),
    )
)]
#[get("/online/status")]
pub(super) async fn get_status(
    access: Access,
    fleet: web::Data<Fleet>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    if request.query_string().is_empty() {
        return Ok(tagged(&request, &all(&fleet, &access).await));
    }
    let query = web::Query::<StatusQuery>::from_query(request.query_string());
    let query = query.map_err(Problem::bad_request)?.into_inner();
    Ok(tagged(
        &request,
        &overview::page(&fleet, query, &access).await?,
    ))
}

/// The states of all champions that the caller may see, whichever twins run them.
async fn all(fleet: &Fleet, access: &Access) -> BTreeMap<BatteryName, Box<RawValue>> {
    let registered: BTreeMap<BatteryName, Arc<Registration>> = fleet
        .all()
        .into_iter()
        .filter(|battery| access.may(auth::Role::Reader, &battery.name))
        .filter_map(|battery| Some((battery.name.clone(), battery.champion_registration()?)))
        .collect();
    let names: Vec<BatteryName> = registered.keys().cloned().collect();
    let mut found = ask::statuses(fleet, &names, Which::Champions).await;
    let shown = registered
        .into_iter()
        .filter_map(|(battery, registration)| {
            let status = found
                .get_mut(&battery)
                .and_then(|all| all.remove(&registration.estimator));
            let status =
                status.or_else(|| raw(&EstimatorStatus::unknown(&registration, Role::Champion)))?;
            Some((battery, status))
        });
    shown.collect()
}

/// Answers with a body under its `ETag`, or that it did not change.
fn tagged(request: &HttpRequest, body: &impl Serialize) -> HttpResponse {
    let Ok(body) = serde_json::to_vec(body) else {
        return HttpResponse::InternalServerError().finish();
    };
    let digest = digest::digest(&digest::SHA256, &body);
    let short = digest.as_ref().iter().take(12);
    let number = short.fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    let tag = EntityTag::new_strong(format!("{number:x}"));
    let known = IfNoneMatch::parse(request).unwrap_or(IfNoneMatch::Items(Vec::new()));
    let is_known = match known {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|known| known.weak_eq(&tag)),
    };
    if is_known && request.headers().contains_key(IF_NONE_MATCH) {
        return HttpResponse::NotModified()
            .insert_header(ETag(tag))
            .finish();
    }
    HttpResponse::Ok()
        .insert_header(ETag(tag))
        .content_type(ContentType::json())
        .body(body)
}

fn raw(status: &impl Serialize) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(status).ok()
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
    let registered = known.as_ref().map(|known| known.registrations());
    let registered = registered.filter(|registered| !registered.is_empty());
    let registered = registered.ok_or_else(|| no_estimator(&battery))?;
    let mut found = ask::statuses(&fleet, std::slice::from_ref(&battery), Which::All).await;
    let mut found = found.remove(&battery).unwrap_or_default();
    let estimators = registered.into_iter().filter_map(|(name, registration)| {
        let status = found.remove(&name);
        let role = || {
            known
                .as_ref()
                .map_or(Role::Shadow, |known| known.role(&name))
        };
        let status = status.or_else(|| raw(&EstimatorStatus::unknown(&registration, role())))?;
        Some((name, details(&status, &registration)?))
    });
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

/// Joins what an estimator says with what it was registered with.
fn details(status: &RawValue, registration: &Registration) -> Option<EstimatorDetails> {
    let definition = serde_json::from_str(&registration.definition)
        .or_else(|_| serde_json::value::to_raw_value(&registration.definition))
        .unwrap_or_else(|_| RawValue::NULL.to_owned());
    Some(EstimatorDetails {
        status: serde_json::from_str(status.get()).ok()?,
        valid_from: registration.valid_from,
        definition,
    })
}
