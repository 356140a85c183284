//! `/db/{battery}/rows/{seq}` and `DELETE /db/{battery}/rows`: rows looked at, corrected and deleted
//! one by one or by range, each change in the journal `/db/{battery}/corrections`.

use std::ops::RangeInclusive;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use diesel::PgConnection;
use rovi_common::{fault, http::Problem, name::BatteryName, rows::Columns};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    battery_name,
    metadata::{author, bytes_of, condition, lists},
    no_such_battery,
};
use crate::{
    history::range,
    hub::Hub,
    store::{
        corrections::{self, Corrected, MOST_DELETED},
        durable,
    },
    upload::decode::{Encoding, Limits, decode},
};

/// A row as it stands in the table.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RowBody<'a> {
    battery: &'a str,
    epoch: i64,
    /// The correction that made it what it is; 0 where there was none.
    revision: i64,
    /// All columns; NaN and infinities as text.
    #[schema(value_type = Object)]
    row: &'a RawValue,
}

/// What a correction came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CorrectedBody {
    battery: String,
    epoch: i64,
    seq: i64,
    /// The correction; an older one where the row was like this before.
    revision: i64,
}

/// What a deletion came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedBody {
    battery: String,
    epoch: i64,
    /// Rows that were deleted.
    rows: i64,
    /// The correction; the newest of before where there were no rows.
    revision: i64,
}

/// Which rows, and whether that is really meant.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteRowsQuery {
    /// `a..b`, both inclusive; at most 100,000 rows.
    #[param(example = "5..7")]
    seq: String,
    /// The battery's name once more; without it, nothing happens.
    confirm: Option<String>,
}

/// Reads one row; its `ETag` serves `If-Match` of a correction.
#[utoipa::path(
    get,
    path = "/db/{battery}/rows/{seq}",
    tag = "corrections",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("seq" = i64, Path, description = "Number of the row"),
    ),
    responses(
        (status = 200, body = RowBody, headers(("ETag" = String, description = "The row's version"))),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read_row(
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, seq) = row_of(&path)?;
    let name = battery.clone();
    let find = move |connection: &mut PgConnection| {
        let found = corrections::find_row(connection, &name, seq)?;
        // Whoever corrects it means this row.
        durable::settle(connection)?;
        Ok(found)
    };
    let found = hub.pool.run(find).await?;
    let (line, row) = found.ok_or_else(|| no_such_battery(&battery))?;
    let row = row.map_err(|why| Problem::not_found(why).at("seq"))?;
    let cells = RawValue::from_string(row.cells).map_err(|error| Problem::internal(&error))?;
    let body = RowBody {
        battery: battery.as_str(),
        epoch: line.epoch,
        revision: row.revision,
        row: &cells,
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, etag(line.epoch, row.revision)))
        .json(body))
}

/// Corrects a row: the given columns change, the others stay; null empties a cell.
///
/// Types are checked as at upload; a correction adds no columns.
#[utoipa::path(
    put,
    path = "/db/{battery}/rows/{seq}",
    tag = "corrections",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("seq" = i64, Path, description = "Number of the row"),
        ("If-Match" = Option<String>, Header, description = "412 unless this is the row's ETag"),
        ("From" = Option<String>, Header, description = "Who corrects it"),
    ),
    request_body(content = Object, description = "The columns to change"),
    responses(
        (status = 200, body = CorrectedBody, headers(("ETag" = String, description = "The row's version"))),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem, description = "The row was changed meanwhile"),
        (status = 413, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn correct_row(
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
    path: web::Path<(String, String)>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (battery, seq) = row_of(&path)?;
    let given = cells_of(&bytes_of(body)?, &hub)?;
    let author = author(&request)?;
    let expected = condition(&request, &header::IF_MATCH).map(str::to_owned);
    let name = battery.clone();
    let correct = move |connection: &mut PgConnection| {
        let is_expected =
            |epoch, revision| expected.is_none_or(|tags| lists(&tags, &etag(epoch, revision)));
        let author = author.as_deref();
        corrections::correct(connection, (&name, seq), &given, author, is_expected)
    };
    match hub.pool.run(correct).await? {
        Corrected::Done { epoch, revision } => {
            fault::passed("hub.correct.committed");
            hub.corrections.wake();
            tracing::info!(battery.id = %battery, "row {seq} of {battery} is of correction {revision}");
            Ok(HttpResponse::Ok()
                .insert_header((header::ETAG, etag(epoch, revision)))
                .json(CorrectedBody {
                    battery: battery.into(),
                    epoch,
                    seq,
                    revision,
                }))
        }
        Corrected::NoBattery => Err(no_such_battery(&battery)),
        Corrected::NoRow(why) => Err(Problem::not_found(why).at("seq")),
        Corrected::Refused(why) => Err(Problem::bad_request(why)),
        Corrected::Changed { epoch, revision } => {
            let detail = format!(
                "row {seq} was changed: its ETag is {}; read it again",
                etag(epoch, revision)
            );
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail).at("If-Match"))
        }
    }
}

