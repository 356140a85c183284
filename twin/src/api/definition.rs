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
    let read = Document::from_json(definition).map_err(|error| {
        let problem = Problem::bad_request(ErrorChain(&error));
        match error.path() {
            Some(path) if !path.is_empty() => problem.at(format!("{field}.{path}")),
            _ => problem.at(field),
        }
    })?;
    let wanted = read.0.initialise();
    if wanted.is_some_and(|wanted| wanted.required_time_s.is_none()) {
        let detail = "initialise.required_time: missing; say for how many seconds rows are to be \
                      gathered, there or in the form field required_time";
        return Err(Problem::bad_request(detail).at(format!("{field}.initialise.required_time")));
    }
    Ok(read)
}

/// Puts the nominal capacity of the battery's metadata into a definition that says none, so that it is kept with it
/// and every twin measures by the same, whatever becomes of the metadata; returns what came of it, in words.
pub(super) fn measure_by_metadata(
    definition: &mut String,
    metadata: &serde_json::Value,
) -> Option<String> {
    let said = metadata.pointer("/battery/nominal_capacity")?;
    if said.is_null() {
        return None;
    }
    let mut document = serde_json::from_str::<serde_json::Value>(definition).ok()?;
    let keys = document.as_object_mut()?;
    let Some(ah) = said.as_f64().filter(|ah| *ah > 0.0) else {
        return Some(format!(
            "warning: the metadata's battery.nominal_capacity is {said}, no capacity: not used"
        ));
    };
    keys.insert("nominal_capacity".to_owned(), said.clone());
    keys.insert("nominal_capacity_from".to_owned(), "metadata".into());
    *definition = document.to_string();
    Some(format!(
        "health is measured by the {ah} A h of the metadata"
    ))
}

/// Puts the form's `required_time` (s) into a definition whose `initialise` says none, so that it is
/// kept with it; others stay as they are.
pub(super) fn require_time(definition: &mut String, seconds: f64) {
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(definition) else {
        return;
    };
    if seconds <= 0.0 {
        return;
    }
    let Some(initialise) = document
        .get_mut("initialise")
        .and_then(|it| it.as_object_mut())
    else {
        return;
    };
    let said = initialise.get("required_time");
    if said.is_none_or(serde_json::Value::is_null) {
        initialise.insert("required_time".to_owned(), seconds.into());
        *definition = document.to_string();
    }
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
