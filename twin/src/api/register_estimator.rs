//! Registering an estimator: checked here, committed by the hub, run by whichever twin owns the
//! battery.

use actix_web::{HttpRequest, post, web};
use rovi_common::{
    auth::{Access, Flow, Role},
    http::Problem,
    name::EstimatorName,
    registration::{Register, Registration},
};
use rovi_estimation::NominalFrom;
use rovi_python::{MAX_DEFINITION_BYTES, ScriptFile, is_script};
use utoipa::ToSchema;

use super::{
    battery_name, committed, definition, estimator_name,
    form::{Form, seconds},
    hub_problem, script,
};
use crate::fleet::{Fleet, Shared};

/// The fields of the form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the description of the form is used")]
struct RegisterForm {
    /// The battery's name.
    name: String,
    /// The native estimator document, in the form of `/online/schema`, or a Python script.
    definition: String,
    /// The estimator's name within the battery; `default` if left out.
    estimator: Option<String>,
    /// Rows with `test_time` below this, in seconds, are not used.
    valid_from: Option<f64>,
    /// Span of history in seconds that a script's `perform_offline_estimation` gets, or for which a
    /// document whose `initialise` does not say gathers rows; also a query parameter.
    required_time: Option<f64>,
    /// Another name of `required_time`, used by the original client.
    start_time: Option<f64>,
    /// Files that a script finds in its folder: at most 32, 8 MiB each, 16 MiB together, names without
    /// paths. A native document needs none.
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
        (status = 413, description = "The definition or the files are too large", body = Problem),
        (status = 429, description = "The caller registered too many", body = Problem),
        (status = 501, description = "Scripts cannot be run here; the reason tells what is missing", body = Problem),
        (status = 503, description = "The hub is away", body = Problem),
    )
)]
#[post("/online/register")]
pub(super) async fn register_estimator(
    access: Access,
    fleet: web::Data<Fleet>,
    request: HttpRequest,
    query: web::Query<std::collections::BTreeMap<String, String>>,
    body: web::Payload,
) -> Result<web::Json<String>, Problem> {
    // Which battery is meant stands in the form; nobody else need send one.
    access.need_somewhere(Role::Engineer)?;
    access.purse().check(Flow::Registrations)?;
    let form = Form::read(&request, body).await?;
    let (mut register, files) = read(form)?;
    access.need(Role::Engineer, &register.battery)?;
    access.purse().take_one(Flow::Registrations)?;
    let queried = query.get("required_time").map(String::as_str);
    if let Some(queried) = seconds("required_time", queried)? {
        register.required_time = queried;
    }
    let (kind, states, notes) = check(fleet.shared(), &mut register, files).await?;
    let registration = commit(&fleet, &register).await?;
    let (estimator, revision) = (&registration.estimator, registration.revision);
    access.note(format!("estimator {estimator}, revision {revision}"));
    let words = describe(&kind, &registration, &states);
    Ok(web::Json([vec![words], notes].concat().join("; ")))
}

/// Has the hub commit a registration that was checked, and puts it into force here.
pub(crate) async fn commit(fleet: &Fleet, register: &Register) -> Result<Registration, Problem> {
    let reply = fleet.shared().hub.register(register).await;
    let registration = committed(reply.map_err(|error| hub_problem(&error))?)?;
    fleet.apply(registration.clone());
    Ok(registration)
}

/// Checks a definition; returns its kind, its states, and what is odd about it.
pub(crate) async fn check(
    shared: &Shared,
    register: &mut Register,
    files: Vec<ScriptFile>,
) -> Result<(String, Vec<String>, Vec<String>), Problem> {
    if is_script(&register.definition) {
        let (definition, required_time) = (&register.definition, register.required_time);
        let checked = script::check(shared, definition, files, required_time).await?;
        register.files = checked.files;
        return Ok(("Python script".to_owned(), checked.states, Vec::new()));
    }
    // A document keeps it itself, where it is of use.
    let required_time = std::mem::take(&mut register.required_time);
    definition::require_time(&mut register.definition, required_time);
    let (document, warnings) = definition::read(&register.definition)?;
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    let mut notes: Vec<String> = warnings.collect();
    if document.nominal_capacity_from() == NominalFrom::Initial {
        notes.extend(match shared.hub.metadata(&register.battery).await {
            Ok(Some(metadata)) => {
                definition::measure_by_metadata(&mut register.definition, &metadata)
            }
            Ok(None) => None,
            Err(error) => Some(format!(
                "warning: health is measured by the initial capacity, for the metadata cannot be read: {error}"
            )),
        });
    }
    if !files.is_empty() {
        let note = "the attached files are not used by a native document";
        notes.insert(0, note.to_owned());
    }
    let wanted = document.initialise();
    if let Some(seconds) = wanted.and_then(|wanted| wanted.required_time_s) {
        notes.insert(0, format!("it starts after {seconds} s of rows"));
    }
    let kind = document.filter_name().to_owned();
    Ok((kind, document.state_names(), notes))
}

pub(super) fn read(form: Form) -> Result<(Register, Vec<ScriptFile>), Problem> {
    let missing =
        |field: &str| Problem::bad_request(format!("the form lacks the field `{field}`")).at(field);
    let battery = battery_name(&form.name.ok_or_else(|| missing("name"))?)?;
    let definition = form.definition.ok_or_else(|| missing("definition"))?;
    check_size(&definition)?;
    let estimator = match form.estimator.as_deref() {
        None | Some("") => EstimatorName::default(),
        Some(name) => estimator_name(name)?,
    };
    let valid_from = seconds("valid_from", form.valid_from.as_deref())?;
    let required = seconds("required_time", form.required_time.as_deref())?;
    let start = seconds("start_time", form.start_time.as_deref())?;
    let register = Register {
        battery,
        estimator,
        definition,
        valid_from: valid_from.unwrap_or_default(),
        required_time: required.or(start).unwrap_or_default().max(0.0),
        files: Vec::new(),
    };
    Ok((register, form.files))
}

/// Refuses what cannot be a definition.
pub(crate) fn check_size(definition: &str) -> Result<(), Problem> {
    if definition.trim().is_empty() {
        return Err(Problem::bad_request("the definition is empty").at("definition"));
    }
    if definition.len() > MAX_DEFINITION_BYTES {
        let limit = MAX_DEFINITION_BYTES;
        let detail = format!("the definition has more than {limit} bytes");
        return Err(Problem::too_large(detail).at("definition"));
    }
    Ok(())
}

fn describe(kind: &str, registration: &Registration, states: &[String]) -> String {
    let Registration {
        battery,
        estimator,
        revision,
        ..
    } = registration;
    let states = if states.is_empty() {
        "its states are known once it has its history".to_owned()
    } else {
        states.join(", ")
    };
    format!("{kind} `{estimator}` of `{battery}`, revision {revision}: {states}")
}
