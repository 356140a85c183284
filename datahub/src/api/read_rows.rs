//! `GET /db/{battery}/rows`: history; see `docs/PROTOCOL.md`.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web,
};
use diesel::{Connection, PgConnection};
use rovi_common::{
    frame::{FRAME_VERSION, MAX_FRAME_BYTES, MAX_FRAME_ROWS, RowFrame},
    http::Problem,
    name::BatteryName,
    rows::{Columns, Value},
};
use serde::{Deserialize, Serialize};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::{
        StoreError,
        batteries::{self, Line},
        rows::{self, SelectError, Selected, Selection},
    },
    stored::StoredRows,
};

const DEFAULT_LIMIT: usize = 10_000;
const MOST_ROWS: usize = 100_000;

/// Which rows, and how.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowsQuery {
    /// `a..b`, both inclusive, either may be missing.
    #[param(example = "1..100")]
    seq: Option<String>,
    /// `a..b` in seconds, both inclusive, either may be missing.
    #[param(example = "0..3600")]
    test_time: Option<String>,
    /// Names of columns, separated by commas.
    columns: Option<String>,
    /// Most rows: 10,000 if not given, at most 100,000.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// The epoch that the caller knows; 409 where it is over.
    epoch: Option<i64>,
    /// `json`, `csv` or `msgpack`; else what `Accept` asks for.
    format: Option<String>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Msgpack,
}

/// Rows as columns.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RowsBody<'a> {
    battery: &'a str,
    epoch: i64,
    /// `seq` of the battery's newest row.
    last_seq: i64,
    /// Whether the limit left rows out.
    more: bool,
    seq: Vec<i64>,
    /// Microseconds since 1970.
    received: Vec<i64>,
    segment: Vec<i32>,
    #[schema(value_type = Object)]
    columns: &'a Columns,
    /// Units by column, where one is known.
    units: &'a BTreeMap<String, String>,
}

/// Reads rows of a battery, by `seq` or `test_time`.
#[utoipa::path(
    get,
    path = "/db/{battery}/rows",
    tag = "rows",
    params(("battery" = String, Path, description = "Name of the battery"), RowsQuery),
    responses(
        (status = 200, description = "The rows in the order of seq", content(
            (RowsBody = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/msgpack"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_rows(
    request: HttpRequest,
    battery: web::Path<String>,
    query: web::Query<RowsQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let format = format_of(&query, request.headers())?;
    let selection = selection(&query)?;
    let epoch = query.epoch;
    let name = battery.clone();
    let read = move |connection: &mut PgConnection| find(connection, &name, epoch, &selection);
    let (line, selected) = hub.pool.run(read).await??;
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("Rovi-Epoch", line.epoch))
        .insert_header(("Rovi-Last-Seq", line.last_seq))
        .insert_header((header::VARY, "Accept"))
        .content_type(format.content_type());
    // Writing 100,000 rows takes longer than a thread that serves sockets may.
    let written = tokio::task::spawn_blocking(move || write(format, &battery, &line, selected));
    let written = written.await.map_err(|error| Problem::internal(&error))?;
    let body = written.map_err(|error| Problem::internal(&error))?;
    Ok(response.body(body))
}

type Found = Result<(Line, Selected), Problem>;

/// Finds the battery and its rows at one moment.
fn find(
    connection: &mut PgConnection,
    battery: &BatteryName,
    epoch: Option<i64>,
    selection: &Selection,
) -> Result<Found, StoreError> {
    connection.transaction(|connection| {
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Ok(Err(no_such_battery(battery)));
        };
        if let Some(epoch) = epoch.filter(|epoch| *epoch != line.epoch) {
            let present = line.epoch;
            let detail = format!("epoch {epoch} is over, {battery} is in epoch {present}");
            return Ok(Err(Problem::conflict(detail).at("epoch")));
        }
        match rows::select(connection, &line, selection) {
            Ok(selected) => Ok(Ok((line, selected))),
            Err(SelectError::Store(error)) => Err(error),
            Err(error @ SelectError::NoColumn(_)) => Ok(Err(Problem::bad_request(format!(
                "{battery}: {error}"
            ))
            .at("columns"))),
            Err(error @ SelectError::NoTable) => {
                let detail = format!("{battery}: {error}");
                Ok(Err(Problem::not_found(detail).at("battery")))
            }
        }
    })
}

fn format_of(query: &RowsQuery, headers: &HeaderMap) -> Result<Format, Problem> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let accept = accept.unwrap_or_default();
    match query.format.as_deref() {
        Some("json") => Ok(Format::Json),
        Some("csv") => Ok(Format::Csv),
        Some("msgpack") => Ok(Format::Msgpack),
        Some(other) => {
            let detail = format!("format={other} is not known; there are json, csv and msgpack");
            Err(Problem::bad_request(detail).at("format"))
        }
        None if accept.contains("text/csv") => Ok(Format::Csv),
        None if accept.contains("application/msgpack") => Ok(Format::Msgpack),
        None => Ok(Format::Json),
    }
}

