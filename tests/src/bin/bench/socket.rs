//! A lean upload client: `rovi.v1`, frames encoded beforehand, nothing sent again.

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use system_tests::Stack;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Bytes, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{Role, WebSocket, WebSocketConfig},
    },
};
use uuid::Uuid;

use crate::rows::batch;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One whose owner waits for it alone, which costs least.
pub(crate) type WaitingSocket = WebSocket<std::net::TcpStream>;

/// What the hub says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Ack {
        stored: i64,
    },
    #[serde(other)]
    Other,
}

/// Connects and reads the greeting.
pub(crate) async fn connect(stack: &Stack, battery: &str, session: Uuid) -> anyhow::Result<Socket> {
    let url = format!(
        "{}/db/upload/{battery}?session={session}&from=0",
        stack.hub_url().replacen("http", "ws", 1)
    );
    let mut request = url.into_client_request()?;
    let protocol = HeaderValue::from_static("rovi.v1");
    request
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    // Thousands of sockets share the machine with the hub.
    let config = WebSocketConfig::default().read_buffer_size(4 << 10);
    let (mut socket, _response) = connect_async_with_config(request, Some(config), true).await?;
    let greeting = socket.next().await.context("the hub says nothing")??;
    ensure!(greeting.to_text()?.contains("hello"), "{greeting}");
    Ok(socket)
}

/// Makes a socket on which everything was read one that its owner waits for.
pub(crate) fn waiting(socket: Socket) -> anyhow::Result<WaitingSocket> {
    let config = *socket.get_config();
    let MaybeTlsStream::Plain(stream) = socket.into_inner() else {
        anyhow::bail!("the hub speaks TLS");
    };
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(WebSocket::from_raw_socket(
        stream,
        Role::Client,
        Some(config),
    ))
}

/// Returns the position up to which rows are durable, if a message says so.
pub(crate) fn stored(message: &Message) -> anyhow::Result<Option<i64>> {
    match message {
        Message::Text(text) => Ok(match serde_json::from_str(text)? {
            Said::Ack { stored } => Some(stored),
            Said::Other => None,
        }),
        Message::Close(frame) => anyhow::bail!("the hub closes: {frame:?}"),
        _ => Ok(None),
    }
}

/// Waits until all rows below a position are durable.
pub(crate) async fn until_stored(
    socket: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
    position: i64,
) -> anyhow::Result<()> {
    loop {
        let message = socket.next().await.context("the hub is gone")??;
        if stored(&message)?.is_some_and(|stored| stored >= position) {
            return Ok(());
        }
    }
}

/// Sends frames while reading acknowledgements; returns when all rows are durable.
pub(crate) async fn send_all(
    socket: Socket,
    frames: Vec<Message>,
    rows: usize,
) -> anyhow::Result<()> {
    let (mut sink, mut stream) = socket.split();
    let sending = async {
        for frame in frames {
            sink.send(frame).await?;
        }
        anyhow::Ok(())
    };
    let rows = i64::try_from(rows)?;
    let (sent, heard) = tokio::join!(sending, until_stored(&mut stream, rows));
    sent.and(heard)
}

/// Encodes one row as the origin's client does: a map of names to values.
pub(crate) fn single_row(row: usize) -> anyhow::Result<Message> {
    let columns = batch(row, 1);
    let cells: std::collections::BTreeMap<_, _> = columns.row(0).collect();
    Ok(Message::Binary(Bytes::from(rmp_serde::to_vec_named(
        &cells,
    )?)))
}
