//! `POST /db/upload/{battery}`: one body of rows, answered once they are durable.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::http::Problem;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    body::{self, BodyForm},
    decode::Limits,
    decoded::Decoded,
    encoding::{self, Packing},
    intake::{BodyHash, Intake, Request},
};
use crate::{
    api::battery_name,
    batch::{Ending, Progress},
    hub::Hub,
    store::rejected,
};

/// The longest reason in a header, in characters.
const REASON_CHARS: usize = 300;
/// Namespace of the sessions made from `Idempotency-Key`.
const KEYS: Uuid = Uuid::from_u128(0x8f0d_6c53_4d0e_4b6e_9d5c_726f_7669_6b79);

/// Takes rows of a battery and answers their number once they are durable.
///
/// With `Idempotency-Key`, sending again stores nothing twice. `Rovi-Rows-Rejected` tells how many
/// of the rows are kept as rejected, `Rovi-First-Rejection` which came first and why.
#[utoipa::path(
    post,
    path = "/db/upload/{battery}",
    tag = "rows",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this body"),
        ("Content-Encoding" = Option<String>, Header, description = "gzip or zstd"),
    ),
    request_body(description = "Rows", content(
        (Vec<Object> = "application/json"), (String = "application/x-ndjson"),
        (String = "text/csv"), (Vec<u8> = "application/msgpack"),
    )),
    responses(
        (status = 200, body = u64, description = "Rows taken, also those kept as rejected",
         headers(("Rovi-Rows-Rejected" = u64), ("Rovi-First-Rejection" = String))),
        (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 503, body = Problem),
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
    let packing = Packing::of(request.headers())?;
    let session = session_of(&request, &battery)?;
    let hub = hub.into_inner();
    let bytes = read(payload, hub.settings.body_bytes).await?;
    let limits = Limits::of_bodies(&hub.settings);
    let most = hub.settings.body_bytes;
    let decoding = tokio::task::spawn_blocking(move || {
        let bytes = encoding::unpack(bytes, packing, most)?;
        let hash = session.map(|_| hash(&bytes, form));
        let decoded = body::decode_body(&bytes, form, &limits).map_err(Problem::bad_request)?;
        Ok((decoded, hash))
    });
    let decoded = decoding.await.map_err(|error| Problem::internal(&error))?;
    let (decoded, hash) = decoded.inspect_err(|_: &Problem| hub.metrics.frames_refused.inc())?;
    let rows = decoded.sent;
    let asked = Request {
        battery,
        session,
        from: 0,
        begins_segment: false,
        speaks: false,
        body: hash,
    };
    let intake = Intake::open(Arc::clone(&hub), asked).await?;
    let rejections = store(&hub, intake, decoded).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header(("Rovi-Rows-Rejected", rejections.rows));
    if let Some((position, reason)) = rejections.first {
        let told = format!("position {position}: {reason}");
        response.insert_header(("Rovi-First-Rejection", header_text(&told)));
    }
    Ok(response.json(rows))
}

/// Fingerprint of a body and what it is read as, however it was packed.
fn hash(bytes: &[u8], form: BodyForm) -> BodyHash {
    let mut hash = Sha256::new();
    hash.update(form.name());
    hash.update([0]);
    hash.update(bytes);
    hash.finalize().into()
}

/// Writes a text so that it may stand in a header.
fn header_text(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars().take(REASON_CHARS) {
        if letter.is_ascii_graphic() || letter == ' ' {
            safe.push(letter);
        } else {
            safe.extend(letter.escape_unicode());
        }
    }
    safe
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

/// Reads a whole body, up to a limit.
///
/// # Errors
/// 413 beyond the limit, 400 where the body broke off.
pub(crate) async fn read(payload: web::Payload, limit: usize) -> Result<web::Bytes, Problem> {
    let body = payload.to_bytes_limited(limit).await;
    let body = body.map_err(|_too_large| encoding::too_large(limit))?;
    body.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))
}

/// The rows of a body that were rejected.
struct Rejections {
    rows: u64,
    /// Position and reason.
    first: Option<(i64, String)>,
}

/// Stores the rows, in batches no larger than a group.
async fn store(hub: &Hub, mut intake: Intake, mut decoded: Decoded) -> Result<Rejections, Problem> {
    let patience = hub.settings.post_timeout;
    let storing = async {
        while decoded.sent > 0 {
            let rest = decoded.split_off(hub.settings.group_rows);
            intake.take(std::mem::replace(&mut decoded, rest)).await?;
        }
        intake.settled().await
    };
    let stored = timeout(patience, storing).await;
    let notice = intake.notice().borrow().clone();
    let rejections = rejections(hub, &intake).await;
    intake.close().await;
    match stored {
        Ok(Ok(())) => rejections,
        Ok(Err(ending)) => Err(ending.into()),
        Err(_out_of_time) => {
            let why = notice.map_or_else(String::new, |notice| {
                format!("; the battery is set aside: {}", notice.reason)
            });
            Err(Problem::unavailable(format!(
                "the rows were not stored within {patience:?} and may be stored yet{why}; \
                 with an Idempotency-Key, sending them again is harmless"
            )))
        }
    }
}

/// Counts what was rejected, also by an earlier request under the same key.
async fn rejections(hub: &Hub, intake: &Intake) -> Result<Rejections, Problem> {
    let claim = intake.uploader.claim;
    if claim.position == 0 {
        let Progress {
            rejected: rows,
            first_rejection: first,
            ..
        } = intake.progress().borrow().clone();
        return Ok(Rejections { rows, first });
    }
    let (battery, session) = (claim.battery_id, claim.session);
    let count = move |connection: &mut _| Ok(rejected::of_session(connection, battery, session)?);
    let counted = hub.pool.run(count).await?;
    Ok(Rejections {
        rows: u64::try_from(counted.rows).unwrap_or_default(),
        first: counted.position.zip(counted.reason),
    })
}

impl From<Ending> for Problem {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Refused(reason) => Self::conflict(reason),
            Ending::Unavailable(reason) | Ending::Defect(reason) => Self::unavailable(format!(
                "the rows cannot be stored now: {reason}; send them again"
            )),
        }
    }
}

impl BodyForm {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Msgpack => "msgpack",
        }
    }

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
    fn a_reason_in_a_header_is_plain_ascii() {
        assert_eq!(header_text("`ä`\r\nx: 1"), r"`\u{e4}`\u{d}\u{a}x: 1");
        assert!(header_text(&"x".repeat(1000)).len() == 300);
    }

    #[test]
    fn a_body_is_another_one_if_it_is_read_as_something_else() {
        assert_ne!(hash(b"1", BodyForm::Json), hash(b"1", BodyForm::Csv));
        assert_eq!(hash(b"1", BodyForm::Csv), hash(b"1", BodyForm::Csv));
    }
}