fn selection(query: &RowsQuery) -> Result<Selection, Problem> {
    let (first, last) = range::<i64>("seq", query.seq.as_deref())?;
    let test_time = match query.test_time.as_deref() {
        None => None,
        given => Some(range::<f64>("test_time", given)?),
    };
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_ROWS).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_ROWS}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    let columns = query.columns.as_deref().map(|names| {
        let mut columns: Vec<String> = Vec::new();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            if !columns.iter().any(|known| known == name) {
                columns.push(name.to_owned());
            }
        }
        columns
    });
    Ok(Selection {
        seq: first.unwrap_or(1)..=last.unwrap_or(i64::MAX),
        test_time,
        columns,
        limit,
    })
}

/// Reads `a..b`, where either may be missing.
fn range<T: std::str::FromStr>(
    field: &'static str,
    text: Option<&str>,
) -> Result<(Option<T>, Option<T>), Problem> {
    let wrong = || {
        let detail = format!("{field} must be a..b, a.. or ..b with numbers");
        Problem::bad_request(detail).at(field)
    };
    let bound = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_no_number| wrong()),
    };
    let Some(text) = text else {
        return Ok((None, None));
    };
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    Ok((bound(first)?, bound(last)?))
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Msgpack => "application/msgpack",
        }
    }
}

/// Rows could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("rows cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("rows cannot be written as CSV")]
    Csv(#[from] csv::Error),
}

fn write(
    format: Format,
    battery: &BatteryName,
    line: &Line,
    selected: Selected,
) -> Result<Vec<u8>, WriteError> {
    Ok(match format {
        Format::Json => serde_json::to_vec(&RowsBody {
            battery: battery.as_str(),
            epoch: line.epoch,
            last_seq: line.last_seq,
            more: selected.more,
            seq: selected.seq,
            received: selected.received,
            segment: selected.segment,
            columns: &selected.columns,
            units: &selected.units,
        })?,
        Format::Csv => csv(&selected)?,
        Format::Msgpack => frames(battery, line, selected),
    })
}

/// Writes rows as CSV; times are microseconds since 1970, null is empty.
fn csv(selected: &Selected) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = selected.columns.iter().map(|(name, _)| name);
    writer.write_record(["seq", "received", "segment"].into_iter().chain(names))?;
    let own = selected
        .seq
        .iter()
        .zip(&selected.received)
        .zip(&selected.segment);
    for (row, ((seq, received), segment)) in own.enumerate() {
        let own = [seq.to_string(), received.to_string(), segment.to_string()];
        let cells = selected.columns.row(row).map(|(_, value)| cell(value));
        writer.write_record(own.into_iter().chain(cells))?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}

fn cell(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text,
        Value::Time(us) => us.to_string(),
        value => value.to_string(),
    }
}

/// Writes rows as frames, one after another.
fn frames(battery: &BatteryName, line: &Line, selected: Selected) -> Vec<u8> {
    let mut body = Vec::new();
    for run in rows::by_segment(battery, line, selected) {
        write_frames(run, &mut body);
    }
    body
}

/// Cuts rows into frames; one that is too large in bytes is cut in half.
fn write_frames(mut run: StoredRows, body: &mut Vec<u8>) {
    while run.received.len() > MAX_FRAME_ROWS {
        let rest = split_off(&mut run, MAX_FRAME_ROWS);
        write_frames(std::mem::replace(&mut run, rest), body);
    }
    let rows = run.received.len();
    let frame = RowFrame {
        v: FRAME_VERSION,
        battery: run.battery.clone(),
        epoch: run.epoch,
        segment: run.segment,
        first_seq: run.first_seq,
        received: run.received.clone(),
        columns: run.columns.clone(),
    };
    let bytes = frame.encode();
    if bytes.len() <= MAX_FRAME_BYTES || rows < 2 {
        return body.extend_from_slice(&bytes);
    }
    let rest = split_off(&mut run, rows / 2);
    write_frames(run, body);
    write_frames(rest, body);
}

fn split_off(run: &mut StoredRows, at: usize) -> StoredRows {
    StoredRows {
        received: run.received.split_off(at),
        columns: run.columns.split_off(at),
        first_seq: run.first_seq + i64::try_from(at).unwrap_or_default(),
        battery: run.battery.clone(),
        ..*run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_be_open_on_either_side() {
        assert_eq!(
            range::<i64>("seq", Some("1..5")).unwrap(),
            (Some(1), Some(5))
        );
        assert_eq!(range::<i64>("seq", Some("..5")).unwrap(), (None, Some(5)));
        assert_eq!(range::<f64>("t", Some("0.5..")).unwrap(), (Some(0.5), None));
        for wrong in ["5", "a..b", "1...2"] {
            assert!(range::<i64>("seq", Some(wrong)).is_err(), "{wrong}");
        }
    }
}
