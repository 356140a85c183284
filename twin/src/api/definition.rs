//! What an estimator's definition may be.

use actix_web::{HttpResponse, Responder, get};
use rovi_common::{error::ErrorChain, http::Problem};
use rovi_estimation::{Document, Warning};

/// The most bytes of a definition: it travels on the bus and stands in a checkpoint's company.
pub(super) const MAX_DEFINITION_BYTES: usize = 512 * 1024;

/// Reads a definition.
///
/// # Errors
/// 400 that names the field at fault.
pub(super) fn read(definition: &str) -> Result<(Document, Vec<Warning>), Problem> {
    let field = "definition";
    if definition.trim().is_empty() {
        return Err(Problem::bad_request("the definition is empty").at(field));
    }
    // A document is an object; a script may begin with anything else, also with a text in quotes.
    if !definition.trim_start().starts_with('{') {
        let detail = "the definition is no JSON object; only native documents are supported so far, \
                      their form is at /online/schema, and Python scripts are not run";
        return Err(Problem::bad_request(detail).at(field));
    }
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

/// Puts the form's `required_time` (s) into a definition whose `initialise` says none, so that it is
/// kept with it; others stay as they are.
pub(super) fn require_time(definition: &mut String, seconds: Option<f64>) {
    let (Some(seconds), Ok(mut document)) = (
        seconds.filter(|seconds| *seconds > 0.0),
        serde_json::from_str::<serde_json::Value>(definition),
    ) else {
        return;
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_told_that_scripts_are_not_run() {
        for script in [
            "estimator = 1",
            "\"\"\"Fits a cell.\"\"\"\n",
            "[f() for f in fits]",
        ] {
            let problem = read(script).unwrap_err();
            assert!(problem.detail.contains("Python"), "{script}: {problem:?}");
        }
    }
}
