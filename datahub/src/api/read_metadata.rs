//! `GET /db/{battery}/metadata`: metadata as they were sent.

use actix_web::{HttpResponse, web};
use diesel::{OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query, sql_types};
use rovi_common::http::Problem;

use super::{battery_name, no_such_battery};
use crate::{hub::Hub, store::StoreError};

#[derive(QueryableByName)]
struct Body {
    #[diesel(sql_type = sql_types::Nullable<sql_types::Text>)]
    body: Option<String>,
}

/// Returns a battery's metadata, as they were sent.
#[utoipa::path(
    get,
    path = "/db/{battery}/metadata",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery")),
    responses(
        (status = 200, body = Object), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_metadata(
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.to_string();
    let find = move |connection: &mut PgConnection| -> Result<Option<Body>, StoreError> {
        let body = sql_query(
            "SELECT m.body::text AS body FROM hub.batteries b \
             LEFT JOIN hub.metadata m ON m.battery_id = b.id WHERE b.name = $1",
        )
        .bind::<sql_types::Text, _>(name);
        Ok(body.get_result(connection).optional()?)
    };
    match hub.pool.run(find).await? {
        None => Err(no_such_battery(&battery)),
        Some(Body { body: None }) => {
            let detail = format!("{battery} has rows but no metadata; POST /db/register adds them");
            Err(Problem::not_found(detail))
        }
        Some(Body { body: Some(body) }) => Ok(HttpResponse::Ok()
            .content_type("application/json")
            .body(body)),
    }
}