/// Deletes rows of a range; what they were stays readable in the journal.
///
/// Without `confirm` it answers 409 and says how many there are. Other rows keep their numbers.
#[utoipa::path(
    delete,
    path = "/db/{battery}/rows",
    tag = "corrections",
    params(
        ("battery" = String, Path, description = "Name of the battery"), DeleteRowsQuery,
        ("From" = Option<String>, Header, description = "Who deletes them"),
    ),
    responses(
        (status = 200, body = DeletedBody), (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "Not confirmed; says what there is"),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn delete_rows(
    request: HttpRequest,
    battery: web::Path<String>,
    query: web::Query<DeleteRowsQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let (first, last) = range::seq("seq", &query.seq)?;
    let seqs = first..=last;
    let rows = extent(&hub, &battery, &seqs).await?;
    if rows > MOST_DELETED {
        let detail = format!(
            "seq={} has {rows} rows; {MOST_DELETED} go at once",
            query.seq
        );
        return Err(Problem::bad_request(detail).at("seq"));
    }
    if query.confirm.as_deref() != Some(battery.as_str()) {
        let detail = format!(
            "nothing was deleted: seq={} of {battery} has {rows} rows; to delete them, say \
             &confirm={battery}",
            query.seq
        );
        return Err(Problem::conflict(detail).at("confirm"));
    }
    let author = author(&request)?;
    let name = battery.clone();
    let delete = move |connection: &mut PgConnection| {
        corrections::delete(connection, &name, &seqs, author.as_deref())
    };
    let deleted = hub.pool.run(delete).await?;
    let deleted = deleted.ok_or_else(|| no_such_battery(&battery))?;
    fault::passed("hub.correct.committed");
    hub.corrections.wake();
    tracing::info!(
        battery.id = %battery,
        "{} rows of {battery} were deleted by correction {}",
        deleted.rows,
        deleted.revision
    );
    Ok(HttpResponse::Ok().json(DeletedBody {
        battery: battery.into(),
        epoch: deleted.epoch,
        rows: deleted.rows,
        revision: deleted.revision,
    }))
}

async fn extent(
    hub: &Hub,
    battery: &BatteryName,
    seqs: &RangeInclusive<i64>,
) -> Result<i64, Problem> {
    let (name, seqs) = (battery.clone(), seqs.clone());
    let count =
        move |connection: &mut PgConnection| Ok(corrections::extent(connection, &name, &seqs)?);
    let rows = hub.pool.run(count).await?;
    rows.ok_or_else(|| no_such_battery(battery))
}

/// Reads battery and number from a path.
fn row_of((battery, seq): &(String, String)) -> Result<(BatteryName, i64), Problem> {
    let seq = seq.parse().map_err(|_no_number| {
        Problem::bad_request(format!("`{seq}` is no number of a row")).at("seq")
    })?;
    Ok((battery_name(battery)?, seq))
}

/// Names the version of a row.
fn etag(epoch: i64, revision: i64) -> String {
    format!("\"{epoch}-{revision}\"")
}

/// Reads one row as an upload does.
fn cells_of(body: &[u8], hub: &Hub) -> Result<Columns, Problem> {
    let limits = Limits {
        rows: 1,
        ..Limits::of_frames(&hub.settings)
    };
    let mut decoded = decode(body, Encoding::Json, &limits).map_err(Problem::bad_request)?;
    if let Some(rejected) = decoded.rejected.pop() {
        return Err(Problem::bad_request(rejected.reason));
    }
    if decoded.columns.rows() != 1 {
        let detail = r#"the body must be one row, such as {"voltage": 3.7}"#;
        return Err(Problem::bad_request(detail));
    }
    Ok(decoded.columns)
}
