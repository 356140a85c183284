//! The HTTP interface of the hub.

mod forward;
mod forward_socket;
mod list_batteries;
mod read_metadata;
mod read_rows;
mod register_battery;

use actix_web::{HttpRequest, HttpResponse, error::InternalError, web};
use rovi_common::{http::Problem, name::BatteryName};
use utoipa::OpenApi;

pub(crate) use self::forward::TwinProxy;
use crate::upload;

/// The routes' documentation.
#[derive(OpenApi)]
#[openapi(
    info(title = "Data Hub", description = "Metadata and rows of batteries."),
    paths(
        register_battery::register_battery,
        list_batteries::list_batteries,
        read_metadata::read_metadata,
        upload::upload_by_socket,
        upload::post::upload_by_post,
        read_rows::read_rows,
    )
)]
pub(crate) struct ApiDoc;

/// Adds the hub's routes.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::QueryConfig::default().error_handler(|error, _| {
            let problem = Problem::bad_request(format!("the query is wrong: {error}"));
            InternalError::from_response(error, problem_response(&problem)).into()
        }))
        .route("/", web::get().to(front_page))
        .service(
            web::resource("/db/register")
                .app_data(web::PayloadConfig::new(register_battery::MAX_BYTES))
                .route(web::post().to(register_battery::register_battery)),
        )
        .route("/db/stats", web::get().to(list_batteries::list_batteries))
        .service(
            web::resource("/db/upload/{battery}")
                .route(web::get().to(upload::upload_by_socket))
                .route(web::post().to(upload::post::upload_by_post)),
        )
        .route(
            "/db/{battery}/metadata",
            web::get().to(read_metadata::read_metadata),
        )
        .route("/db/{battery}/rows", web::get().to(read_rows::read_rows))
        .configure(TwinProxy::routes)
        .default_service(web::to(no_such_path));
}

/// Tells where to look.
async fn front_page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("Data Hub. Batteries: /db/stats. How to ask for more: /docs/. State: /ready.\n")
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    let (method, path) = (request.method(), request.path());
    let detail = format!("there is no {method} {path}; /docs/ lists what there is");
    problem_response(&Problem::not_found(detail))
}

fn problem_response(problem: &Problem) -> HttpResponse {
    actix_web::ResponseError::error_response(problem)
}

/// Reads the name of a battery from a path.
///
/// # Errors
/// 400 that names the character or the bound.
pub(crate) fn battery_name(text: &str) -> Result<BatteryName, Problem> {
    text.parse()
        .map_err(|error| Problem::bad_request(error).at("battery"))
}

/// 404 in the origin's words.
fn no_such_battery(battery: &BatteryName) -> Problem {
    Problem::not_found(format!("No such dataset: {battery}")).at("battery")
}
