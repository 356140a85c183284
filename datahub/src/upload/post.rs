//! `POST /db/upload/{battery}`: one body of rows, answered once they are durable.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::http::Problem;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    body::{self, BodyForm},
    decode::Limits,
    decoded::Decoded,
    intake::{Intake, Request},
};
use crate::{api::battery_name, batch::Ending, hub::Hub};

/// How long a request waits for its rows to be durable.
const PATIENCE: Duration = Duration::from_secs(30);
/// Namespace of the sessions made from `Idempotency-Key`.
const KEYS: Uuid = Uuid::from_u128(0x8f0d_6c53_4d0e_4b6e_9d5c_726f_7669_6b79);

/// Takes rows of a battery and answers their number once they are durable.
///
/// With `Idempotency-Key`, sending again stores nothing twice.
#[utoipa::path(
    post,
    path = "/db/upload/{battery}",
    tag = "rows",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this body"),
    ),
    request_body(description = "Rows", content(
        (Vec<Object> = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/msgpack"),
    )),
    responses(
        (status = 200, body = u64, description = "Rows taken, also those kept as rejected"),
        (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn upload_by_post(
    request: HttpRequest,
    payload: web::Payload,
    battery: web::Path<String>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let battery = battery_name(&battery)?;
    let form = BodyForm::of(request.headers());
    let session = session_of(&request, &battery)?;
    let hub = hub.into_inner();
    let bytes = read(payload, hub.settings.body_bytes).await?;
    let limits = Limits::of_bodies(&hub.settings);
    let decoding = tokio::task::spawn_blocking(move || body::decode_body(&bytes, form, &limits));
    let decoded = decoding.await.map_err(|error| Problem::internal(&error))?;
    let decoded = decoded.map_err(|reason| {
        hub.metrics.frames_refused.inc();
        Problem::bad_request(reason)
    })?;
    let rows = decoded.sent;
    let asked = Request {
        battery,
        session,
        from: 0,
        begins_segment: false,
        speaks: false,
    };
    let intake = Intake::open(Arc::clone(&hub), asked).await?;
    let known = intake.uploader.claim.position;
    if let Err(problem) = check_resumed(known, rows, hub.settings.group_rows) {
        intake.close().await;
        return Err(problem);
    }
    store(&hub, intake, decoded).await?;
    Ok(HttpResponse::Ok().json(rows))
}

/// Makes a session of the key, if there is one.
fn session_of(
    request: &HttpRequest,
    battery: &rovi_common::name::BatteryName,
) -> Result<Option<Uuid>, Problem> {
    let Some(key) = request.headers().get("Idempotency-Key") else {
        return Ok(None);
    };
    let key = key.as_bytes();
    if key.is_empty() || key.len() > 255 {
        let detail = "Idempotency-Key must have 1 to 255 bytes";
        return Err(Problem::bad_request(detail).at("Idempotency-Key"));
    }
    let name = [battery.as_str().as_bytes(), b"/", key].concat();
    Ok(Some(Uuid::new_v5(&KEYS, &name)))
}

/// Refuses a body whose key was used for another one, as far as their numbers of rows tell.
///
/// `known` rows were stored under the key: none, all, or whole batches of a body that broke off.
fn check_resumed(known: i64, rows: usize, batch_rows: usize) -> Result<(), Problem> {
    let stored = usize::try_from(known).unwrap_or_default();
    let broke_off = stored < rows && stored.is_multiple_of(batch_rows.max(1));
    if stored == rows || broke_off {
        return Ok(());
    }
    let detail = format!(
        "the key was used for another body: {stored} rows are stored under it, this body has \
         {rows}; nothing of it is stored"
    );
    Err(Problem::conflict(detail).at("Idempotency-Key"))
}

/// Reads a whole body, up to a limit.
///
/// # Errors
/// 413 beyond the limit, 400 where the body broke off.
pub(crate) async fn read(payload: web::Payload, limit: usize) -> Result<web::Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body is larger than {limit} bytes; cut it, or use the socket");
        Problem::too_large(detail)
    };
    let body = payload.to_bytes_limited(limit).await;
    let body = body.map_err(|_too_large| too_large())?;
    body.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))
}

/// Stores the rows, in batches no larger than a group.
async fn store(hub: &Hub, mut intake: Intake, mut decoded: Decoded) -> Result<(), Problem> {
    let storing = async {
        while decoded.sent > 0 {
            let rest = decoded.split_off(hub.settings.group_rows);
            intake.take(std::mem::replace(&mut decoded, rest)).await?;
        }
        intake.settled().await
    };
    let stored = timeout(PATIENCE, storing).await;
    intake.close().await;
    match stored {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Ending::Refused(reason))) => Err(Problem::conflict(reason)),
        Ok(Err(Ending::Unavailable | Ending::Defect(_))) => Err(Problem::unavailable(
            "the rows cannot be stored now; send them again",
        )),
        Err(_out_of_time) => Err(Problem::unavailable(format!(
            "the rows were not stored within {PATIENCE:?} and may be stored yet; \
             with an Idempotency-Key, sending them again is harmless"
        ))),
    }
}

impl BodyForm {
    /// Reads the form of a body; JSON where none is given.
    pub(crate) fn of(headers: &header::HeaderMap) -> Self {
        let given = headers.get(header::CONTENT_TYPE);
        let given = given
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Ndjson,
            "text/csv" => Self::Csv,
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
                Self::Msgpack
            }
            // The origin's client names no type, curl's default is that of a form.
            _ => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rest_of_the_same_body_continues_a_key() {
        for (known, rows) in [(0, 5), (5, 5), (10, 15), (0, 0)] {
            assert!(check_resumed(known, rows, 10).is_ok(), "{known} of {rows}");
        }
        for (known, rows) in [(5, 4), (5, 6), (20, 15), (12, 15), (5, 0)] {
            assert!(check_resumed(known, rows, 10).is_err(), "{known} of {rows}");
        }
    }
}
