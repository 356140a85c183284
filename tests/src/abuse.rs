//! Clients that behave badly, beside uploaders that do not.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use rovi_common::testing::eventually;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

/// How long a bad client is borne.
const LONG: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a body unpacks to.
const BOMB_BYTES: usize = 256 << 20;

/// Sends rows in `rovi.v1` and never reads what comes back, until the hub reads no more.
pub(crate) async fn deaf_client(hub: &SocketAddr) {
    let mut request = format!("ws://{hub}/db/upload/deaf")
        .into_client_request()
        .expect("this is a URL");
    let protocol = HeaderValue::from_static("rovi.v1");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let (mut socket, _response) = connect_async(request).await.expect("the hub answers");
    let row = rmp_serde::to_vec(&json!({"n": 1, "text": "x".repeat(1000)}));
    let row = Message::binary(row.expect("JSON can be written as msgpack"));
    let shout = async { while socket.feed(row.clone()).await.is_ok() {} };
    let _shouted_long_enough = timeout(LONG, shout).await;
}

/// Sends the beginning of a request, and of a frame, one byte at a time.
pub(crate) async fn slow_client(hub: &SocketAddr) {
    let mut slow = TcpStream::connect(hub).await.expect("the hub listens");
    let request = format!(
        "GET /db/upload/slow HTTP/1.1\r\nHost: {hub}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut bytes = request.into_bytes();
    // A frame of 125 masked bytes that never ends.
    bytes.extend([0x82, 0xfd, 0, 0, 0, 0, 0x81, 0xa1]);
    let drip = async {
        for byte in bytes {
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _dripped_long_enough = timeout(LONG, drip).await;
}

/// Sends a frame of 64 MB, which must be refused by its size.
pub(crate) async fn huge_frame(hub: &SocketAddr) -> Result<()> {
    let (socket, _response) = connect_async(format!("ws://{hub}/db/upload/huge")).await?;
    let (mut sink, mut stream) = socket.split();
    let sending = sink.send(Message::binary(vec![0xc0; 64 << 20]));
    let hearing = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Close(reason))) => return reason.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    let both = async { tokio::join!(sending, hearing) };
    let (_broken_off, code): (_, Option<u16>) = timeout(PATIENCE, both).await?;
    // The connection may be reset before the client reads the close frame.
    ensure!(code.is_none_or(|code| code == 1009), "closed with {code:?}");
    Ok(())
}

/// Posts a small body that unpacks to far more than a body may have.
pub(crate) async fn compressed_bomb(hub: &SocketAddr) -> Result<()> {
    let pack = format!("head -c {BOMB_BYTES} /dev/zero | gzip -c");
    let packed = Command::new("sh").args(["-c", &pack]).output()?.stdout;
    ensure!(packed.len() < 1 << 20, "gzip made {} bytes", packed.len());
    let url = format!("http://{hub}/db/upload/bomb");
    let client = reqwest::Client::new();
    let answer = eventually(PATIENCE, || async {
        let post = client.post(&url).header("Content-Encoding", "gzip");
        post.body(packed.clone()).send().await
    })
    .await;
    let status = answer.status();
    let said = answer.text().await.context("a refusal says why")?;
    ensure!(status.is_client_error(), "answered {status}: {said}");
    Ok(())
}
