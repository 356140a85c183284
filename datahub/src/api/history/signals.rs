//! `/db/{battery}/signals`: formulas that are asked for like columns.

use actix_web::{HttpResponse, http::StatusCode, web};
use diesel::{Connection, PgConnection};
use rovi_common::http::Problem;
use serde::{Deserialize, Serialize};

use crate::{
    api::battery_name,
    config::MAX_COLUMN_NAME_BYTES,
    history::{expression::Expression, picks},
    hub::Hub,
    store::{
        StoreError,
        signals::{self, Signal},
        source::{Of, Source, SourceError},
    },
};

/// Most signals of a battery.
const MOST_SIGNALS: usize = 200;
/// Most bytes of a unit.
const MAX_UNIT_BYTES: usize = 32;
/// Names that rows have anyhow.
const OWN_NAMES: [&str; 4] = ["seq", "received", "segment", "epoch"];

/// A signal to be defined.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSignal {
    /// A formula over columns: numbers, names (odd ones in double quotes), + - * / ^, parentheses,
    /// and functions such as abs, sqrt, exp, ln, min, max, clamp.
    #[schema(example = "voltage * current")]
    expression: String,
    /// The unit of the result.
    #[schema(example = "W")]
    unit: Option<String>,
}

/// A signal as it is defined.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SignalBody {
    name: String,
    expression: String,
    unit: Option<String>,
    /// Why it cannot be asked for now, if so.
    problem: Option<String>,
}

impl SignalBody {
    fn new(source: &Source, signal: Signal) -> Self {
        let problem = if source.column(&signal.name).is_some() {
            Some("the table has a column of this name, which is taken instead".to_owned())
        } else {
            check(source, &signal.expression).err()
        };
        Self {
            name: signal.name,
            expression: signal.expression,
            unit: signal.unit,
            problem,
        }
    }
}

/// Defines a signal, in place of one of the same name.
#[utoipa::path(
    put,
    path = "/db/{battery}/signals/{signal}",
    tag = "signals",
    params(("battery" = String, Path, description = "Name of the battery"),
           ("signal" = String, Path, description = "Name of the signal")),
    request_body = NewSignal,
    responses(
        (status = 200, body = SignalBody), (status = 201, body = SignalBody),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn put_signal(
    path: web::Path<(String, String)>,
    body: web::Bytes,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, name) = path.into_inner();
    check_name(&name)?;
    let new: NewSignal = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("the body is no definition of a signal: {error}"))
    })?;
    if let Some(unit) = new
        .unit
        .as_ref()
        .filter(|unit| unit.len() > MAX_UNIT_BYTES || unit.contains('\0'))
    {
        let detail =
            format!("the unit {unit:?} is longer than {MAX_UNIT_BYTES} bytes or has a NUL");
        return Err(Problem::bad_request(detail).at("unit"));
    }
    let signal = Signal {
        name,
        expression: new.expression,
        unit: new.unit,
    };
    let work =
        move |connection: &mut PgConnection, source: &Source| put(connection, source, signal);
    let (is_new, body) = at_source(&hub, &battery, work).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(HttpResponse::build(status).json(body))
}

type Put = Result<(bool, SignalBody), Problem>;

fn put(connection: &mut PgConnection, source: &Source, signal: Signal) -> Result<Put, StoreError> {
    let battery = &source.battery;
    if source.column(&signal.name).is_some() {
        let detail = format!(
            "{battery} has a column `{}`; a signal needs a name of its own",
            signal.name
        );
        return Ok(Err(Problem::conflict(detail).at("signal")));
    }
    if let Err(reason) = check(source, &signal.expression) {
        return Ok(Err(
            Problem::bad_request(format!("{battery}: {reason}")).at("expression")
        ));
    }
    let known = signals::list(connection, source.line.id)?;
    if known.len() >= MOST_SIGNALS && known.iter().all(|known| known.name != signal.name) {
        let detail = format!("{battery} has {MOST_SIGNALS} signals already; remove one first");
        return Ok(Err(Problem::conflict(detail)));
    }
    let is_new = signals::put(connection, source.line.id, &signal)?;
    Ok(Ok((is_new, SignalBody::new(source, signal))))
}

