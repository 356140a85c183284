//! One connection of an upload session.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use tungstenite::{
    Message,
    client::IntoClientRequest,
    http::{
        HeaderValue,
        header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    },
};
use url::Url;

use super::{Target, error::Broken};

/// The subprotocol with greeting, acknowledgements and sessions.
const SUBPROTOCOL: &str = "rovi.v1";
/// How long the hub may take to accept a connection, and again to greet.
const GREETING_WITHIN: Duration = Duration::from_secs(15);
/// How long a close may take; what matters was acknowledged before.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// After this long without a word the hub is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(20);
/// After this long without a word the connection counts as lost. A hub that waits for its database
/// still answers pings, so this is only met by dead machines and networks.
const SILENCE: Duration = Duration::from_mins(1);

/// What the hub takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in a frame.
    pub frame_bytes: usize,
    /// Rows in a frame.
    pub rows_per_frame: usize,
    /// Rows that may wait for their acknowledgement.
    pub window_rows: usize,
}

/// The hub's first words on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Greeting {
    /// The life of the battery's name.
    pub epoch: i64,
    /// Rows of the session below this are durable.
    pub position: u64,
    /// Rows of the session below this are known to be on the bus.
    #[serde(default)]
    pub relayed: u64,
    /// What the hub takes.
    pub limits: Limits,
}

/// What the hub says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Hello(Greeting),
    Ack {
        stored: u64,
        #[serde(default)]
        relayed: u64,
    },
    Waiting {
        reason: String,
    },
    Reject {
        position: u64,
        reason: String,
    },
    /// Words of a newer hub that this client need not know.
    #[serde(other)]
    Unknown,
}

/// What happened in one [`Connection::exchange`].
pub(super) enum Notice {
    /// The frame was taken over by the socket.
    Written,
    /// All rows below are durable, or on the bus.
    Acknowledged { stored: u64, relayed: u64 },
    /// The hub cannot store the battery's rows now, and why.
    Waiting(String),
    /// One row was refused and kept.
    Rejected { position: u64, reason: String },
    /// Nothing to act on.
    Nothing,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A greeted connection.
pub(super) struct Connection {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    greeting: Greeting,
    /// Whether something was written that may still stand in a buffer.
    unflushed: bool,
    last_heard: Instant,
    pinged: bool,
}

impl Connection {
    /// Connects, asks for `rovi.v1` and takes the greeting.
    pub(super) async fn open(
        target: &Target,
        from: u64,
        new_segment: bool,
    ) -> Result<Self, Broken> {
        let url = upload_url(target, from, new_segment)?;
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(Broken::by_socket)?;
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        if let Some(token) = &target.token {
            let mut shown = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|error| Broken::NotAHub(format!("the token: {error}")))?;
            shown.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, shown);
        }
        let tls = Connector::Rustls(target.trust.config());
        let (socket, _response) = timeout(
            GREETING_WITHIN,
            connect_async_tls_with_config(request, None, true, Some(tls)),
        )
        .await
        .map_err(|_elapsed| too_slow())?
        .map_err(Broken::by_socket)?;
        let (sink, mut stream) = socket.split();
        let greeting = timeout(GREETING_WITHIN, greeting(&mut stream))
            .await
            .map_err(|_elapsed| too_slow())??;
        Ok(Self {
            sink,
            stream,
            greeting,
            unflushed: false,
            last_heard: Instant::now(),
            pinged: false,
        })
    }

    pub(super) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Whether a frame may still stand in a buffer of this process.
    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Writes `next` if there is one, or listens, whichever can be done first, until `deadline`.
    ///
    /// Dropping the future loses nothing: a frame is either in the socket's hands, and then this
    /// has returned [`Notice::Written`], or not.
    pub(super) async fn exchange(
        &mut self,
        next: Option<Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Notice, Broken> {
        let quiet = self.last_heard + if self.pinged { SILENCE } else { PING_AFTER };
        let writes = next.is_some() || self.unflushed;
        let wake = deadline.map_or(quiet, |deadline| deadline.min(quiet));
        tokio::select! {
            biased;
            said = self.stream.next() => {
                self.last_heard = Instant::now();
                self.pinged = false;
                match read(said)? {
                    Some(Said::Ack { stored, relayed }) => {
                        Ok(Notice::Acknowledged { stored, relayed })
                    }
                    Some(Said::Waiting { reason }) => Ok(Notice::Waiting(reason)),
                    Some(Said::Reject { position, reason }) => {
                        Ok(Notice::Rejected { position, reason })
                    }
                    Some(Said::Hello(_) | Said::Unknown) | None => Ok(Notice::Nothing),
                }
            }
            written = write(&mut self.sink, next), if writes => {
                let notice = written?;
                self.unflushed = matches!(notice, Notice::Written);
                Ok(notice)
            }
            () = sleep_until(wake) => self.quiet().await,
        }
    }

    /// Asks a quiet hub whether it is there, or gives the connection up.
    async fn quiet(&mut self) -> Result<Notice, Broken> {
        let quiet = self.last_heard.elapsed();
        if quiet >= SILENCE {
            return Err(Broken::Lost(format!(
                "the hub is silent for {} s",
                quiet.as_secs()
            )));
        }
        if quiet >= PING_AFTER && !self.pinged {
            self.pinged = true;
            let ping = Message::Ping(Bytes::new());
            self.sink.feed(ping).await.map_err(Broken::by_socket)?;
            self.unflushed = true;
        }
        Ok(Notice::Nothing)
    }

    /// Closes with 1000; a hub that does not answer is left alone after a moment.
    pub(super) async fn close(mut self) {
        let farewell = async {
            if self.sink.close().await.is_ok() {
                // The hub's close answers ours; it may take its time with the TCP connection.
                while let Some(Ok(message)) = self.stream.next().await {
                    if message.is_close() {
                        break;
                    }
                }
            }
        };
        let _in_time = timeout(CLOSE_WITHIN, farewell).await.is_ok();
    }
}

