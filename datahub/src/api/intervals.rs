//! `/db/{battery}/intervals`: named parts of a battery's history, and what was in them.

use actix_web::{HttpResponse, web};
use rovi_common::{http::Problem, name::BatteryName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{battery_name, metadata::bytes_of, no_such_battery};
use crate::{
    hub::Hub,
    store::intervals::{self, Bounds, Interval, IntervalError, Statistics},
};

/// The longest label, in bytes.
const MAX_LABEL_BYTES: usize = 200;
/// The longest note, in bytes.
const MAX_NOTE_BYTES: usize = 65_536;

/// An interval as it is given: `{"seq": [first, last]}` or `{"test_time": [first, last],
/// "segment": n}`, both ends inclusive.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInterval {
    seq: Option<(i64, i64)>,
    /// s
    test_time: Option<(f64, f64)>,
    segment: Option<i32>,
    note: Option<String>,
}

/// An interval.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct IntervalBody {
    label: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    bounds: Bounds,
    note: Option<String>,
    /// Microseconds since 1970.
    changed: i64,
}

/// What was in an interval.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StatisticsBody {
    #[serde(flatten)]
    interval: IntervalBody,
    first_seq: i64,
    last_seq: i64,
    /// A·h
    capacity_in: Option<f64>,
    /// A·h
    capacity_out: Option<f64>,
    /// W·h
    energy_in: Option<f64>,
    /// W·h
    energy_out: Option<f64>,
    /// By column: `count`, `min`, `max`, `mean`, `std` (of a sample), `last`.
    #[schema(value_type = Object)]
    columns: Map<String, Value>,
}

impl From<Interval> for IntervalBody {
    fn from(interval: Interval) -> Self {
        Self {
            label: interval.label,
            bounds: interval.bounds,
            note: interval.note,
            changed: interval.changed,
        }
    }
}

impl From<Statistics> for StatisticsBody {
    fn from(statistics: Statistics) -> Self {
        let sum = |place: usize| {
            statistics
                .throughput
                .and_then(|sums| sums.get(place).copied())
        };
        Self {
            first_seq: statistics.seq.0,
            last_seq: statistics.seq.1,
            capacity_in: sum(0),
            capacity_out: sum(1),
            energy_in: sum(2),
            energy_out: sum(3),
            interval: statistics.interval.into(),
            columns: statistics.columns,
        }
    }
}

impl NewInterval {
    fn bounds(&self) -> Result<Bounds, Problem> {
        let wrong = |field: &str, detail: &str| Err(Problem::bad_request(detail).at(field));
        match (self.seq, self.test_time, self.segment) {
            (Some((first, last)), None, None) if 1 <= first && first <= last => {
                Ok(Bounds::Rows { seq: (first, last) })
            }
            (Some(_), None, None) => {
                wrong("seq", "seq must be [first, last] with 1 <= first <= last")
            }
            (None, Some(test_time), Some(segment)) if test_time.0 <= test_time.1 => {
                Ok(Bounds::Times { segment, test_time })
            }
            (None, Some(_), Some(_)) => wrong("test_time", "test_time must be [first, last]"),
            _ => wrong("seq", "give either seq, or test_time and segment"),
        }
    }
}

fn label_of(label: &str) -> Result<(), Problem> {
    let is_label = (1..=MAX_LABEL_BYTES).contains(&label.len()) && !label.contains('\0');
    if is_label {
        return Ok(());
    }
    let detail = format!("a label has 1 to {MAX_LABEL_BYTES} bytes, none a NUL");
    Err(Problem::bad_request(detail).at("label"))
}

fn problem(battery: &BatteryName, label: &str, error: &IntervalError) -> Problem {
    match error {
        IntervalError::NoBattery => no_such_battery(battery),
        IntervalError::NoInterval => {
            let detail = format!("{battery} has no interval {label:?}");
            Problem::not_found(detail).at("label")
        }
        IntervalError::Empty(_) => {
            let detail = format!("the interval {label:?} of {battery}: {error}");
            Problem::bad_request(detail).at("seq")
        }
        IntervalError::TooMany => Problem::conflict(error),
    }
}

/// Keeps an interval under a label, in place of one that is there.
#[utoipa::path(
    put,
    path = "/db/{battery}/intervals/{label}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("label" = String, Path, description = "What people call it"),
    ),
    request_body = NewInterval,
    responses(
        (status = 204), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn put_interval(
    path: web::Path<(String, String)>,
    body: Result<web::Bytes, actix_web::Error>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, label) = path.into_inner();
    let battery = battery_name(&battery)?;
    label_of(&label)?;
    let new: NewInterval = serde_json::from_slice(&bytes_of(body)?)
        .map_err(|error| Problem::bad_request(format!("this is no interval: {error}")))?;
    let bounds = new.bounds()?;
    let note = new.note;
    if note
        .as_ref()
        .is_some_and(|note| note.len() > MAX_NOTE_BYTES || note.contains('\0'))
    {
        let detail = format!("a note has at most {MAX_NOTE_BYTES} bytes, none a NUL");
        return Err(Problem::bad_request(detail).at("note"));
    }
    let (name, text) = (battery.clone(), label.clone());
    let put = move |connection: &mut _| {
        intervals::put(connection, &name, (&text, bounds, note.as_deref()))
    };
    let put = hub.pool.run(put).await?;
    put.map_err(|error| problem(&battery, &label, &error))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists a battery's intervals.
#[utoipa::path(
    get,
    path = "/db/{battery}/intervals",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery")),
    responses(
        (status = 200, body = Vec<IntervalBody>), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_intervals(
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<IntervalBody>>, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.clone();
    let list = hub
        .pool
        .run(move |connection| intervals::list(connection, &name));
    let list = list.await?.ok_or_else(|| no_such_battery(&battery))?;
    Ok(web::Json(
        list.into_iter().map(IntervalBody::from).collect(),
    ))
}

/// Returns an interval with what was in it: statistics of each column of numbers, charge and
/// energy in and out.
#[utoipa::path(
    get,
    path = "/db/{battery}/intervals/{label}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("label" = String, Path, description = "What people call it"),
    ),
    responses(
        (status = 200, body = StatisticsBody), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_interval(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<web::Json<StatisticsBody>, Problem> {
    let (battery, label) = path.into_inner();
    let battery = battery_name(&battery)?;
    label_of(&label)?;
    let (name, text) = (battery.clone(), label.clone());
    let read = move |connection: &mut _| intervals::statistics(connection, &name, &text);
    let statistics = hub.pool.run(read).await?;
    let statistics = statistics.map_err(|error| match error {
        // It had some when it was made.
        IntervalError::Empty(reason) => {
            let detail = format!("the interval {label:?} of {battery}: {reason}");
            Problem::not_found(detail).at("label")
        }
        error => problem(&battery, &label, &error),
    })?;
    Ok(web::Json(statistics.into()))
}

/// Forgets an interval; its rows stay.
#[utoipa::path(
    delete,
    path = "/db/{battery}/intervals/{label}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("label" = String, Path, description = "What people call it"),
    ),
    responses(
        (status = 204), (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn delete_interval(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, label) = path.into_inner();
    let battery = battery_name(&battery)?;
    label_of(&label)?;
    let (name, text) = (battery.clone(), label.clone());
    let delete = move |connection: &mut _| intervals::delete(connection, &name, &text);
    if hub.pool.run(delete).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(problem(&battery, &label, &IntervalError::NoInterval))
}
