//! `GET /ws`: a watcher at a WebSocket.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{HttpRequest, HttpResponse, get, http::header, web};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, ProtocolError, Session};
use rovi_common::{
    auth::{Access, Held, access::CLOSE_CODE, budget::Place},
    http::Problem,
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, timeout};

use super::{
    MESSAGE_BYTES, Seat,
    query::Query,
    shape,
    watcher::{self, End, Outgoing, Sink},
};
use crate::fleet::Fleet;

/// With this subprotocol the first message tells the limits.
const SUBPROTOCOL: &str = "rovi.v1";
/// The most bytes of a message from a watcher; what it says is read over.
const MAX_HEARD_BYTES: usize = 4096;
/// The most bytes of a close reason (RFC 6455, 5.5).
const MAX_REASON_BYTES: usize = 123;
/// How long a watcher may take to answer our close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Close code for batteries that nobody knows.
const UNKNOWN_BATTERY: u16 = 4404;

/// The newest row and estimates of batteries: first all there is, then each change; see
/// `docs/PROTOCOL.md`.
#[utoipa::path(
    tag = "live",
    params(
        ("battery" = Option<String>, Query, description = "Names, separated by commas; all if left out"),
        ("fields" = Option<String>, Query, description = "Fields, separated by commas; all if left out"),
        ("since" = Option<String>, Query, description = "`<battery>:<epoch>:<seq>`: the rows after this one come first"),
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "A parameter is wrong; `field` names it", body = Problem),
        (status = 429, description = "The caller has too many open", body = Problem),
    )
)]
#[get("/ws")]
pub(crate) async fn get_socket(
    request: HttpRequest,
    body: web::Payload,
    access: Access,
    fleet: web::Data<Fleet>,
) -> Result<HttpResponse, actix_web::Error> {
    let query = Query::read(request.query_string())?;
    let place = access.purse().hold(Held::Sockets)?;
    let (response, session, frames) =
        actix_ws::handle_with_protocols(&request, body, &[SUBPROTOCOL])?;
    let speaks = response
        .headers()
        .contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let fleet = fleet.into_inner();
    let socket = Socket {
        frames: frames.max_frame_size(MAX_HEARD_BYTES),
        heard: Instant::now(),
        voice: Voice {
            session,
            fleet: Arc::clone(&fleet),
        },
        fleet,
        access,
        _place: place,
    };
    actix_web::rt::spawn(socket.serve(query, speaks));
    Ok(response)
}

struct Socket {
    frames: MessageStream,
    heard: Instant,
    voice: Voice,
    fleet: Arc<Fleet>,
    access: Access,
    _place: Place,
}

/// The way to the watcher.
struct Voice {
    session: Session,
    fleet: Arc<Fleet>,
}

impl Socket {
    async fn serve(mut self, query: Query, speaks: bool) {
        let access = self.access.clone();
        let end = tokio::select! {
            biased;
            ended = access.ended() => End::Unauthorised(ended),
            Err(end) = self.watch(query, speaks) => end,
        };
        tracing::debug!("a live socket ends: {end:?}");
        if matches!(end, End::Gone | End::TooSlow) {
            return;
        }
        let session = self.voice.session.clone();
        let _gone = timeout(CLOSE_PATIENCE, session.close(Some(reason(end)))).await;
        // Data left unread would reset the connection before the watcher has the reason.
        let until_closed = async { while let Some(Ok(_)) = self.frames.recv().await {} };
        let _impatient = timeout(CLOSE_PATIENCE, until_closed).await;
    }

