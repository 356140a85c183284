//! `/ws` belongs to the twin: the hub passes the messages of both sides on, one at a time, so that a
//! reader that is slow here is slow for the twin, which keeps only the newest for it.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, Session};
use futures_util::{SinkExt, StreamExt};
use rovi_common::{http::Problem, tls::advice};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use tokio_util::sync::CancellationToken;
use tungstenite::{
    Error, Message as TwinMessage,
    client::IntoClientRequest,
    http::HeaderValue,
    protocol::{CloseFrame, WebSocketConfig},
};

use super::forward::TwinProxy;
use crate::hub::Hub;

/// How long the twin has to take the socket.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a side may leave a message unread; the twin has a shorter patience of its own.
const PATIENCE: Duration = Duration::from_mins(1);
/// The most bytes of a message of ours; the twin says how many it reads.
const MAX_HEARD_BYTES: usize = 4096;
/// The most bytes of a message of the twin: twice what it sends.
const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// Bytes read from the twin at once; small, since most sockets are idle.
const READ_BYTES: usize = 4096;

type TwinSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Passes a socket on to the twin.
pub(super) async fn forward_socket(
    request: HttpRequest,
    body: web::Payload,
    twin: web::Data<TwinProxy>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, actix_web::Error> {
    let (twin_socket, protocol) = connect(&request, &twin).await?;
    let protocols: Vec<&str> = protocol.iter().map(String::as_str).collect();
    let (response, session, frames) = actix_ws::handle_with_protocols(&request, body, &protocols)?;
    let pipe = Pipe {
        frames: frames.max_frame_size(MAX_HEARD_BYTES),
        session,
        twin: twin_socket,
        stop: hub.stop.clone(),
    };
    actix_web::rt::spawn(pipe.run());
    Ok(response)
}

/// Opens the twin's side, before anything is answered: so its refusals are answers, too.
async fn connect(
    request: &HttpRequest,
    twin: &TwinProxy,
) -> Result<(TwinSocket, Option<String>), Problem> {
    let away =
        || Problem::unavailable("the Digital Twin, which answers this, is away; try again soon");
    let target = twin.target(request).ok_or_else(away)?;
    let target = target.as_str().replacen("http", "ws", 1);
    let mut outgoing = target.into_client_request().map_err(Problem::bad_request)?;
    // `Origin` was checked here, where the page came from.
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if let Some(offered) = offered.and_then(|offered| offered.to_str().ok()) {
        let offered = offered.parse().map_err(Problem::bad_request)?;
        outgoing
            .headers_mut()
            .insert("sec-websocket-protocol", offered);
    }
    // The twin decides by itself who may watch what.
    if let Some(credential) = request.headers().get(header::AUTHORIZATION) {
        let mut passed =
            HeaderValue::from_bytes(credential.as_bytes()).map_err(Problem::bad_request)?;
        passed.set_sensitive(true);
        outgoing.headers_mut().insert("authorization", passed);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let connected = timeout(
        CONNECT_WITHIN,
        connect_async_tls_with_config(outgoing, Some(config), true, Some(twin.connector())),
    );
    match connected.await {
        Ok(Ok((socket, answer))) => {
            let protocol = answer.headers().get("sec-websocket-protocol");
            let protocol = protocol.and_then(|protocol| protocol.to_str().ok());
            Ok((socket, protocol.map(str::to_owned)))
        }
        Ok(Err(Error::Http(answer))) if answer.status().is_client_error() => {
            Err(refusal(answer.status().as_u16(), answer.body().as_deref()))
        }
        Ok(Err(error)) => {
            let reason = advice(&error).unwrap_or_else(|| error.to_string());
            tracing::info!("the twin did not take a socket: {reason}");
            Err(away())
        }
        Err(_out_of_time) => Err(away()),
    }
}

/// Passes the twin's problem on.
fn refusal(status: u16, body: Option<&[u8]>) -> Problem {
    let status = actix_web::http::StatusCode::from_u16(status)
        .unwrap_or(actix_web::http::StatusCode::BAD_GATEWAY);
    let told: serde_json::Value =
        serde_json::from_slice(body.unwrap_or_default()).unwrap_or_default();
    let text = |key: &str| told.get(key).and_then(serde_json::Value::as_str);
    let detail = text("detail").unwrap_or("the Digital Twin refuses the socket");
    let problem = Problem::new(status, detail);
    match text("field") {
        Some(field) => problem.at(field),
        None => problem,
    }
}

/// Both sides of a socket.
struct Pipe {
    frames: MessageStream,
    session: Session,
    twin: TwinSocket,
    stop: CancellationToken,
}

impl Pipe {
    async fn run(mut self) {
        let reason = loop {
            let passed = tokio::select! {
                biased;
                () = self.stop.cancelled() => break Some(restart()),
                frame = self.frames.recv() => self.pass_to_twin(frame).await,
                message = self.twin.next() => self.pass_to_client(message).await,
            };
            if let Err(reason) = passed {
                break reason;
            }
        };
        let _gone = timeout(PATIENCE, self.session.clone().close(reason)).await;
        let _gone = timeout(CONNECT_WITHIN, self.twin.close(None)).await;
        let until_closed = async { while let Some(Ok(_)) = self.frames.recv().await {} };
        let _impatient = timeout(CONNECT_WITHIN, until_closed).await;
    }

    /// Passes on what the client says; the error is how the client's side is closed.
    async fn pass_to_twin(
        &mut self,
        frame: Option<Result<Message, actix_ws::ProtocolError>>,
    ) -> Result<(), Option<CloseReason>> {
        let message = match frame {
            Some(Ok(Message::Text(text))) => TwinMessage::text(text.to_string()),
            Some(Ok(Message::Binary(bytes))) => TwinMessage::binary(bytes),
            Some(Ok(Message::Ping(bytes))) => TwinMessage::Ping(bytes),
            Some(Ok(Message::Pong(bytes))) => TwinMessage::Pong(bytes),
            Some(Ok(Message::Continuation(_) | Message::Nop)) => return Ok(()),
            Some(Err(actix_ws::ProtocolError::Overflow)) => {
                return Err(Some(CloseReason {
                    code: CloseCode::Size,
                    description: Some(format!("a message has more than {MAX_HEARD_BYTES} bytes")),
                }));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(None),
        };
        match timeout(PATIENCE, self.twin.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Some(restart())),
        }
    }

    /// Passes on what the twin says.
    async fn pass_to_client(
        &mut self,
        message: Option<Result<TwinMessage, Error>>,
    ) -> Result<(), Option<CloseReason>> {
        let session = &mut self.session;
        let sent = match message {
            Some(Ok(TwinMessage::Text(text))) => {
                timeout(PATIENCE, session.text(text.as_str().to_owned())).await
            }
            Some(Ok(TwinMessage::Binary(bytes))) => timeout(PATIENCE, session.binary(bytes)).await,
            // The twin's ping is answered by the client, and its pong passed on above: so only
            // clients that live are kept.
            Some(Ok(TwinMessage::Ping(bytes))) => timeout(PATIENCE, session.ping(&bytes)).await,
            Some(Ok(TwinMessage::Pong(bytes))) => timeout(PATIENCE, session.pong(&bytes)).await,
            Some(Ok(TwinMessage::Frame(_))) => return Ok(()),
            Some(Ok(TwinMessage::Close(frame))) => return Err(frame.as_ref().map(reason)),
            Some(Err(_)) | None => return Err(Some(restart())),
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(None),
        }
    }
}

fn reason(frame: &CloseFrame) -> CloseReason {
    CloseReason {
        code: CloseCode::from(u16::from(frame.code)),
        description: Some(frame.reason.as_str().to_owned()),
    }
}

/// The way on is interrupted: connecting again helps.
fn restart() -> CloseReason {
    CloseReason {
        code: CloseCode::Restart,
        description: Some("the way to the Digital Twin is interrupted; connect again".to_owned()),
    }
}
