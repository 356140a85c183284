//! What is open when a token ends, tickets, and services that are alone.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rovi_common::{auth::record::WHOLE, subjects, testing::eventually};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::support::{ADMIN, PATIENCE, Secure};

pub(super) type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub(super) async fn connect(url: &str, token: &str) -> Result<Socket, String> {
    let url = url.replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    let shown = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", shown);
    let connected = connect_async(request).await;
    connected
        .map(|(socket, _)| socket)
        .map_err(|error| error.to_string())
}

/// Returns the close frame, and how long it took.
pub(super) async fn closed(mut socket: Socket) -> (u16, String, Duration) {
    let since = Instant::now();
    let close = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame,
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    };
    let frame = tokio::time::timeout(PATIENCE, close).await.unwrap();
    (frame.code.into(), frame.reason.to_string(), since.elapsed())
}

#[tokio::test]
async fn what_is_open_closes_within_two_seconds_of_the_revocation_and_says_why() {
    let secure = Secure::start().await;
    secure.upload("b7").await;
    let (id, token) = secure.token(&["uploader"], None).await;
    let watching = connect(&secure.hub("/ws"), &token).await.unwrap();
    let direct = connect(&secure.twin("/ws"), &token).await.unwrap();
    let mut sending = connect(&secure.hub("/db/upload/b7"), &token).await.unwrap();
    sending
        .send(Message::text(r#"{"test_time": 2.0}"#))
        .await
        .unwrap();
    let events = secure
        .stack
        .http()
        .get(secure.hub("/events"))
        .bearer_auth(&token);
    let events = events.send().await.unwrap();
    assert_eq!(events.status(), 200);
    secure.revoke(&id).await;
    let since = Instant::now();
    let (one, two, three, events) = tokio::join!(
        closed(watching),
        closed(direct),
        closed(sending),
        events.text()
    );
    for (code, reason, took) in [one, two, three] {
        assert_eq!((code, reason.as_str()), (4401, "the token was revoked"));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let events = events.unwrap();
    assert!(
        events.contains(r#""reason":"the token was revoked""#),
        "{events}"
    );
    assert!(since.elapsed() < Duration::from_secs(2));
    for url in [secure.hub("/auth/me"), secure.twin("/auth/me")] {
        let (status, told) = secure.ask("GET", &url, &token, &Value::Null).await;
        assert_eq!(
            (status, told["detail"].as_str()),
            (401, Some("this token was revoked"))
        );
    }
    // The row that was sent before is stored.
    let rows = secure.hub("/db/b7/rows");
    eventually(PATIENCE, || async {
        let (_, rows) = secure.ask("GET", &rows, ADMIN, &Value::Null).await;
        if rows["last_seq"] == 2 {
            Ok(())
        } else {
            Err(rows.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_open_closes_when_its_token_expires() {
    let secure = Secure::start().await;
    let (_, token) = secure.token(&["reader"], Some(2)).await;
    let socket = connect(&secure.hub("/ws"), &token).await.unwrap();
    let (code, reason, took) = closed(socket).await;
    assert_eq!((code, reason.as_str()), (4401, "the token has expired"));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_no_more() {
    let secure = Secure::start().await;
    let (_, token) = secure.token(&["reader"], None).await;
    for (service, jwt) in [("hub", false), ("twin", true)] {
        let base = if service == "hub" {
            secure.hub("")
        } else {
            secure.twin("")
        };
        let shown = if jwt {
            secure.issuer.jwt(&json!({}))
        } else {
            token.clone()
        };
        let url = format!("{base}/auth/ticket");
        let (status, made) = secure.ask("POST", &url, &shown, &Value::Null).await;
        assert_eq!(status, 200, "{made}");
        let ticket = made["ticket"].as_str().unwrap();
        let url = format!("{base}/ws?fields=voltage&ticket={ticket}").replacen("http", "ws", 1);
        connect_async(&url).await.unwrap();
        let again = connect_async(&url).await.unwrap_err().to_string();
        assert!(again.contains("401"), "{again}");
    }
}

#[tokio::test]
async fn a_twin_goes_on_from_what_it_knows_while_the_hub_is_away_and_after_its_own_restart() {
    let mut secure = Secure::start().await;
    let (_, good) = secure.token(&["reader"], None).await;
    let (id, revoked) = secure.token(&["reader"], None).await;
    secure.revoke(&id).await;
    let twin = secure.twin("");
    secure.answers(&twin, &revoked, 401).await;
    secure.stack.kill_hub();
    secure.stack.kill_twin();
    secure.stack.start_twin();
    secure.answers(&twin, &good, 200).await;
    let me = secure.twin("/auth/me");
    let (status, told) = secure.ask("GET", &me, &revoked, &Value::Null).await;
    assert_eq!(
        (status, told["detail"].as_str()),
        (401, Some("this token was revoked"))
    );
}

#[tokio::test]
async fn a_twin_lets_nobody_in_by_a_bucket_that_is_not_whole() {
    let mut secure = Secure::start().await;
    let (_, good) = secure.token(&["reader"], None).await;
    secure.stack.kill_hub();
    secure.stack.kill_twin();
    // As if the hub were still writing a bucket that the bus had lost.
    let client = async_nats::connect(secure.stack.nats.server.url()).await;
    let jetstream = async_nats::jetstream::new(client.unwrap());
    let bucket = jetstream.get_key_value(subjects::ACCESS_BUCKET).await;
    bucket.unwrap().purge(WHOLE).await.unwrap();
    secure.stack.start_twin();
    let twin = secure.twin("");
    secure.answers(&twin, ADMIN, 200).await;
    // By then it has heard what there is.
    eventually(PATIENCE, || async {
        let ready = secure.stack.http().get(secure.twin("/ready"));
        let told: Value = ready.send().await.unwrap().json().await.unwrap();
        let waits_for = |part: &str| told["problems"][part].is_string();
        if waits_for("tokens") && !waits_for("registrations") && !waits_for("state") {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
    secure.answers(&twin, &good, 503).await;
    secure.stack.start_hub();
    secure.answers(&twin, &good, 200).await;
}

#[tokio::test]
async fn a_new_key_of_the_issuer_counts_and_the_old_one_does_no_more() {
    let mut secure = Secure::start().await;
    let old = secure.issuer.jwt(&json!({}));
    let me = secure.hub("/auth/me");
    assert_eq!(secure.ask("GET", &me, &old, &Value::Null).await.0, 200);
    secure.issuer.rotate();
    let new = secure.issuer.jwt(&json!({}));
    eventually(PATIENCE, || async {
        let (status, told) = secure.ask("GET", &me, &new, &Value::Null).await;
        if status == 200 {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
    assert_eq!(secure.ask("GET", &me, &old, &Value::Null).await.0, 401);
}

#[tokio::test]
async fn rovicli_shows_its_token_and_says_where_to_get_one() {
    let secure = Secure::start().await;
    let run = |args: &[&str], token: Option<&str>| {
        let mut command = secure.stack.rovicli(args);
        command
            .env("HOME", secure.stack.folder())
            .env_remove("XDG_CONFIG_HOME");
        match token {
            Some(token) => command.env("ROVI_TOKEN", token),
            None => command.env_remove("ROVI_TOKEN"),
        };
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let refused = run(&["status"], None).await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("rovicli token create"), "{told}");
    let args = ["token", "create", "bench", "--grant", "reader"];
    let made = run(&args, Some(ADMIN)).await.unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(token.starts_with("rovi_"), "{token}");
    let status = run(&["status"], Some(token.trim())).await.unwrap();
    assert!(status.status.success(), "{status:?}");
    let listed = run(&["token", "list"], Some(ADMIN)).await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("bench  reader  89 days left"), "{listed}");
}
