//! `DELETE /db/{battery}`: the end of a battery, for those who say its name twice.

use actix_web::{HttpResponse, web};
use diesel::PgConnection;
use rovi_common::{http::Problem, name::BatteryName};
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::{
        StoreError,
        deletion::{self, DeleteError, Extent},
    },
};

/// Whether that is really meant.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteQuery {
    /// The battery's name once more; without it, nothing happens.
    confirm: Option<String>,
    /// Whether its tables are dropped instead of renamed to `<name>@<epoch>`.
    #[serde(default)]
    drop: bool,
}

/// What was deleted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedBattery {
    battery: String,
    /// The life of the name that is over; the next one's is greater.
    epoch: i64,
    /// Where its tables are kept.
    kept_as: Vec<String>,
}

/// Deletes a battery: rows, estimates, metadata, registrations, sessions.
///
/// Without `confirm` it answers 409 and says what would be deleted.
#[utoipa::path(
    delete,
    path = "/db/{battery}",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery"), DeleteQuery),
    responses(
        (status = 200, body = DeletedBattery), (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "Not confirmed; says what there is"),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn delete_battery(
    battery: web::Path<String>,
    query: web::Query<DeleteQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    if query.confirm.as_deref() != Some(battery.as_str()) {
        return Err(not_confirmed(&hub, &battery).await?);
    }
    let (name, drops) = (battery.clone(), query.drop);
    let delete = move |connection: &mut PgConnection| -> Result<_, StoreError> {
        match deletion::delete(connection, &name, drops) {
            Ok(deleted) => Ok(Ok(deleted)),
            Err(DeleteError::Store(error)) => Err(error),
            Err(DeleteError::Busy(_)) => Ok(Err(Problem::unavailable(format!(
                "somebody holds a table of {name}; nothing was deleted, try again"
            )))),
        }
    };
    let deleted = hub.pool.run(delete).await??;
    let deleted = deleted.ok_or_else(|| no_such_battery(&battery))?;
    tracing::info!(
        battery.id = %battery,
        "battery {battery} (epoch {}) was deleted, kept as {:?}",
        deleted.epoch,
        deleted.kept_as
    );
    let reason = format!("the battery {battery} was deleted");
    hub.uploads.end(deleted.id, &reason);
    hub.deletions.wake();
    Ok(HttpResponse::Ok().json(DeletedBattery {
        battery: battery.into(),
        epoch: deleted.epoch,
        kept_as: deleted.kept_as,
    }))
}

/// 409 that says what there is, or 404.
async fn not_confirmed(hub: &Hub, battery: &BatteryName) -> Result<Problem, Problem> {
    let name = battery.clone();
    let extent = hub
        .pool
        .run(move |connection| Ok(deletion::extent(connection, &name)?));
    let extent = extent.await?.ok_or_else(|| no_such_battery(battery))?;
    let Extent {
        rows,
        estimates,
        metadata_revisions,
        estimators,
        tables,
        ..
    } = extent;
    let listed = |names: &[String]| match names {
        [] => String::new(),
        names => format!(" ({})", names.join(", ")),
    };
    let detail = format!(
        "nothing was deleted: {battery} has {rows} rows, {estimates} estimates, \
         {metadata_revisions} versions of metadata, {} estimators{} and {} other tables{}; \
         to delete all of it, say ?confirm={battery}",
        estimators.len(),
        listed(&estimators),
        tables.len(),
        listed(&tables),
    );
    Ok(Problem::conflict(detail).at("confirm"))
}
