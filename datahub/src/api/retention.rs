//! `/db/{battery}/retention`: which of a battery's rows stay.

use actix_web::web;
use diesel::PgConnection;
use rovi_common::http::Problem;
use serde::Serialize;

use super::{battery_name, metadata::bytes_of, no_such_battery};
use crate::{
    hub::Hub,
    store::retention::{self, Rule},
};

/// Which rows stay, and which are gone.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RetentionBody {
    /// The battery's own rule; null if that of the settings holds.
    #[schema(value_type = Option<Object>)]
    own: Option<Rule>,
    /// The rule in force; empty: all rows stay.
    #[schema(value_type = Object)]
    in_force: Rule,
    /// The first row that is not gone.
    first_seq: i64,
    last_seq: i64,
}

/// Tells which of a battery's rows stay.
#[utoipa::path(
    get,
    path = "/db/{battery}/retention",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery")),
    responses(
        (status = 200, body = RetentionBody), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_retention(
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<web::Json<RetentionBody>, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.clone();
    let read = move |connection: &mut PgConnection| Ok(retention::read(connection, &name)?);
    let standing = hub.pool.run(read).await?;
    let standing = standing.ok_or_else(|| no_such_battery(&battery))?;
    Ok(web::Json(RetentionBody {
        own: standing.own,
        in_force: standing
            .own
            .unwrap_or_else(|| hub.settings.retention.rule()),
        first_seq: standing.first_seq,
        last_seq: standing.last_seq,
    }))
}

/// Gives a battery a rule of its own: `{"max_age": "90d", "max_rows": 1000000}`, either or both;
/// `{}` keeps all rows, `null` goes back to the rule of the settings.
#[utoipa::path(
    put,
    path = "/db/{battery}/retention",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery")),
    request_body(content = Object),
    responses(
        (status = 200, body = RetentionBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn set_retention(
    battery: web::Path<String>,
    body: Result<web::Bytes, actix_web::Error>,
    hub: web::Data<Hub>,
) -> Result<web::Json<RetentionBody>, Problem> {
    let name = battery_name(&battery)?;
    let own: Option<Rule> = serde_json::from_slice(&bytes_of(body)?).map_err(|error| {
        Problem::bad_request(format!(
            "a rule is {{\"max_age\": \"90d\", \"max_rows\": 1000000}}, {{}} or null: {error}"
        ))
    })?;
    if own.is_some_and(|own| !own.is_usable()) {
        let detail = "max_rows must be 1 or more, max_age more than 0 and at most 200 years; \
                      {} keeps all rows";
        return Err(Problem::bad_request(detail));
    }
    let no_such = no_such_battery(&name);
    let write = move |connection: &mut PgConnection| Ok(retention::write(connection, &name, own)?);
    if !hub.pool.run(write).await? {
        return Err(no_such);
    }
    tracing::info!(battery.id = %battery, "retention of {battery} is {own:?} now");
    read_retention(battery, hub).await
}