    async fn watch(&mut self, query: Query, speaks: bool) -> Result<std::convert::Infallible, End> {
        let fleet = Arc::clone(&self.fleet);
        let settings = &fleet.shared().settings.live;
        let _seat = Seat::take(&fleet).ok_or(End::Full(settings.sockets))?;
        if speaks {
            let hello = shape::notice("hello", limits(&fleet));
            self.voice.send(hello.into()).await?;
        }
        let watch =
            watcher::begin(&fleet, (&query, &self.access), &mut self.voice, |_| false).await?;
        drop(query);
        let mut pings = tokio::time::interval(settings.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = fleet.shared().stop.cancelled() => return Err(End::Stopping),
                frame = self.frames.recv() => self.hear(frame).await?,
                _ = pings.tick() => self.ping(settings.idle_timeout).await?,
                () = watch.inbox.arrived() => {
                    watcher::pass_on(&fleet, &watch, &mut self.voice).await?;
                }
            }
        }
    }

    async fn hear(&mut self, frame: Option<Result<Message, ProtocolError>>) -> Result<(), End> {
        self.heard = Instant::now();
        match frame {
            Some(Ok(Message::Ping(bytes))) => {
                let mut session = self.voice.session.clone();
                self.voice.in_time(session.pong(&bytes)).await
            }
            Some(Ok(Message::Close(_)) | Err(ProtocolError::Io(_))) | None => Err(End::Gone),
            Some(Ok(_)) => Ok(()),
            Some(Err(ProtocolError::Overflow)) => Err(End::TooLarge),
            Some(Err(error)) => Err(End::Wrong(error.to_string())),
        }
    }

    async fn ping(&mut self, idle_timeout: Duration) -> Result<(), End> {
        if self.heard.elapsed() > idle_timeout {
            return Err(End::Wrong(format!(
                "nothing was heard for {idle_timeout:?}"
            )));
        }
        let mut session = self.voice.session.clone();
        self.voice.in_time(session.ping(b"")).await
    }
}

impl Voice {
    /// Waits for room in the connection, within the time that a watcher is given.
    async fn in_time(
        &self,
        sending: impl Future<Output = Result<(), actix_ws::Closed>>,
    ) -> Result<(), End> {
        let shared = self.fleet.shared();
        tokio::select! {
            biased;
            sent = timeout(shared.settings.live.patience, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_closed)) => Err(End::Gone),
                Err(_out_of_time) => Err(End::TooSlow),
            },
            () = shared.stop.cancelled() => Err(End::Stopping),
        }
    }
}

impl Sink for Voice {
    async fn send(&mut self, message: Outgoing) -> Result<(), End> {
        let mut session = self.session.clone();
        self.in_time(session.text(message.text)).await
    }
}

/// What a watcher has to keep to, and what it gets at most.
fn limits(fleet: &Fleet) -> serde_json::Value {
    let settings = &fleet.shared().settings.live;
    json!({ "limits": {
        "sockets": settings.sockets,
        "message_bytes": MESSAGE_BYTES,
        "heard_bytes": MAX_HEARD_BYTES,
        "replay_rows": settings.replay_rows,
        "patience_s": settings.patience.as_secs_f64(),
        "idle_timeout_s": settings.idle_timeout.as_secs_f64(),
    }})
}

fn reason(end: End) -> CloseReason {
    let (code, mut text) = match end {
        End::Gone | End::TooSlow => (CloseCode::Normal, String::new()),
        End::Unknown(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let text = format!("no such battery: {}", names.join(", "));
            (CloseCode::Other(UNKNOWN_BATTERY), text)
        }
        End::TooLarge => {
            let text = format!("a message has more than {MAX_HEARD_BYTES} bytes");
            (CloseCode::Size, text)
        }
        End::Wrong(reason) => (CloseCode::Policy, reason),
        End::Unauthorised(ended) => (CloseCode::Other(CLOSE_CODE), ended.to_string()),
        End::Stopping => (CloseCode::Restart, "the service stops".to_owned()),
        End::Full(sockets) => {
            let text = format!("all {sockets} sockets are taken; try again later");
            (CloseCode::Again, text)
        }
    };
    text.truncate(text.floor_char_boundary(MAX_REASON_BYTES));
    CloseReason {
        code,
        description: Some(text),
    }
}
