//! What is on its way in or out when a right ends, and who may keep what was answered.

use futures_util::stream;
use rovi_common::testing::eventually;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::support::{ADMIN, PATIENCE, Secure};

/// So few that an export of [`ROWS`] would take minutes.
const ROWS_READ_PER_S: &str = "10";
const ROWS: usize = 5000;

async fn until_revoked(secure: &Secure, token: &str) {
    let me = secure.hub("/auth/me");
    eventually(PATIENCE, || async {
        let (status, told) = secure.ask("GET", &me, token, &Value::Null).await;
        if status == 401 {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn an_export_breaks_off_when_its_token_is_revoked() {
    let setting = ("AUTH__BUDGETS__READER__ROWS_READ_PER_S", ROWS_READ_PER_S);
    let secure = Secure::with(&[setting]).await;
    let rows: Value = (0..ROWS)
        .map(|n| json!({"test_time": n, "voltage": 3.5}))
        .collect();
    let url = secure.hub("/db/upload/b7");
    assert_eq!(secure.ask("POST", &url, ADMIN, &rows).await.0, 200);
    let (id, token) = secure.token(&["reader:battery=b7"], None).await;
    let url = secure.hub("/db/b7/rows/export?format=csv");
    let asked = secure.stack.http().get(url).bearer_auth(&token).send();
    let mut export = asked.await.unwrap();
    assert_eq!(export.status(), 200);
    let head = export.chunk().await.unwrap().unwrap();
    assert!(head.starts_with(b"seq,"), "{head:?}");
    secure.revoke(&id).await;
    let broke_off = timeout(PATIENCE, export.chunk()).await;
    assert!(
        broke_off.unwrap().is_err(),
        "it neither ends well nor goes on"
    );
}

#[tokio::test]
async fn a_body_that_is_still_coming_when_its_token_is_revoked_stores_nothing() {
    let secure = Secure::start().await;
    secure.upload("b7").await;
    let (id, token) = secure.token(&["uploader:battery=b7"], None).await;
    let (pieces, mut inbox) = mpsc::channel::<Result<&[u8], std::io::Error>>(2);
    let body = stream::poll_fn(move |context| inbox.poll_recv(context));
    let request = secure.stack.http().post(secure.hub("/db/upload/b7"));
    let request = request
        .bearer_auth(&token)
        .header("content-type", "application/json");
    let sending = request.body(reqwest::Body::wrap_stream(body)).send();
    let revoking = async {
        pieces.send(Ok(br#"[{"test_time": 2.0}"#)).await.unwrap();
        secure.revoke(&id).await;
        until_revoked(&secure, &token).await;
        // Nobody may listen any more.
        let _refused = pieces.send(Ok(b"]")).await;
        drop(pieces);
    };
    let both = async { tokio::join!(sending, revoking).0 };
    let answer = timeout(PATIENCE, both).await.unwrap();
    if let Ok(answer) = answer {
        let status = answer.status();
        assert!(status.is_client_error(), "{status}");
    }
    let url = secure.hub("/db/b7/rows");
    let (_, rows) = secure.ask("GET", &url, ADMIN, &Value::Null).await;
    assert_eq!(rows["last_seq"], 1, "{rows}");
}

#[tokio::test]
async fn what_is_answered_to_one_caller_is_kept_for_nobody_else() {
    let secure = Secure::start().await;
    secure.upload("b7").await;
    for path in ["/auth/me", "/db/stats", "/db/b7/rows", "/db/b9/rows"] {
        let asked = secure.stack.http().get(secure.hub(path)).bearer_auth(ADMIN);
        let answer = asked.send().await.unwrap();
        let kept = answer.headers().get("cache-control");
        assert_eq!(kept.unwrap(), "private, no-cache", "{path}");
    }
}
