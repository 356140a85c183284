//! Promoting, pausing, resuming and resetting one estimator: looked at here, committed by the hub.

use rovi_common::{
    http::Problem,
    name::{BatteryName, EstimatorName},
    registration::{Action, Champion, Control, Registration},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{committed, hub_problem},
    fleet::Fleet,
    status::Phase,
};

/// How an estimator stands now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stand {
    #[schema(value_type = String)]
    battery: BatteryName,
    #[schema(value_type = String)]
    estimator: EstimatorName,
    /// The revision of its registration; a reset raises it.
    revision: i64,
    /// Whether it takes no rows.
    paused: bool,
    /// The battery's champion, and the row from which on it is.
    champion: Option<Champion>,
}

impl From<&Registration> for Stand {
    fn from(registration: &Registration) -> Self {
        Self {
            battery: registration.battery.clone(),
            estimator: registration.estimator.clone(),
            revision: registration.revision,
            paused: registration.standing.paused,
            champion: registration.standing.champion.clone(),
        }
    }
}

/// Does one of these things with an estimator.
///
/// # Errors
/// 404: there is no such estimator. 409: it cannot be promoted as it stands. 503: the hub is away.
pub(crate) async fn control(
    fleet: &Fleet,
    battery: BatteryName,
    estimator: EstimatorName,
    action: Action,
) -> Result<Stand, Problem> {
    if action == Action::Promote
        && let Some(problem) = unfit(fleet, &battery, &estimator)
    {
        return Err(Problem::conflict(problem));
    }
    let request = Control {
        battery,
        estimator,
        action,
    };
    let reply = fleet.shared().hub.control(&request).await;
    let registration = committed(reply.map_err(|error| hub_problem(&error))?)?;
    let stand = Stand::from(&registration);
    fleet.apply(registration);
    Ok(stand)
}

/// Tells why an estimator cannot be champion now: rows would wait for it.
///
/// One that no twin knows is left to the hub, which says whether it is registered.
pub(super) fn unfit(
    fleet: &Fleet,
    battery: &BatteryName,
    estimator: &EstimatorName,
) -> Option<String> {
    let here = fleet
        .find(battery)
        .and_then(|known| known.status(estimator));
    let newest = fleet.shared().board.newest(battery);
    let said = newest.as_ref();
    let there = said.and_then(|newest| newest.state.estimators.get(estimator));
    let live = Phase::Live.as_str();
    let is_live = here.as_ref().is_some_and(|here| here.phase == Phase::Live)
        || there.is_some_and(|there| there.phase == live && there.error.is_none());
    let here = here?;
    if is_live {
        return None;
    }
    let (phase, behind) = (here.phase.as_str(), here.rows_behind);
    let reason = here.last_error.map(|error| format!(" ({error})"));
    let reason = reason.unwrap_or_default();
    Some(format!(
        "estimator `{estimator}` of `{battery}` is {phase}, {behind} rows behind{reason}: \
         promote it when it is {live}"
    ))
}
