//! `POST /db/register`: metadata of a battery.

use actix_web::{HttpRequest, HttpResponse, web};
use diesel::PgConnection;
use rovi_common::http::Problem;

use super::metadata::{author, bytes_of};
use crate::{hub::Hub, metadata::Metadata, store::metadata};

/// Keeps a battery's metadata and answers its name; the same name again replaces them.
#[utoipa::path(
    post,
    path = "/db/register",
    tag = "metadata",
    params(("From" = Option<String>, Header, description = "Who makes this version")),
    request_body(content = Object, description = "battdat's `BatteryMetadata`; kept as sent"),
    responses(
        (status = 200, body = String, description = "The name to use everywhere"),
        (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn register_battery(
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let given = Metadata::parse(&bytes_of(body)?)?;
    let author = author(&request)?;
    let register = move |connection: &mut PgConnection| {
        metadata::register(connection, &given, author.as_deref())
    };
    let name = hub.pool.run(register).await?;
    tracing::info!(battery.id = name, "metadata of battery {name} registered");
    Ok(HttpResponse::Ok().json(name))
}
