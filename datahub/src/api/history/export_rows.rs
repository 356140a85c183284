//! `GET /db/{battery}/rows/export` and `/estimates/export`: a whole range as a file.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, body::BoxBody, http::header, web};
use diesel::PgConnection;
use rovi_battdat::BattdatError;
use rovi_common::{
    auth::{Access, Flow, Held},
    http::Problem,
    name::BatteryName,
};

use super::{
    answer_of, gaps,
    pairs::Pairs,
    question::{Question, QuestionParams},
    read_rows::estimator,
};
use crate::{
    api::battery_name,
    history::{
        export::{self, ExportError},
        files,
        format::Format,
        pages::Pages,
    },
    hub::Hub,
    store::{batteries, source::Of},
};

/// The form of the file.
#[expect(dead_code, reason = "documents the query")]
#[derive(Debug, utoipa::IntoParams)]
pub(crate) struct ExportParams {
    /// `csv`, `ndjson`, `json`, `msgpack`, `parquet` or `h5`; else what `Accept` asks for.
    format: Option<String>,
}

/// Writes all rows of a range into a file and sends it while it is made.
#[utoipa::path(
    get,
    path = "/db/{battery}/rows/export",
    tag = "history",
    params(("battery" = String, Path, description = "Name of the battery"), QuestionParams, ExportParams),
    responses(
        (status = 200, description = "The file; a transfer that breaks off is not complete", content(
            (String = "text/csv"), (String = "application/x-ndjson"), (Vec<Object> = "application/json"),
            (Vec<u8> = "application/msgpack"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/x-hdf5"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn export_rows(
    request: HttpRequest,
    access: Access,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let asked = (battery_name(&battery)?, Of::Rows);
    answer((&request, &access), Pairs::of(&request), &hub, asked).await
}

/// Writes all that an estimator said over a range into a file.
#[utoipa::path(
    get,
    path = "/db/{battery}/estimates/export",
    tag = "history",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("estimator" = Option<String>, Query, description = "Which estimator; else `default`"),
        QuestionParams, ExportParams,
    ),
    responses(
        (status = 200, description = "The file; a transfer that breaks off is not complete", content(
            (String = "text/csv"), (String = "application/x-ndjson"), (Vec<Object> = "application/json"),
            (Vec<u8> = "application/msgpack"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/x-hdf5"),
        )),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 409, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn export_estimates(
    request: HttpRequest,
    access: Access,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let mut pairs = Pairs::of(&request);
    let of = Of::Estimates(estimator(&mut pairs)?);
    answer((&request, &access), pairs, &hub, (battery, of)).await
}

async fn answer(
    (request, access): (&HttpRequest, &Access),
    mut pairs: Pairs,
    hub: &web::Data<Hub>,
    (battery, of): (BatteryName, Of),
) -> Result<HttpResponse, Problem> {
    let mut question = Question::take(&mut pairs)?;
    let format = Format::choose(Format::EXPORTS, pairs.take("format")?.as_deref(), request)?;
    pairs.end()?;
    let purse = access.purse();
    purse.check(Flow::RowsRead)?;
    let place = purse.hold(Held::Exports)?;
    let permit = Arc::clone(&hub.exports)
        .try_acquire_owned()
        .map_err(|_none_left| {
            let most = hub.settings.exports;
            Problem::unavailable(format!(
                "{most} exports run already (setting `exports`); try again soon"
            ))
        })?;
    let permit = (permit, place);
    let (source, signals) = question.open(hub, &battery, of).await?;
    let selection = question.selection(&source)?;
    let picks = Arc::new(question.picks(&source, &signals)?);
    if picks.iter().next().is_none() {
        let detail = format!("{battery} has no columns to export");
        return Err(Problem::not_found(detail).at("columns"));
    }
    let metadata = metadata(hub, &battery).await?;
    let gaps = gaps::within(hub, &source, selection.seq.clone()).await?;
    let pages = Pages::new(&hub.pool, &hub.stop, &source, &picks, selection).for_budget(purse);
    let mut response = answer_of(&source);
    gaps::tell(&mut response, &gaps);
    let name = format!("attachment; filename=\"{battery}.{}\"", format.name());
    response
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CONTENT_DISPOSITION, name))
        .content_type(format.content_type());
    let writer = match format {
        Format::Json => Ok(Some(files::json_array())),
        _ => files::writer(format, &source, &picks, &metadata),
    };
    if let Some(writer) = writer.map_err(|error| Problem::internal(&error))? {
        return Ok(response.streaming(export::body(pages, writer, permit)));
    }
    let body = export::battdat_body(pages, metadata, permit).await;
    Ok(response.body(BoxBody::new(body.map_err(problem)?)))
}

/// Returns the battery's metadata; without any there is only its name.
async fn metadata(hub: &Hub, battery: &BatteryName) -> Result<String, Problem> {
    let name = battery.clone();
    let find =
        move |connection: &mut PgConnection| Ok(batteries::metadata(connection, name.as_str())?);
    let metadata = hub.pool.run(find).await?;
    Ok(metadata.unwrap_or_else(|| serde_json::json!({"name": battery}).to_string()))
}

/// Tells what HDF5 cannot hold; the name of the temporary file is nobody's business.
fn problem(error: ExportError) -> Problem {
    let reason = match error {
        ExportError::Read(error) => return error.into(),
        ExportError::Battdat(BattdatError::Metadata { reason, .. }) => {
            format!("the metadata: {reason}")
        }
        ExportError::Battdat(BattdatError::Columns { reason, .. }) => reason,
        ExportError::Battdat(BattdatError::Cell {
            column,
            row,
            reason,
            ..
        }) => {
            format!("column `{column}`, row {row} of the export: {reason}")
        }
        error => return Problem::internal(&error),
    };
    let detail = format!("HDF5 cannot hold this ({reason}); take another format or fewer columns");
    Problem::conflict(detail).at("format")
}
