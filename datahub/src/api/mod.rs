//! The HTTP interface of the hub.

mod access;
mod audit;
mod changes;
mod columns;
mod corrections;
mod cycles;
mod delete_battery;
mod find_batteries;
mod forward;
mod forward_socket;
#[cfg(test)]
mod guarded;
mod history;
mod intervals;
mod lineage;
mod list_batteries;
mod list_services;
mod metadata;
mod register_battery;
mod rejected;
mod retention;
mod revocations;
mod row;
mod tables;

use actix_web::{
    HttpRequest, HttpResponse, Route,
    error::InternalError,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use rovi_common::{http::Problem, name::BatteryName};
use utoipa::OpenApi;

pub(crate) use self::forward::TwinProxy;
use self::history::{draw_picture, export_rows, histogram, read_rows, read_statistics, signals};
use crate::{metadata::MAX_BYTES, pages, upload};

/// The routes' documentation.
#[derive(OpenApi)]
#[openapi(
    info(title = "Data Hub", description = "Metadata and rows of batteries."),
    paths(
        audit::list_audit,
        access::create_token,
        access::list_tokens,
        access::revoke_token,
        revocations::list_revocations,
        revocations::revoke_jwts,
        access::place_battery,
        access::list_placements,
        register_battery::register_battery,
        list_batteries::list_batteries,
        find_batteries::find_batteries,
        list_services::list_services,
        histogram::read_histogram,
        delete_battery::delete_battery,
        metadata::read_metadata,
        metadata::list_versions,
        metadata::replace_metadata,
        metadata::patch_metadata,
        retention::read_retention,
        retention::set_retention,
        cycles::list_cycles,
        intervals::put_interval,
        intervals::list_intervals,
        intervals::read_interval,
        intervals::delete_interval,
        tables::put_table,
        tables::list_tables,
        tables::read_table,
        upload::upload_by_socket,
        upload::post::upload_by_post,
        upload::battdat::upload_battdat,
        read_rows::read_rows,
        export_rows::export_rows,
        read_statistics::read_statistics,
        read_rows::read_estimates,
        export_rows::export_estimates,
        draw_picture::draw_picture,
        signals::list_signals,
        signals::put_signal,
        signals::get_signal,
        signals::delete_signal,
        rejected::list_rejected,
        rejected::replay_rejected,
        rejected::drop_rejected,
        columns::describe_columns,
        changes::list_changes,
        row::read_row,
        row::correct_row,
        row::delete_rows,
        corrections::list_corrections,
        corrections::read_before,
        lineage::read_lineage,
        lineage::list_revisions,
        lineage::read_revision,
        lineage::read_file,
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
        .app_data(web::JsonConfig::default().error_handler(|error, _| {
            let problem = Problem::bad_request(format!("the body is wrong: {error}"));
            InternalError::from_response(error, problem_response(&problem)).into()
        }))
        .service(
            web::resource("/db/register")
                .app_data(web::PayloadConfig::new(MAX_BYTES))
                .route(web::post().to(register_battery::register_battery))
                .default_service(only("POST")),
        )
        .route("/db/stats", web::get().to(list_batteries::list_batteries))
        .service(
            web::resource("/db/upload/{battery}")
                .route(web::get().to(upload::upload_by_socket))
                .route(web::post().to(upload::post::upload_by_post))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/db/upload/{battery}/battdat")
                .route(web::post().to(upload::battdat::upload_battdat))
                .default_service(only("POST")),
        )
        .route(
            "/db/batteries",
            web::get().to(find_batteries::find_batteries),
        )
        .route("/db/services", web::get().to(list_services::list_services))
        .route(
            "/db/{battery}",
            web::delete().to(delete_battery::delete_battery),
        )
        .configure(access_routes)
        .configure(battery_routes)
        .configure(history_routes)
        .configure(TwinProxy::routes)
        .configure(pages::routes)
        .default_service(web::to(no_such_path));
}

/// Adds who may do what.
fn access_routes(config: &mut web::ServiceConfig) {
    config
        .configure(rovi_common::auth::http::routes)
        .route("/audit", web::get().to(audit::list_audit))
        .service(
            web::resource("/auth/tokens")
                .route(web::get().to(access::list_tokens))
                .route(web::post().to(access::create_token))
                .default_service(only("GET, POST")),
        )
        .route(
            "/auth/tokens/{token}",
            web::delete().to(access::revoke_token),
        )
        .service(
            web::resource("/auth/revocations")
                .route(web::get().to(revocations::list_revocations))
                .route(web::post().to(revocations::revoke_jwts))
                .default_service(only("GET, POST")),
        )
        .route("/auth/batteries", web::get().to(access::list_placements))
        .route(
            "/auth/batteries/{battery}",
            web::put().to(access::place_battery),
        );
}

/// Adds what concerns one battery, its rows aside.
fn battery_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/db/{battery}/metadata")
                .app_data(web::PayloadConfig::new(MAX_BYTES))
                .route(web::get().to(metadata::read_metadata))
                .route(web::put().to(metadata::replace_metadata))
                .route(web::patch().to(metadata::patch_metadata))
                .default_service(only("GET, PUT, PATCH")),
        )
        .route(
            "/db/{battery}/metadata/revisions",
            web::get().to(metadata::list_versions),
        )
        .service(
            web::resource("/db/{battery}/retention")
                .app_data(web::PayloadConfig::new(MAX_BYTES))
                .route(web::get().to(retention::read_retention))
                .route(web::put().to(retention::set_retention))
                .default_service(only("GET, PUT")),
        )
        .configure(interval_routes)
        .route("/db/{battery}/tables", web::get().to(tables::list_tables))
        .service(
            web::resource("/db/{battery}/tables/{table}")
                .route(web::get().to(tables::read_table))
                .route(web::put().to(tables::put_table))
                .default_service(only("GET, PUT")),
        )
        .route("/db/{battery}/cycles", web::get().to(cycles::list_cycles))
        .service(
            web::resource("/db/{battery}/rejected")
                .route(web::get().to(rejected::list_rejected))
                .route(web::delete().to(rejected::drop_rejected))
                .default_service(only("GET, DELETE")),
        )
        .service(
            web::resource("/db/{battery}/rejected/replay")
                .route(web::post().to(rejected::replay_rejected))
                .default_service(only("POST")),
        )
        .service(
            web::resource("/db/{battery}/columns")
                .route(web::patch().to(columns::describe_columns))
                .default_service(only("PATCH")),
        )
        .service(
            web::resource("/db/{battery}/changes")
                .route(web::get().to(changes::list_changes))
                .default_service(only("GET")),
        );
}

