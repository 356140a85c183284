//! An uploader that writes down every acknowledgement it was given.
//!
//! It is a client of its own, apart from that of `rovicli`, so that the two cannot share a mistake.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, stream::SplitStream};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};
use uuid::Uuid;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a hub may say nothing before it is left for another one.
const SILENCE: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_millis(25);
/// Every so many rows one has text where its column has numbers, and is to be rejected.
const MISFIT_EVERY: i64 = 101;

/// What to upload, and how.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The battery.
    pub battery: String,
    /// The session.
    pub session: Uuid,
    /// Rows in all.
    pub rows: i64,
    /// Rows of a frame, drawn for each.
    pub frame_rows: RangeInclusive<i64>,
    /// Most rows without acknowledgement.
    pub window: i64,
    /// Where hubs take uploads (`ws://…/db/upload`); another one is tried after each failure.
    pub hubs: Vec<String>,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// What an uploader was told.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The battery.
    pub battery: String,
    /// The session.
    pub session: Uuid,
    /// All rows below were acknowledged as stored.
    pub stored: i64,
    /// Rows of which it was told that they were rejected, with the reason. Those told to a
    /// connection that broke off may be missing.
    pub rejected: BTreeMap<i64, String>,
    /// Connections made.
    pub connections: usize,
}

/// What an upload carries from one connection to the next.
struct Course {
    gate: watch::Receiver<i64>,
    progress: Arc<AtomicI64>,
    rng: ChaCha8Rng,
    log: Acknowledged,
}

/// What a connection heard.
#[derive(Debug, Clone, Default)]
struct Heard {
    stored: i64,
    rejected: BTreeMap<i64, String>,
    ended: Option<String>,
}

impl Upload {
    /// Uploads until every row is acknowledged; never sends beyond what `gate` tells.
    ///
    /// `progress` has what was acknowledged so far.
    pub async fn run(self, gate: watch::Receiver<i64>, progress: Arc<AtomicI64>) -> Acknowledged {
        let log = Acknowledged {
            battery: self.battery.clone(),
            session: self.session,
            stored: 0,
            rejected: BTreeMap::new(),
            connections: 0,
        };
        let mut course = Course {
            gate,
            progress,
            rng: ChaCha8Rng::seed_from_u64(self.seed),
            log,
        };
        let mut hub = usize::try_from(self.seed % 97).unwrap_or_default();
        while course.log.stored < self.rows {
            hub += 1;
            let Some(url) = self.hubs.get(hub % self.hubs.len().max(1)) else {
                break;
            };
            if let Some(socket) = self.connect(url, course.log.stored).await {
                course.log.connections += 1;
                self.converse(socket, &mut course).await;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        course.log
    }

    async fn connect(&self, hub: &str, from: i64) -> Option<Socket> {
        let (battery, session) = (&self.battery, self.session);
        let url = format!("{hub}/{battery}?session={session}&from={from}");
        let mut request = url.into_client_request().expect("this is a URL");
        let protocol = HeaderValue::from_static("rovi.v1");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let connected = timeout(SILENCE, connect_async(request)).await;
        Some(connected.ok()?.ok()?.0)
    }

    /// Sends and listens until the connection ends or every row is acknowledged.
    async fn converse(&self, socket: Socket, course: &mut Course) {
        let Course {
            gate,
            progress,
            rng,
            log,
        } = course;
        let (mut sink, stream) = socket.split();
        let mut sent = log.stored;
        let (tell, mut heard) = watch::channel(Heard {
            stored: log.stored,
            ..Heard::default()
        });
        let mut reader = JoinSet::new();
        reader.spawn(listen(stream, tell, Arc::clone(progress)));
        loop {
            let (stored, ended) = {
                let heard = heard.borrow_and_update();
                (heard.stored, heard.ended.is_some())
            };
            if ended || stored >= self.rows {
                break;
            }
            let may_send = self.rows.min(*gate.borrow_and_update());
            if sent < may_send && sent - stored < self.window {
                let end = (sent + rng.random_range(self.frame_rows.clone())).min(may_send);
                let frame = Message::binary(self.frame(sent, end));
                match timeout(SILENCE, sink.send(frame)).await {
                    Ok(Ok(())) => sent = end,
                    _ => break,
                }
                continue;
            }
            tokio::select! {
                heard = timeout(SILENCE, heard.changed()) => if !matches!(heard, Ok(Ok(()))) {
                    break;
                },
                _ = gate.changed() => {}
            }
        }
        if heard.borrow().stored >= self.rows {
            let _gone = sink.close().await;
        }
        drop(sink);
        reader.abort_all();
        let heard = heard.borrow();
        log.stored = log.stored.max(heard.stored);
        log.rejected.extend(heard.rejected.clone());
    }

    /// Encodes the rows `from..to` as columns in msgpack.
    ///
    /// In the second half a column comes anew and another one becomes wider.
    fn frame(&self, from: i64, to: i64) -> Vec<u8> {
        let column = |cell: &dyn Fn(i64) -> Value| (from..to).map(cell).collect::<Vec<_>>();
        let is_late = |n: i64| n >= self.rows / 2;
        #[expect(clippy::cast_precision_loss, reason = "row numbers are small")]
        let real = |n: i64| n as f64;
        let label = self.session.simple().to_string();
        let mut columns = json!({
            "label": column(&|_| json!(label)),
            "n": column(&|n| json!(n)),
            "test_time": column(&|n| json!(real(n) * 0.1)),
            "voltage": column(&|n| if is_misfit(n) { json!("none") } else { json!(3.7) }),
            "counter": column(&|n| if is_late(n) { json!(real(n) + 0.5) } else { json!(n) }),
        });
        if is_late(to - 1) {
            let late = column(&|n| json!(is_late(n)));
            let columns = columns.as_object_mut().expect("this is an object");
            columns.insert("late".to_owned(), late.into());
        }
        rmp_serde::to_vec(&columns).expect("JSON can be written as msgpack")
    }
}

/// Whether a row is one that the hub must reject.
pub(crate) fn is_misfit(position: i64) -> bool {
    position % MISFIT_EVERY == MISFIT_EVERY - 1
}

/// Notes what the hub says until the connection ends.
async fn listen(
    mut stream: SplitStream<Socket>,
    tell: watch::Sender<Heard>,
    progress: Arc<AtomicI64>,
) {
    let ended = loop {
        let text = match stream.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(reason))) => break format!("{reason:?}"),
            Some(Ok(_)) => continue,
            Some(Err(error)) => break error.to_string(),
            None => break "gone".to_owned(),
        };
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let position = |key: &str| said.get(key).and_then(Value::as_i64).unwrap_or_default();
        match said.get("type").and_then(Value::as_str) {
            Some("hello") => {
                let known = tell.borrow().stored;
                assert!(
                    position("position") >= known,
                    "acknowledged up to {known}, and now greeted with {said}"
                );
                tell.send_modify(|heard| heard.stored = heard.stored.max(position("position")));
            }
            Some("ack") => {
                let stored = position("stored");
                let before = tell.borrow().stored;
                tell.send_modify(|heard| heard.stored = heard.stored.max(stored));
                progress.fetch_add((stored - before).max(0), Ordering::Relaxed);
            }
            Some("reject") => {
                let reason = said.get("reason").and_then(Value::as_str);
                let reason = reason.unwrap_or_default().to_owned();
                tell.send_modify(|heard| {
                    heard.rejected.insert(position("position"), reason);
                });
            }
            _ => {}
        }
    };
    tell.send_modify(|heard| heard.ended = Some(ended));
}
