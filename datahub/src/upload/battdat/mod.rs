//! `POST /db/upload/{battery}/battdat`: a whole HDF5 file of battery-data-toolkit, whose rows are
//! stored while it is read.
//!
//! The body goes to the disk (`spool`), a confined process reads it (`reading` is our end, `child`
//! the other one, `confine` what that may do), and its rows take the way of all rows. The session
//! is that of the content, as of `rovicli stream`: sending the file again stores nothing twice, and
//! goes on where an earlier try broke off.

pub mod child;
mod confine;
mod progress;
mod reading;
mod spool;

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
};
use serde::Deserialize;

use self::{progress::Storing, reading::Reading};
use super::intake::{Intake, Request};
use crate::{api::battery_name, hub::Hub};

/// What of the file is taken.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileQuery {
    /// The battery within the file, where it has several.
    prefix: Option<String>,
}

/// Takes the rows of a battery-data-toolkit file (HDF5, table `raw_data`).
///
/// At most `file_bytes` (1 GiB) of body, and `files` (2) files at once. The answer is a line of JSON
/// at a time: first what is in the file, then how far it is stored, at last the sum, or a problem
/// under the key `problem`. What was stored before a problem stays; sending the file again goes on.
#[utoipa::path(
    post,
    path = "/db/upload/{battery}/battdat",
    tag = "rows",
    params(("battery" = String, Path, description = "Name of the battery"), FileQuery),
    request_body(description = "The file", content_type = "application/x-hdf5", content = Vec<u8>),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = String,
         description = "`rows`, `columns`, `metadata` and `notes` of the file; then `stored`; at last `rejected` and `notes`, too"),
        (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 429, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn upload_battdat(
    request: HttpRequest,
    access: Access,
    payload: web::Payload,
    (battery, query): (web::Path<String>, web::Query<FileQuery>),
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        let detail = "a battdat file is sent as it is, without Content-Encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).at("Content-Encoding"));
    }
    let purse = access.purse();
    purse.check(Flow::Rows)?;
    let permit = Arc::clone(&hub.files).try_acquire_owned();
    let permit = permit.map_err(|_none_left| {
        let most = hub.settings.files;
        Problem::unavailable(format!(
            "{most} files are taken in already (setting `files`); try again soon"
        ))
    })?;
    let hub = hub.into_inner();
    let file = spool::receive(&request, payload, &hub.settings).await?;
    let (reading, head) = Reading::start(file, query.prefix.as_deref()).await?;
    let asked = Request {
        session: Some(head.session(&battery)),
        battery,
        from: 0,
        begins_segment: true,
        speaks: false,
        body: None,
    };
    let intake = Intake::open_within(Arc::clone(&hub), asked, &purse).await?;
    let storing = Storing::new(hub, (reading, head), (intake, purse), permit);
    let mut response = HttpResponse::Ok();
    response.content_type("application/x-ndjson");
    Ok(response.streaming(storing.lines()))
}
