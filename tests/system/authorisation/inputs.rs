//! Requests that are meant to cost a service more than their sender.

use std::time::Duration;

use rovi_common::http::HEAD_WITHIN;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::support::{ADMIN, Secure};

const DEEP: usize = 100_000;

async fn post(secure: &Secure, url: &str, body: Vec<u8>, kind: &str) -> u16 {
    let request = secure.stack.http().post(url).bearer_auth(ADMIN);
    let request = request.header("content-type", kind).body(body);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_is_nested_too_deep_is_refused() {
    let secure = Secure::start().await;
    let arrays = b"[".repeat(DEEP);
    let objects = br#"{"a":"#.repeat(DEEP);
    // Arrays and maps of one, for ever.
    let packed = [vec![0x91; DEEP], b"\x81\xa1a".repeat(DEEP)];
    for path in [
        "/db/upload/b7",
        "/db/register",
        "/auth/tokens",
        "/auth/revocations",
    ] {
        let url = secure.hub(path);
        for deep in [&arrays, &objects] {
            let status = post(&secure, &url, deep.clone(), "application/json").await;
            assert_eq!(status, 400, "{path}");
        }
    }
    for deep in packed {
        let url = secure.hub("/db/upload/b7");
        assert_eq!(post(&secure, &url, deep, "application/msgpack").await, 400);
    }
    let (status, _) = secure
        .ask("GET", &secure.hub("/db/stats"), ADMIN, &Value::Null)
        .await;
    assert_eq!(status, 200);
}

// Takes as long as the head of a request may.
#[tokio::test]
async fn heads_that_are_slow_or_endless_are_cut() {
    let secure = Secure::start().await;
    for base in [secure.hub(""), secure.twin("")] {
        let address = base.trim_start_matches("http://");
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /health HTTP/1.1\r\nX-Slow: ")
            .await
            .unwrap();
        let mut endless = TcpStream::connect(address).await.unwrap();
        // It may be cut before all of it is sent.
        let _cut = endless.write_all(b"GET /health?").await;
        let _cut = endless.write_all(&b"a".repeat(1 << 20)).await;
        for (name, mut cut) in [("endless", endless), ("slow", slow)] {
            let mut told = Vec::new();
            let patience = HEAD_WITHIN + Duration::from_secs(5);
            let read = timeout(patience, cut.read_to_end(&mut told)).await;
            assert!(read.is_ok(), "{name}: it is still open");
            let told = String::from_utf8_lossy(&told);
            assert!(
                told.is_empty() || told.starts_with("HTTP/1.1 4"),
                "{name}: {told}"
            );
        }
        let (status, _) = secure
            .ask("GET", &format!("{base}/health"), ADMIN, &Value::Null)
            .await;
        assert_eq!(status, 200);
    }
}