/// Returns a battery's signals.
#[utoipa::path(
    get,
    path = "/db/{battery}/signals",
    tag = "signals",
    params(("battery" = String, Path, description = "Name of the battery")),
    responses(
        (status = 200, body = Vec<SignalBody>), (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_signals(
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let found = at_source(&hub, &battery, |connection, source| {
        let signals = signals::list(connection, source.line.id)?.into_iter();
        Ok(Ok(signals
            .map(|signal| SignalBody::new(source, signal))
            .collect::<Vec<_>>()))
    });
    Ok(HttpResponse::Ok().json(found.await?))
}

/// Returns a signal.
#[utoipa::path(
    get,
    path = "/db/{battery}/signals/{signal}",
    tag = "signals",
    params(("battery" = String, Path, description = "Name of the battery"),
           ("signal" = String, Path, description = "Name of the signal")),
    responses(
        (status = 200, body = SignalBody), (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn get_signal(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, name) = path.into_inner();
    let found = at_source(&hub, &battery, move |connection, source| {
        let signals = signals::list(connection, source.line.id)?;
        let found = signals.into_iter().find(|signal| signal.name == name);
        Ok(match found {
            Some(signal) => Ok(SignalBody::new(source, signal)),
            None => Err(no_such_signal(source, &name)),
        })
    });
    Ok(HttpResponse::Ok().json(found.await?))
}

/// Removes a signal.
#[utoipa::path(
    delete,
    path = "/db/{battery}/signals/{signal}",
    tag = "signals",
    params(("battery" = String, Path, description = "Name of the battery"),
           ("signal" = String, Path, description = "Name of the signal")),
    responses((status = 204), (status = 404, body = Problem), (status = 503, body = Problem))
)]
pub(crate) async fn delete_signal(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, name) = path.into_inner();
    let removed = at_source(&hub, &battery, move |connection, source| {
        let was_there = signals::remove(connection, source.line.id, &name)?;
        Ok(was_there
            .then_some(())
            .ok_or_else(|| no_such_signal(source, &name)))
    });
    removed.await?;
    Ok(HttpResponse::NoContent().finish())
}

fn no_such_signal(source: &Source, name: &str) -> Problem {
    let detail = format!("{} has no signal `{name}`", source.battery);
    Problem::not_found(detail).at("signal")
}

fn check_name(name: &str) -> Result<(), Problem> {
    let reason = if name.is_empty() || name.len() > MAX_COLUMN_NAME_BYTES || name.contains('\0') {
        format!("must have 1 to {MAX_COLUMN_NAME_BYTES} bytes and no NUL")
    } else if OWN_NAMES.contains(&name) {
        "is a name that every row has".to_owned()
    } else {
        return Ok(());
    };
    Err(Problem::bad_request(format!("the signal's name `{name}` {reason}")).at("signal"))
}

/// Tells why a formula cannot be computed.
fn check(source: &Source, text: &str) -> Result<(), String> {
    let expression: Expression = text
        .parse()
        .map_err(|error| format!("expression {error}"))?;
    picks::check(source, &expression)
}

/// Works on a battery's table in one transaction.
async fn at_source<T: Send + 'static>(
    hub: &Hub,
    battery: &str,
    work: impl FnOnce(&mut PgConnection, &Source) -> Result<Result<T, Problem>, StoreError>
    + Send
    + 'static,
) -> Result<T, Problem> {
    let name = battery_name(battery)?;
    let done = hub.pool.run(move |connection| {
        connection.transaction(
            |connection| match Source::open(connection, &name, &Of::Rows) {
                Ok(source) => work(connection, &source),
                Err(SourceError::Store(error)) => Err(error),
                Err(error) => Ok(Err(Problem::not_found(error).at("battery"))),
            },
        )
    });
    done.await?
}
