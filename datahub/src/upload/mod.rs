//! Uploads: `GET` (WebSocket) and `POST /db/upload/{battery}`.

mod alike;
pub mod battdat;
pub(crate) mod bodies;
pub(crate) mod body;
mod csv_rows;
pub mod decode;
mod decoded;
mod encoding;
pub(crate) mod guard;
pub mod intake;
mod integers;
pub(crate) mod kept;
pub mod marks;
pub mod open;
pub(crate) mod post;
pub mod protocol;
mod raw;
pub mod room;
mod sift;
mod socket;
mod voice;

use std::{rc::Rc, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use rovi_common::{
    auth::{Access, Held},
    http::Problem,
};
use serde::Deserialize;
use uuid::Uuid;

pub use self::decoded::{Decoded, RefusedBy, RejectedRow};
pub(crate) use self::sift::column_name;
use self::{
    intake::{Intake, Request},
    protocol::{Limits, SUBPROTOCOL},
    socket::Socket,
    voice::Wire,
};
use crate::{api::battery_name, hub::Hub};

/// Query of an upload socket.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SocketQuery {
    /// The session to begin or resume.
    #[param(value_type = Option<String>, format = "uuid")]
    session: Option<Uuid>,
    /// Position of the first row that this connection sends; 0 if not given.
    #[serde(default)]
    #[param(minimum = 0)]
    from: i64,
    /// `new` begins a segment (one test) with the session's first row.
    segment: Option<String>,
}

/// Tells whether the first row begins a segment.
fn begins_segment(segment: Option<&str>) -> Result<bool, Problem> {
    match segment {
        None => Ok(false),
        Some("new") => Ok(true),
        Some(other) => Err(Problem::bad_request(format!(
            "segment={other} is not known; say segment=new or leave it out"
        ))
        .at("segment")),
    }
}

/// Takes rows of a battery by WebSocket; see `docs/PROTOCOL.md`.
#[utoipa::path(
    get,
    path = "/db/upload/{battery}",
    tag = "rows",
    params(("battery" = String, Path, description = "Name of the battery"), SocketQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn upload_by_socket(
    request: HttpRequest,
    body: web::Payload,
    path: (Access, web::Path<String>),
    query: web::Query<SocketQuery>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, actix_web::Error> {
    let (access, battery) = path;
    let battery = battery_name(&battery)?;
    if query.from < 0 {
        return Err(Problem::bad_request("`from` is a position, 0 or more")
            .at("from")
            .into());
    }
    let begins_segment = begins_segment(query.segment.as_deref())?;
    let speaks = offers(&request, SUBPROTOCOL);
    // The handshake is checked before a session is opened for it.
    let room = Arc::clone(&hub.frames);
    let body = guard::guarded(&request, body, hub.settings.frame_bytes, room).await?;
    let (response, _session, frames) =
        actix_ws::handle_with_protocols(&request, body, &[SUBPROTOCOL])?;
    if hub.stop.is_cancelled() {
        return Err(Problem::unavailable("the service stops").into());
    }
    let asked = Request {
        battery,
        session: query.session,
        from: query.from,
        begins_segment,
        speaks,
        body: None,
    };
    let hub = hub.into_inner();
    let purse = access.purse();
    let place = purse.hold(Held::Sockets)?;
    let intake = Intake::open_within(Arc::clone(&hub), asked, &purse).await?;
    let wire = Wire::new(&intake);
    let greeting = speaks.then(|| Limits::of(&hub.settings));
    let response =
        response.map_body(|_, body| voice::body(Rc::clone(&wire), &intake, greeting, body));
    let socket = Socket::new(&hub, intake, (wire, speaks), frames).of(access);
    let open_sockets = hub.metrics.sockets.clone();
    open_sockets.inc();
    actix_web::rt::spawn(hub.sockets.track_future(async move {
        socket.serve().await;
        drop(place);
        open_sockets.dec();
    }));
    Ok(response)
}

fn offers(request: &HttpRequest, protocol: &str) -> bool {
    let values = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offered| offered.trim() == protocol)
}
