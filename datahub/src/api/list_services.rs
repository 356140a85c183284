//! `GET /db/services`: which services there are, told by the hub even where no twin is.

use actix_web::web;
use rovi_common::services::Known;

use crate::hub::Hub;

/// Lists hubs and twins by their heartbeats of the last hour; `is_stale` marks those that fell
/// silent.
#[utoipa::path(
    get,
    path = "/db/services",
    tag = "status",
    responses((status = 200, description = "By service and instance", body = Vec<Known>))
)]
pub(crate) async fn list_services(hub: web::Data<Hub>) -> web::Json<Vec<Known>> {
    web::Json(hub.services.known())
}