/// Connects so that the next frame continues the session.
///
/// `stored` is what is known to be durable, and `first_to_send` tells the first row that goes out
/// if a position is durable. Where the greeting knows of more durable rows, the connection is made
/// anew from there: the rows are numbered from what was asked for, and a connection that asked for
/// a new segment would begin it in the middle of the test.
pub(super) async fn open(
    target: &Target,
    mut stored: u64,
    first_to_send: &(dyn Fn(u64) -> u64 + Sync),
) -> Result<Connection, Broken> {
    loop {
        let from = first_to_send(stored);
        let new_segment = target.new_segment && stored == 0;
        let connection = Connection::open(target, from, new_segment).await?;
        let position = connection.greeting().position;
        if first_to_send(position) == from && (position == 0 || !new_segment) {
            return Ok(connection);
        }
        connection.close().await;
        stored = position;
    }
}

/// Hands a frame to the socket, or, without one, waits until all is in the network's hands.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    frame: Option<Bytes>,
) -> Result<Notice, Broken> {
    let written = match frame {
        Some(frame) => sink
            .feed(Message::Binary(frame))
            .await
            .map(|()| Notice::Written),
        None => sink.flush().await.map(|()| Notice::Nothing),
    };
    written.map_err(Broken::by_socket)
}

fn too_slow() -> Broken {
    Broken::Lost(format!(
        "no greeting within {} s",
        GREETING_WITHIN.as_secs()
    ))
}

/// Waits for the hub's first words.
async fn greeting(stream: &mut SplitStream<Socket>) -> Result<Greeting, Broken> {
    loop {
        match read(stream.next().await)? {
            Some(Said::Hello(greeting)) => return Ok(greeting),
            Some(said) => return Err(Broken::NotAHub(format!("it began with {said:?}"))),
            None => {}
        }
    }
}

/// Reads one message; `None` for pings, pongs and the like.
fn read(message: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Said>, Broken> {
    match message {
        None => Err(Broken::Lost("the connection was closed".to_owned())),
        Some(Err(error)) => Err(Broken::by_socket(error)),
        Some(Ok(Message::Close(None))) => {
            Err(Broken::Lost("the hub closed the connection".to_owned()))
        }
        Some(Ok(Message::Close(Some(frame)))) => {
            Err(Broken::by_close(frame.code.into(), frame.reason.as_str()))
        }
        Some(Ok(Message::Text(text))) => serde_json::from_str(text.as_str())
            .map(Some)
            .map_err(|error| Broken::NotAHub(format!("{error} in `{}`", text.as_str()))),
        Some(Ok(_)) => Ok(None),
    }
}

/// Names the socket of an upload.
fn upload_url(target: &Target, from: u64, new_segment: bool) -> Result<Url, Broken> {
    let not_http = || Broken::NotAHub("the URL must begin with http:// or https://".to_owned());
    let mut url = target
        .hub
        .join(&format!("db/upload/{}", target.battery))
        .map_err(|error| Broken::NotAHub(error.to_string()))?;
    let scheme = match url.scheme() {
        "http" => "ws",
        "https" => "wss",
        _ => return Err(not_http()),
    };
    url.set_scheme(scheme).map_err(|()| not_http())?;
    let mut query = url.query_pairs_mut();
    query.append_pair("session", &target.session.to_string());
    query.append_pair("from", &from.to_string());
    if new_segment {
        query.append_pair("segment", "new");
    }
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(hub: &str) -> Target {
        Target {
            hub: hub.parse().unwrap(),
            battery: "b7".parse().unwrap(),
            session: uuid::Uuid::nil(),
            new_segment: true,
            token: None,
            trust: rovi_common::tls::Trust::default(),
        }
    }

    #[test]
    fn the_socket_is_named_with_session_position_and_segment() {
        let url = upload_url(&target("http://127.0.0.1:8000"), 5, true).unwrap();
        assert_eq!(
            url.as_str(),
            "ws://127.0.0.1:8000/db/upload/b7?session=00000000-0000-0000-0000-000000000000\
             &from=5&segment=new"
        );
    }

    #[test]
    fn a_url_without_http_is_refused() {
        let url = upload_url(&target("https://127.0.0.1"), 5, true).unwrap();
        assert_eq!(url.scheme(), "wss");
        for url in ["ftp://127.0.0.1", "file:///x"] {
            assert!(matches!(
                upload_url(&target(url), 0, false),
                Err(Broken::NotAHub(_))
            ));
        }
    }

    #[test]
    fn words_of_a_newer_hub_are_passed_over() {
        let said: Said = serde_json::from_str(r#"{"type": "news", "of": "tomorrow"}"#).unwrap();
        assert!(matches!(said, Said::Unknown));
        let said = r#"{"type": "ack", "received": 9, "stored": 7, "relayed": 3}"#;
        assert!(matches!(
            serde_json::from_str(said).unwrap(),
            Said::Ack {
                stored: 7,
                relayed: 3
            }
        ));
    }
}