/// Adds named intervals.
fn interval_routes(config: &mut web::ServiceConfig) {
    config
        .route(
            "/db/{battery}/intervals",
            web::get().to(intervals::list_intervals),
        )
        .service(
            web::resource("/db/{battery}/intervals/{label}")
                .app_data(web::PayloadConfig::new(MAX_BYTES))
                .route(web::get().to(intervals::read_interval))
                .route(web::put().to(intervals::put_interval))
                .route(web::delete().to(intervals::delete_interval))
                .default_service(only("GET, PUT, DELETE")),
        );
}

fn history_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/db/{battery}/rows")
                .route(web::get().to(read_rows::read_rows))
                .route(web::delete().to(row::delete_rows))
                .default_service(only("GET, DELETE")),
        )
        .route(
            "/dashboard/{battery}/img/{picture}",
            web::get().to(draw_picture::draw_picture),
        )
        .route(
            "/db/{battery}/rows/export",
            web::get().to(export_rows::export_rows),
        )
        .route(
            "/db/{battery}/estimates/lineage",
            web::get().to(lineage::read_lineage),
        )
        .configure(revision_routes)
        .configure(correction_routes)
        .route(
            "/db/{battery}/statistics",
            web::get().to(read_statistics::read_statistics),
        )
        .route(
            "/db/{battery}/histogram",
            web::get().to(histogram::read_histogram),
        )
        .route(
            "/db/{battery}/estimates",
            web::get().to(read_rows::read_estimates),
        )
        .route(
            "/db/{battery}/estimates/export",
            web::get().to(export_rows::export_estimates),
        )
        .route(
            "/db/{battery}/signals",
            web::get().to(signals::list_signals),
        )
        .service(
            web::resource("/db/{battery}/signals/{signal}")
                .route(web::put().to(signals::put_signal))
                .route(web::get().to(signals::get_signal))
                .route(web::delete().to(signals::delete_signal))
                .default_service(only("GET, PUT, DELETE")),
        );
}

/// Adds what changes single rows after they were stored, and what tells of it.
fn correction_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/db/{battery}/rows/{seq}")
                .app_data(web::PayloadConfig::new(MAX_BYTES))
                .route(web::get().to(row::read_row))
                .route(web::put().to(row::correct_row))
                .default_service(only("GET, PUT")),
        )
        .route(
            "/db/{battery}/corrections",
            web::get().to(corrections::list_corrections),
        )
        .route(
            "/db/{battery}/corrections/{revision}",
            web::get().to(corrections::read_before),
        );
}

/// Adds the registrations of before.
fn revision_routes(config: &mut web::ServiceConfig) {
    config
        .route(
            "/db/{battery}/estimators/{estimator}/revisions",
            web::get().to(lineage::list_revisions),
        )
        .route(
            "/db/{battery}/estimators/{estimator}/revisions/{revision}",
            web::get().to(lineage::read_revision),
        )
        .route(
            "/db/{battery}/estimators/{estimator}/files/{digest}",
            web::get().to(lineage::read_file),
        );
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    let (method, path) = (request.method(), request.path());
    let detail = format!("there is no {method} {path}; /docs/ lists what there is");
    problem_response(&Problem::not_found(detail))
}

/// Answers methods that a path does not have: `OPTIONS` with those it has, others with 405.
fn only(allowed: &'static str) -> Route {
    web::to(move |request: HttpRequest| async move {
        let mut response = if request.method() == Method::OPTIONS {
            HttpResponse::NoContent().finish()
        } else {
            let (method, path) = (request.method(), request.path());
            let detail = format!("there is no {method} {path}, only {allowed}");
            problem_response(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail))
        };
        let value = HeaderValue::from_static(allowed);
        response.headers_mut().insert(header::ALLOW, value);
        response
    })
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
