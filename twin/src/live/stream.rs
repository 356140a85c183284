//! `GET /events`: a watcher of server-sent events.

use std::{fmt::Write, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, get, http::header, web};
use bytes::Bytes;
use futures_util::stream;
use rovi_common::{
    auth::{Access, Held, Role},
    http::Problem,
    name::BatteryName,
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, timeout},
};

use super::{
    Seat,
    board::{Place, Version},
    query::{Query, read_since},
    shape,
    watcher::{self, End, Outgoing, Sink},
};
use crate::fleet::Fleet;

/// Messages between the watcher's task and its connection.
const QUEUE: usize = 4;
/// How long a watcher has to take the reason why it gets nothing more.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: &str = "last-event-id";

/// The same as `/ws`, as server-sent events; a browser that connects again says by `Last-Event-ID`
/// what it has.
#[utoipa::path(
    tag = "live",
    params(
        ("battery" = Option<String>, Query, description = "Names, separated by commas; all if left out"),
        ("fields" = Option<String>, Query, description = "Fields, separated by commas; all if left out"),
        ("since" = Option<String>, Query, description = "`<battery>:<epoch>:<seq>`: the rows after this one come first"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that came"),
    ),
    responses(
        (status = 200, description = "Events without end", content_type = "text/event-stream"),
        (status = 400, description = "A parameter is wrong; `field` names it", body = Problem),
        (status = 404, description = "No such battery", body = Problem),
        (status = 429, description = "The caller has too many open", body = Problem),
        (status = 503, description = "All places are taken", body = Problem),
    )
)]
#[get("/events")]
pub(crate) async fn get_events(
    request: HttpRequest,
    access: Access,
    fleet: web::Data<Fleet>,
) -> Result<HttpResponse, Problem> {
    let mut query = Query::read(request.query_string())?;
    let last = request.headers().get(LAST_EVENT_ID);
    let last = last.and_then(|id| id.to_str().ok()).unwrap_or_default();
    let last = go_on(&mut query, last)?;
    let fleet = fleet.into_inner();
    for battery in query.batteries.iter().flatten().chain(query.since.keys()) {
        let is_known = fleet.shared().board.newest(battery).is_some();
        if !is_known || !access.may(Role::Reader, battery) {
            let detail = format!("no battery `{battery}` has rows");
            return Err(Problem::not_found(detail).at("battery"));
        }
    }
    let place = access.purse().hold(Held::Sockets)?;
    let seat = Seat::take(&fleet).ok_or_else(|| {
        let sockets = fleet.shared().settings.live.sockets;
        Problem::unavailable(format!("all {sockets} places are taken"))
    })?;
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let writer = Writer {
        sender,
        patience: fleet.shared().settings.live.patience,
        only: only(&query).cloned(),
    };
    actix_web::rt::spawn(async move {
        let _places = (seat, place);
        let mut told = writer.clone();
        let end = tokio::select! {
            biased;
            ended = access.ended() => End::Unauthorised(ended),
            end = serve(&fleet, (query, &access), last, writer) => end,
        };
        if let End::Unauthorised(ended) = end {
            let notice = shape::notice("ended", json!({ "reason": ended.to_string() }));
            let _told_or_gone = timeout(LAST_WORD_WITHIN, told.send(notice.into())).await;
        }
        tracing::debug!("an event stream ends: {end:?}");
    });
    let body = stream::poll_fn(move |context| receiver.poll_recv(context));
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(body))
}

/// The battery of a query that names one only: its rows have places of their own.
fn only(query: &Query) -> Option<&BatteryName> {
    match query.batteries.as_deref() {
        Some([only]) => Some(only),
        _ => None,
    }
}

/// Reads the identifier of the last event: `<battery>:<epoch>:<seq>` of one battery, or
/// `<life>-<sequence>` of several.
fn go_on(query: &mut Query, last: &str) -> Result<Option<Place>, Problem> {
    if last.contains(':') {
        let (battery, position) = read_since(last)?;
        if only(query) == Some(&battery) {
            query.since.insert(battery, position);
        }
        return Ok(None);
    }
    let place = last.split_once('-').and_then(|(life, sequence)| {
        let (life, sequence) = (life.parse().ok()?, sequence.parse().ok()?);
        Some(Place { life, sequence })
    });
    Ok(place)
}

async fn serve(
    fleet: &Arc<Fleet>,
    (query, access): (Query, &Access),
    last: Option<Place>,
    mut writer: Writer,
) -> End {
    let shared = fleet.shared();
    let knows = |version: &Version| {
        last.is_some_and(|last| {
            version.place.life == last.life && version.place.sequence <= last.sequence
        })
    };
    let watch = match watcher::begin(fleet, (&query, access), &mut writer, knows).await {
        Ok(watch) => watch,
        Err(end) => return end,
    };
    let mut pings = tokio::time::interval(shared.settings.live.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let step = tokio::select! {
            biased;
            () = shared.stop.cancelled() => Err(End::Stopping),
            () = writer.sender.closed() => Err(End::Gone),
            _ = pings.tick() => writer.write(Bytes::from_static(b":\n\n")).await,
            () = watch.inbox.arrived() => watcher::pass_on(fleet, &watch, &mut writer).await,
        };
        if let Err(end) = step {
            return end;
        }
    }
}

/// The way to the watcher.
#[derive(Clone)]
struct Writer {
    sender: mpsc::Sender<Result<Bytes, actix_web::Error>>,
    patience: Duration,
    only: Option<BatteryName>,
}

impl Writer {
    async fn write(&self, bytes: Bytes) -> Result<(), End> {
        match timeout(self.patience, self.sender.send(Ok(bytes))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(End::Gone),
            Err(_out_of_time) => Err(End::TooSlow),
        }
    }
}

impl Sink for Writer {
    async fn send(&mut self, message: Outgoing) -> Result<(), End> {
        let mut text = String::with_capacity(message.text.len() + 64);
        if let Some(version) = &message.place {
            let (state, place) = (&version.state, version.place);
            let _always_works = match &self.only {
                Some(battery) => writeln!(text, "id: {battery}:{}:{}", state.epoch, state.seq),
                None => writeln!(text, "id: {}-{}", place.life, place.sequence),
            };
        }
        text += "data: ";
        text += &message.text;
        text += "\n\n";
        self.write(text.into()).await
    }
}
