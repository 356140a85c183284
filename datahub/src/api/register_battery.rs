//! `POST /db/register`: metadata of a battery.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use diesel::PgConnection;
use rovi_common::{
    auth::{Access, Flow, Role},
    http::Problem,
    name::slug,
};

use super::metadata::{author, bytes_of};
use crate::{
    hub::Hub,
    metadata::Metadata,
    store::metadata::{self, Registered},
};

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
        (status = 429, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn register_battery(
    access: Access,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let given = Metadata::parse(&bytes_of(body)?)?;
    let author = author(&request)?;
    let (noted, purse) = (access.clone(), access.purse());
    let may = move |name: &str| {
        let name = name.parse();
        access.is_everyone() || name.is_ok_and(|name| access.may(Role::Uploader, &name))
    };
    let wanted = slug(given.title.as_deref().unwrap_or_default());
    // Before anybody looks whether the name is taken.
    if !may(&wanted) {
        return Err(not_allowed(&wanted));
    }
    let make = move || purse.take_one(Flow::Batteries);
    let register = move |connection: &mut PgConnection| {
        metadata::register(connection, &given, author.as_deref(), (&may, &make))
    };
    let name = match hub.pool.run(register).await? {
        Registered::Done(name) => name,
        Registered::NotAllowed => return Err(not_allowed(&wanted)),
        Registered::Refused(problem) => return Err(problem),
    };
    noted.note(&name);
    tracing::info!(battery.id = name, "metadata of battery {name} registered");
    Ok(HttpResponse::Ok().json(name))
}

fn not_allowed(name: &str) -> Problem {
    let detail = format!("your token is not for batteries of the name {name}; see /auth/me");
    Problem::new(StatusCode::FORBIDDEN, detail).at("name")
}
