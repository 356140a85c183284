//! Registering an estimator: checked here, committed by the hub, run by whichever twin owns the
//! battery.

use actix_web::{HttpRequest, post, web};
use rovi_common::{
    http::Problem,
    name::EstimatorName,
    registration::{Register, Registration},
};
use rovi_estimation::Document;
use utoipa::ToSchema;

use super::{
    battery_name, committed, definition, estimator_name,
    form::{Form, seconds},
    hub_problem,
};
use crate::fleet::Fleet;

/// The fields of the form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the description of the form is used")]
struct RegisterForm {
    /// The battery's name.
    name: String,
    /// The native estimator document, in the form of `/online/schema`.
    definition: String,
    /// The estimator's name within the battery; `default` if left out.
    estimator: Option<String>,
    /// Rows with `test_time` below this, in seconds, are not used.
    valid_from: Option<f64>,
    /// How long rows are gathered, in seconds, for a document whose `initialise` does not say; without effect for
    /// others.
    required_time: Option<f64>,
    /// Taken for compatibility, without effect.
    start_time: Option<f64>,
    /// Taken for compatibility; a native document needs no files.
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<Vec<u8>>,
}

/// Registers an estimator, or replaces the one of its name; the new one starts anew.
#[utoipa::path(
    tag = "estimators",
    request_body(content = RegisterForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What runs now, in words", body = String),
        (status = 400, description = "A field is wrong; `field` names it", body = Problem),
        (status = 404, description = "No such battery", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[post("/online/register")]
pub(super) async fn register_estimator(
    fleet: web::Data<Fleet>,
    request: HttpRequest,
    query: web::Query<std::collections::BTreeMap<String, String>>,
    body: web::Payload,
) -> Result<web::Json<String>, Problem> {
    let form = Form::read(&request, body).await?;
    let required = seconds(
        "required_time",
        query.get("required_time").map(String::as_str),
    )?;
    let required = seconds("required_time", form.required_time.as_deref())?.or(required);
    let files = form.files;
    let mut register = read(form)?;
    definition::require_time(&mut register.definition, required);
    let (document, warnings) = definition::read(&register.definition)?;
    let reply = fleet.shared().hub.register(&register).await;
    let registration = committed(reply.map_err(|error| hub_problem(&error))?)?;
    let mut words = describe(&registration, &document);
    if files > 0 {
        words.push_str("; the attached files are not used by a native document");
    }
    for warning in &warnings {
        words.push_str("; warning: ");
        words.push_str(&warning.to_string());
    }
    fleet.apply(registration);
    Ok(web::Json(words))
}

fn read(form: Form) -> Result<Register, Problem> {
    let missing =
        |field: &str| Problem::bad_request(format!("the form lacks the field `{field}`")).at(field);
    let battery = battery_name(&form.name.ok_or_else(|| missing("name"))?)?;
    let definition = form.definition.ok_or_else(|| missing("definition"))?;
    if definition.len() > definition::MAX_DEFINITION_BYTES {
        let limit = definition::MAX_DEFINITION_BYTES;
        let detail = format!("the definition has more than {limit} bytes");
        return Err(Problem::too_large(detail).at("definition"));
    }
    let estimator = match form.estimator.as_deref() {
        None | Some("") => EstimatorName::default(),
        Some(name) => estimator_name(name)?,
    };
    let valid_from = seconds("valid_from", form.valid_from.as_deref())?;
    seconds("start_time", form.start_time.as_deref())?;
    Ok(Register {
        battery,
        estimator,
        definition,
        valid_from: valid_from.unwrap_or_default(),
    })
}

fn describe(registration: &Registration, document: &Document) -> String {
    let Registration {
        battery,
        estimator,
        revision,
        ..
    } = registration;
    let states = document.state_names().join(", ");
    let filter = document.filter_name();
    let words = format!("{filter} `{estimator}` of `{battery}`, revision {revision}: {states}");
    match document
        .initialise()
        .and_then(|wanted| wanted.required_time_s)
    {
        Some(seconds) => format!("{words}; it starts after {seconds} s of rows"),
        None => words,
    }
}
