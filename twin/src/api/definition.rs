//! What an estimator's definition may be.

use actix_web::{HttpResponse, Responder, get};
use rovi_common::{error::ErrorChain, http::Problem};
use rovi_estimation::{Document, Warning};

/// Reads a native document.
///
/// # Errors
/// 400 that names the field at fault.
pub(super) fn read(definition: &str) -> Result<(Document, Vec<Warning>), Problem> {
    let field = "definition";
    Document::from_json(definition).map_err(|error| {
        let problem = Problem::bad_request(ErrorChain(&error));
        match error.path() {
            Some(path) if !path.is_empty() => problem.at(format!("{field}.{path}")),
            _ => problem.at(field),
        }
    })
}

/// The JSON schema of native estimator documents.
#[utoipa::path(
    tag = "estimators",
    responses((status = 200, description = "JSON Schema of the field `definition`", content_type = "application/schema+json"))
)]
#[get("/online/schema")]
pub(super) async fn get_schema() -> impl Responder {
    HttpResponse::Ok()
        .content_type("application/schema+json")
        .body(rovi_estimation::schema())
}
