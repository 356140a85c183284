//! Does operations to the hub, and to the model what the hub says it did.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use system_tests::hub::HubProcess;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};
use uuid::Uuid;

use super::{
    Frame,
    expected::{Battery, POST},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// One session as its client knows it.
#[derive(Debug, Default)]
struct Session {
    id: String,
    new_segment: bool,
    /// Every frame sent or to be sent, in order.
    frames: Vec<Frame>,
}

impl Session {
    /// Returns the position before a frame.
    fn position(&self, frame: usize) -> i64 {
        let rows: usize = self.frames[..frame].iter().map(|f| f.rows.len()).sum();
        i64::try_from(rows).unwrap()
    }
}

/// Drives the hub.
pub(super) struct Driver {
    upload: String,
    sessions: BTreeMap<usize, Session>,
    current: usize,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    /// Rows of the body that each key was used for.
    keys: BTreeMap<usize, usize>,
    http: reqwest::Client,
}

impl Driver {
    pub(super) fn new(hub: &HubProcess, battery: &str) -> Self {
        Self {
            upload: format!("{}/{battery}", hub.upload_url()),
            sessions: BTreeMap::new(),
            current: 0,
            socket: None,
            keys: BTreeMap::new(),
            http: reqwest::Client::new(),
        }
    }

    /// Connects to a session, sending its last frames again and what is not stored.
    pub(super) async fn resume(
        &mut self,
        model: &mut Battery,
        session: usize,
        frames_again: usize,
        new_segment: bool,
    ) -> Result<(), String> {
        self.settle(model).await?;
        self.current = session;
        self.connect(model, frames_again, new_segment).await
    }

    /// Sends a frame and waits until it is stored.
    pub(super) async fn send(&mut self, model: &mut Battery, frame: Frame) -> Result<(), String> {
        if self.socket.is_none() {
            self.connect(model, 0, false).await?;
        }
        self.transmit(&frame).await?;
        let session = self.session();
        session.frames.push(frame);
        let (end, id) = (session.position(session.frames.len()), session.id.clone());
        self.until_stored(end).await?;
        self.note(model, &id, end);
        Ok(())
    }

    /// Sends frames and drops the connection without listening.
    pub(super) async fn send_and_cut(
        &mut self,
        model: &mut Battery,
        frames: Vec<Frame>,
    ) -> Result<(), String> {
        if self.socket.is_none() {
            self.connect(model, 0, false).await?;
        }
        for frame in frames {
            self.transmit(&frame).await?;
            self.session().frames.push(frame);
        }
        self.socket = None;
        self.connect(model, 1, false).await
    }

    /// Posts a body.
    pub(super) async fn post(
        &mut self,
        model: &mut Battery,
        key: Option<usize>,
        frame: Frame,
    ) -> Result<(), String> {
        // Rows of a connection that was cut must have come to their end before others are stored.
        self.settle(model).await?;
        let mut request = self.http.post(self.upload.replacen("ws", "http", 1));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", format!("key-{key}"));
        }
        let rows = frame.rows.len();
        let body = frame.json().to_string();
        let answer = request.body(body).send().await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|e| e.to_string())?;
        let known = key.and_then(|key| self.keys.get(&key).copied());
        let expected = match known {
            Some(known) if known != rows => 409,
            _ => 200,
        };
        if status != expected || (status == 200 && text != rows.to_string()) {
            return Err(format!(
                "POST of {rows} rows, {known:?} known: {status} {text}"
            ));
        }
        if known.is_none() {
            // Its session has a name that only the hub knows.
            let session = key.map_or_else(|| Uuid::new_v4().to_string(), |key| key.to_string());
            model.take(&format!("{POST}{session}"), &frame, false);
            self.keys.extend(key.map(|key| (key, rows)));
        }
        Ok(())
    }

    /// Ends the connection, with everything that was sent stored and known.
    pub(super) async fn settle(&mut self, model: &mut Battery) -> Result<(), String> {
        let Some(session) = self.sessions.get(&self.current) else {
            return Ok(());
        };
        let (end, id) = (session.position(session.frames.len()), session.id.clone());
        if model.position(&id) < end && self.socket.is_none() {
            self.connect(model, 0, false).await?;
        }
        if model.position(&id) < end {
            self.until_stored(end).await?;
            self.note(model, &id, end);
        }
        if let Some(mut socket) = self.socket.take() {
            socket.close(None).await.map_err(|e| e.to_string())?;
            let closed = async { while let Some(Ok(_)) = socket.next().await {} };
            timeout(PATIENCE, closed).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn session(&mut self) -> &mut Session {
        self.sessions
            .entry(self.current)
            .or_insert_with(|| Session {
                id: Uuid::new_v4().to_string(),
                ..Session::default()
            })
    }

    /// Gives the model the frames of a session up to a position that the hub told.
    fn note(&mut self, model: &mut Battery, id: &str, position: i64) {
        let session = self.session();
        for frame in 0..session.frames.len() {
            let (begin, end) = (session.position(frame), session.position(frame + 1));
            if end <= position && begin >= model.position(id) {
                model.take(id, &session.frames[frame], session.new_segment);
            }
        }
    }

    /// Connects, hears what is stored, and sends the rest, beginning `frames_again` before it.
    async fn connect(
        &mut self,
        model: &mut Battery,
        frames_again: usize,
        new_segment: bool,
    ) -> Result<(), String> {
        let session = self.session();
        if session.frames.is_empty() {
            session.new_segment = new_segment;
        }
        let id = session.id.clone();
        let segment = if session.new_segment {
            "&segment=new"
        } else {
            ""
        };
        // What is known to be stored, less some frames; what was cut may be stored or not.
        let known = model.position(&id);
        let stored = (0..=session.frames.len())
            .rev()
            .find(|frame| session.position(*frame) <= known)
            .unwrap_or_default();
        let begin = stored.saturating_sub(frames_again);
        let from = session.position(begin);
        let frames: Vec<Frame> = session.frames[begin..].to_vec();
        let url = format!("{}?session={id}&from={from}{segment}", self.upload);
        let mut request = url.into_client_request().map_err(|e| e.to_string())?;
        let protocol = HeaderValue::from_static("rovi.v1");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let connected = connect_async(request).await.map_err(|e| e.to_string())?;
        self.socket = Some(connected.0);
        let hello = self.message().await?;
        let position = hello["position"].as_i64().ok_or(hello.to_string())?;
        self.note(model, &id, position);
        if model.position(&id) != position {
            return Err(format!(
                "greeted with {position}, the model has {}",
                model.position(&id)
            ));
        }
        for frame in &frames {
            self.transmit(frame).await?;
        }
        Ok(())
    }

    async fn transmit(&mut self, frame: &Frame) -> Result<(), String> {
        let json = frame.json();
        let message = if frame.is_text {
            Message::text(json.to_string())
        } else {
            Message::binary(rmp_serde::to_vec(&json).map_err(|e| e.to_string())?)
        };
        let socket = self.socket.as_mut().ok_or("not connected")?;
        socket.send(message).await.map_err(|e| e.to_string())
    }

    async fn until_stored(&mut self, position: i64) -> Result<(), String> {
        loop {
            let message = self.message().await?;
            if message["stored"]
                .as_i64()
                .is_some_and(|stored| stored >= position)
            {
                return Ok(());
            }
        }
    }

    async fn message(&mut self) -> Result<Value, String> {
        let socket = self.socket.as_mut().ok_or("not connected")?;
        loop {
            let next = timeout(PATIENCE, socket.next()).await;
            match next.map_err(|_silence| "the hub says nothing")? {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|e| e.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return Err(format!("{other:?}")),
            }
        }
    }
}
