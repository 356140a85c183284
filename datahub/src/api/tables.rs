//! `/db/{battery}/tables`: other tables of a battery's file, replaced and read as a whole.

use actix_web::{HttpRequest, HttpResponse, web};
use rovi_common::{
    http::Problem,
    name::BatteryName,
    rows::{Columns, Value},
};
use serde::{Deserialize, Serialize};

use super::{battery_name, cycles::wants_csv, no_such_battery};
use crate::{
    hub::Hub,
    store::file_tables::{self, Listed, Read, TableError},
    upload::{
        body::{BodyForm, decode_body},
        decode::Limits,
        post,
    },
};

/// The longest name of a table, in bytes: battery and table must fit PostgreSQL's 63.
const MAX_TABLE_BYTES: usize = 31;
const DEFAULT_LIMIT: i64 = 10_000;
const MOST_ROWS: i64 = 100_000;

/// Which rows, and how.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableQuery {
    /// Only rows after this one, from 1.
    #[serde(default)]
    after: i64,
    /// Most rows: 10,000 if not given, at most 100,000.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<i64>,
    /// `json` or `csv`; else what `Accept` asks for.
    format: Option<String>,
}

/// Rows of a table as columns.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TableBody<'a> {
    battery: &'a str,
    table: &'a str,
    /// All rows of the table.
    rows: i64,
    /// Places of these rows, from 1.
    seq: Vec<i64>,
    #[schema(value_type = Object)]
    columns: &'a Columns,
}

fn table_name(name: &str) -> Result<(), Problem> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=MAX_TABLE_BYTES).contains(&name.len()) && name.chars().all(is_allowed) {
        return Ok(());
    }
    let detail = format!(
        "a table's name has 1 to {MAX_TABLE_BYTES} of A-Z, a-z, 0-9, `_` and `-`; this is {name:?}"
    );
    Err(Problem::bad_request(detail).at("table"))
}

fn no_such_table(battery: &BatteryName, table: &str) -> Problem {
    let detail = format!("{battery} has no table {table:?}; /db/{battery}/tables lists them");
    Problem::not_found(detail).at("table")
}

/// Stores a table beside a battery's rows, in place of one of that name.
#[utoipa::path(
    put,
    path = "/db/{battery}/tables/{table}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("table" = String, Path, description = "Name of the table, such as cycle_stats"),
    ),
    request_body(description = "Rows, in the forms of uploads", content(
        (Vec<Object> = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/msgpack"),
    )),
    responses(
        (status = 200, body = u64, description = "Rows of the table"),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn put_table(
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, table) = path.into_inner();
    let battery = battery_name(&battery)?;
    table_name(&table)?;
    let form = BodyForm::of(request.headers());
    let body = post::read(&hub, request.headers(), payload).await?;
    // Kept until the table is stored.
    let _room = hub.bodies.room_to_decode(&body).await?;
    let limits = Limits::of_bodies(&hub.settings);
    let decoding =
        tokio::task::spawn_blocking(move || decode_body(&body.bytes, form, &limits, &[]));
    let decoded = decoding.await.map_err(|error| Problem::internal(&error))?;
    let decoded = decoded?;
    if let Some(row) = decoded.rejected.first() {
        let detail = format!("row {}: {}; nothing is stored", row.offset, row.reason);
        return Err(Problem::bad_request(detail));
    }
    let rows = decoded.columns.rows();
    let (owner, name) = (battery.clone(), table.clone());
    let replace =
        move |connection: &mut _| file_tables::replace(connection, &owner, &name, &decoded.columns);
    match hub.pool.run(replace).await? {
        Ok(sql_name) => {
            tracing::info!(battery.id = %battery, "tables.\"{sql_name}\" has {rows} rows now");
            Ok(HttpResponse::Ok().json(rows))
        }
        Err(TableError::NoBattery) => Err(no_such_battery(&battery)),
        Err(error @ TableError::Row { .. }) => {
            Err(Problem::bad_request(format!("{error}; nothing is stored")))
        }
        Err(error @ TableError::TooMany) => Err(Problem::conflict(error)),
    }
}

/// Lists a battery's other tables.
#[utoipa::path(
    get,
    path = "/db/{battery}/tables",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery")),
    responses(
        (status = 200, body = Vec<Listed>), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn list_tables(
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<web::Json<Vec<Listed>>, Problem> {
    let battery = battery_name(&battery)?;
    let name = battery.clone();
    let list = hub
        .pool
        .run(move |connection| file_tables::list(connection, &name));
    let list = list.await?.ok_or_else(|| no_such_battery(&battery))?;
    Ok(web::Json(list))
}

/// Reads one of a battery's other tables.
#[utoipa::path(
    get,
    path = "/db/{battery}/tables/{table}",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("table" = String, Path, description = "Name of the table, such as cycle_stats"),
        TableQuery,
    ),
    responses(
        (status = 200, content((TableBody = "application/json"), (String = "text/csv"))),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_table(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    query: web::Query<TableQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, table) = path.into_inner();
    let battery = battery_name(&battery)?;
    let is_csv = wants_csv(&request, query.format.as_deref())?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_ROWS).contains(&limit) {
        let detail = format!("limit={limit} is outside 1 to {MOST_ROWS}");
        return Err(Problem::bad_request(detail).at("limit"));
    }
    table_name(&table)?;
    let (owner, name, after) = (battery.clone(), table.clone(), query.after);
    let read =
        move |connection: &mut _| file_tables::read(connection, &owner, &name, (after, limit));
    let read = hub.pool.run(read).await?;
    let read = read.ok_or_else(|| no_such_table(&battery, &table))?;
    if is_csv {
        let body = csv(&read).map_err(|error| Problem::internal(&error))?;
        let mut response = HttpResponse::Ok();
        return Ok(response.content_type("text/csv; charset=utf-8").body(body));
    }
    Ok(HttpResponse::Ok().json(TableBody {
        battery: battery.as_str(),
        table: &table,
        rows: read.rows,
        seq: read.seq,
        columns: &read.columns,
    }))
}

fn csv(read: &Read) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = read.columns.iter().map(|(name, _)| name);
    writer.write_record(["seq"].into_iter().chain(names))?;
    for (row, seq) in read.seq.iter().enumerate() {
        let cells = read.columns.row(row).map(|(_, value)| match value {
            Value::Null => String::new(),
            Value::Text(text) => text,
            Value::Time(us) => us.to_string(),
            value => value.to_string(),
        });
        writer.write_record([seq.to_string()].into_iter().chain(cells))?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}
