//! `POST /db/upload/{battery}`: one body of rows, answered once they are durable.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::{
    auth::{Access, Flow},
    http::Problem,
    name::BatteryName,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    begins_segment,
    bodies::{Body, DecodedRoom},
    body::{self, BodyForm},
    decode::Limits,
    decoded::Decoded,
    encoding::Packing,
    intake::{BodyHash, Intake, Request},
};
use crate::{
    api::battery_name,
    batch::{Ending, Progress},
    hub::Hub,
    store::{
        batteries, rejected,
        tables::{self, ColumnType},
    },
};

/// The longest reason in a header, in characters.
const REASON_CHARS: usize = 300;
/// Namespace of the sessions made from `Idempotency-Key`.
const KEYS: Uuid = Uuid::from_u128(0x8f0d_6c53_4d0e_4b6e_9d5c_726f_7669_6b79);

/// Query of a body of rows. What is not known is refused: `?session=` means something on sockets
/// alone, and to pass over it would store rows twice that are sent again.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyQuery {
    /// `new` begins a segment (one test) with the first row.
    segment: Option<String>,
}

/// Takes rows of a battery and answers their number once they are durable.
///
/// At most `body_bytes` (64 MiB, also unpacked) and `body_rows` (4,194,304 rows) at once. With
/// `Idempotency-Key`, sending again stores nothing twice. `Rovi-Rows-Rejected` tells how many
/// of the rows are kept as rejected, `Rovi-First-Rejection` which came first and why.
#[utoipa::path(
    post,
    path = "/db/upload/{battery}",
    tag = "rows",
    params(
        ("battery" = String, Path, description = "Name of the battery"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this body; refused once it was unused for 7 days (sessions.days)"),
        ("Content-Encoding" = Option<String>, Header, description = "gzip or zstd"),
        BodyQuery,
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
        (status = 429, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn upload_by_post(
    request: HttpRequest,
    payload: web::Payload,
    path: (Access, web::Path<String>),
    query: web::Query<BodyQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let (access, battery) = path;
    let battery = battery_name(&battery)?;
    let begins_segment = begins_segment(query.segment.as_deref())?;
    let purse = access.purse();
    purse.check(Flow::Rows)?;
    let form = BodyForm::of(request.headers());
    let session = session_of(&request, &battery)?;
    let hub = hub.into_inner();
    let body = read(&hub, request.headers(), payload).await;
    let body = body.inspect_err(|_| hub.metrics.frames_refused.inc())?;
    let known = known_columns(&hub, &battery, form).await?;
    let mut room = hub.bodies.room_to_decode(&body).await?;
    let limits = Limits::of_bodies(&hub.settings);
    let decoding = tokio::task::spawn_blocking(move || {
        let hash = session.map(|_| hash(&body.bytes, form));
        let decoded = body::decode_body(&body.bytes, form, &limits, &known);
        Ok((decoded?, hash))
    });
    let decoded = decoding.await.map_err(|error| Problem::internal(&error))?;
    let (decoded, hash) = decoded.inspect_err(|_: &Problem| hub.metrics.frames_refused.inc())?;
    room.shrink(decoded.weight());
    let rows = decoded.sent;
    purse.spend(Flow::Rows, rows);
    let asked = Request {
        battery,
        session,
        from: 0,
        begins_segment,
        speaks: false,
        body: hash,
    };
    let intake = Intake::open_within(Arc::clone(&hub), asked, &purse).await;
    let intake = intake.map_err(of_the_key)?;
    let rejections = store(&hub, intake, decoded, room).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header(("Rovi-Rows-Rejected", rejections.rows));
    if let Some((position, reason)) = rejections.first {
        let told = format!("position {position}: {reason}");
        response.insert_header(("Rovi-First-Rejection", header_text(&told)));
    }
    Ok(response.json(rows))
}

/// Names the field that the client knows: it gave a key, and no session.
fn of_the_key(problem: Problem) -> Problem {
    if problem.field.as_deref() == Some("session") {
        return problem.at("Idempotency-Key");
    }
    problem
}

/// Looks up what the battery's table has; only CSV does not tell types by itself.
async fn known_columns(
    hub: &Hub,
    battery: &BatteryName,
    form: BodyForm,
) -> Result<Vec<(String, ColumnType)>, Problem> {
    if form != BodyForm::Csv {
        return Ok(Vec::new());
    }
    let name = battery.clone();
    let load = move |connection: &mut _| match batteries::find(connection, name.as_str())? {
        Some(line) => Ok(tables::load(connection, &line)?.columns().to_vec()),
        None => Ok(Vec::new()),
    };
    Ok(hub.pool.run(load).await?)
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
fn session_of(request: &HttpRequest, battery: &BatteryName) -> Result<Option<Uuid>, Problem> {
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

/// Reads and unpacks a whole body.
///
/// # Errors
/// 400, 413, 415 or 503 that says what is wrong with it.
pub(crate) async fn read(
    hub: &Hub,
    headers: &header::HeaderMap,
    payload: web::Payload,
) -> Result<Body, Problem> {
    let packing = Packing::of(headers)?;
    let most = hub.settings.body_bytes;
    let body = hub.bodies.read(payload, most).await?;
    if packing == Packing::Plain {
        return Ok(body);
    }
    let unpacking = tokio::task::spawn_blocking(move || body.unpack(packing, most));
    unpacking.await.map_err(|error| Problem::internal(&error))?
}

/// 400: the body did not come whole.
pub(super) fn broke_off(why: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format!("the body broke off: {why}"))
}

/// The rows of a body that were rejected.
pub(super) struct Rejections {
    pub(super) rows: u64,
    /// Position and reason.
    pub(super) first: Option<(i64, String)>,
}

/// Stores the rows, in batches no larger than a group.
async fn store(
    hub: &Hub,
    mut intake: Intake,
    decoded: Decoded,
    room: DecodedRoom,
) -> Result<Rejections, Problem> {
    let patience = hub.settings.post_timeout;
    let storing = async {
        for piece in decoded.pieces(hub.settings.group_rows) {
            intake.take(piece).await?;
        }
        // The rows have room in the queues now.
        drop(room);
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
pub(super) async fn rejections(hub: &Hub, intake: &Intake) -> Result<Rejections, Problem> {
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
