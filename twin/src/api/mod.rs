//! The HTTP interface of the twin.

mod alerts;
mod backtest;
mod control_estimator;
mod definition;
mod form;
mod get_services;
mod get_status;
#[cfg(test)]
mod guarded;
pub(crate) mod register_estimator;
pub(crate) mod remove_estimator;
mod script;

use std::str::FromStr;

use actix_web::web;
use rovi_common::{
    http::Problem,
    name::{BatteryName, EstimatorName, NameError},
    registration::Reply,
};
use utoipa::OpenApi;

use crate::{hub::HubError, live};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Digital Twin",
        description = "Estimators of batteries and what they say."
    ),
    paths(
        get_status::get_status,
        get_status::get_battery,
        register_estimator::register_estimator,
        remove_estimator::remove_estimator,
        remove_estimator::remove_estimators,
        control_estimator::control_estimator,
        backtest::start_backtest,
        backtest::list_backtests,
        backtest::get_backtest,
        backtest::end_backtest,
        backtest::promote_candidate,
        definition::get_schema,
        get_services::get_services,
        alerts::get_alerts,
        alerts::get_rules,
        alerts::get_rule,
        alerts::put_rule,
        alerts::delete_rule,
        live::get_socket,
        live::get_events,
    )
)]
struct Api;

/// Returns the description of the interface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// Adds the routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(rovi_common::auth::http::routes)
        .service(get_status::get_status)
        .service(definition::get_schema)
        .service(get_services::get_services)
        .service(alerts::get_alerts)
        .service(alerts::get_rules)
        .service(alerts::get_rule)
        .service(alerts::put_rule)
        .service(alerts::delete_rule)
        .service(live::get_socket)
        .service(live::get_events)
        .service(register_estimator::register_estimator)
        .service(backtest::start_backtest)
        .service(backtest::list_backtests)
        .service(backtest::get_backtest)
        .service(backtest::end_backtest)
        .service(backtest::promote_candidate)
        .service(control_estimator::control_estimator)
        .service(get_status::get_battery)
        .service(remove_estimator::remove_estimator)
        .service(remove_estimator::remove_estimators)
        .default_service(web::to(|| async {
            Err::<String, _>(Problem::not_found(
                "there is no such path; /docs lists them",
            ))
        }));
}

fn name<T: FromStr<Err = NameError>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error| Problem::bad_request(error).at(field))
}

pub(crate) fn battery_name(text: &str) -> Result<BatteryName, Problem> {
    name("name", text)
}

pub(crate) fn estimator_name(text: &str) -> Result<EstimatorName, Problem> {
    name("estimator", text)
}

/// Says that the hub gave no usable answer.
pub(crate) fn hub_problem(error: &HubError) -> Problem {
    match error {
        HubError::Away(reason) => Problem::unavailable(format!(
            "the Data Hub, which keeps registrations, is away: {reason}"
        )),
        other => Problem::internal(other),
    }
}

/// Takes the hub's answer apart.
pub(crate) fn committed(reply: Reply) -> Result<rovi_common::registration::Registration, Problem> {
    match reply {
        Reply::Done(registration) => Ok(*registration),
        Reply::NotFound { detail } => Err(Problem::not_found(detail)),
        Reply::Refused { detail } => Err(Problem::bad_request(detail)),
        Reply::Conflict { detail } => Err(Problem::conflict(detail)),
        Reply::Unavailable { detail } => Err(Problem::unavailable(detail)),
    }
}
