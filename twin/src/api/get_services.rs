//! Which services live.

use actix_web::{get, web};
use rovi_common::news::Heartbeat;

use crate::fleet::Fleet;

/// The newest heartbeat of every service that is not silent for too long.
#[utoipa::path(
    tag = "status",
    responses((status = 200, description = "By service and instance", body = Vec<Heartbeat>))
)]
#[get("/online/services")]
pub(super) async fn get_services(fleet: web::Data<Fleet>) -> web::Json<Vec<Heartbeat>> {
    web::Json(fleet.shared().services.all())
}
