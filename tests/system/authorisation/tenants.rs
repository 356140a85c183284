//! What one tenant sees of another: nothing.

use futures_util::{Stream, StreamExt};
use rovi_common::testing::eventually;
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use super::support::{ADMIN, PATIENCE, Secure};

async fn get(secure: &Secure, path: &str, token: &str) -> Value {
    let (status, answer) = secure
        .ask("GET", &secure.hub(path), token, &Value::Null)
        .await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn names(answer: &Value) -> Vec<&str> {
    answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Returns the next text of a socket; pings pass in between.
async fn text(socket: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) -> String {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return text.to_string();
        }
    }
}

#[tokio::test]
async fn tenants_see_nothing_of_each_other() {
    let secure = Secure::start().await;
    for battery in ["acme-1", "beta-1", "beta-2", "sold"] {
        secure.upload(battery).await;
    }
    let (_, acme) = secure.token(&["engineer:tenant=acme"], None).await;
    let (_, lab) = secure.token(&["reader:tag=lab"], None).await;
    assert_eq!(names(&get(&secure, "/db/stats", &acme).await), ["acme-1"]);
    assert_eq!(names(&get(&secure, "/db/stats", &lab).await), [""; 0]);
    assert_eq!(names(&get(&secure, "/db/stats", ADMIN).await).len(), 4);
    let found = get(&secure, "/db/batteries?where=rows%20>%200&limit=1", &acme).await;
    assert_eq!(found["batteries"][0]["name"], "acme-1");
    assert_eq!(found["next"], Value::Null, "{found}");

    let place = json!({"tenant": "acme", "tags": ["lab"]});
    let url = secure.hub("/auth/batteries/sold");
    // Whoever had it may have kept tokens for it alone; those that ended are none.
    let (kept, _) = secure.token(&["reader:battery=sold"], None).await;
    let (ended, _) = secure.token(&["admin:battery=sold"], None).await;
    secure.revoke(&ended).await;
    let (status, placed) = secure.ask("PUT", &url, ADMIN, &place).await;
    assert_eq!((status, &placed["tenant"]), (200, &json!("acme")));
    let told = placed["tokens"].as_array().unwrap();
    assert_eq!((told.len(), &told[0]["id"]), (1, &json!(kept)), "{placed}");
    assert_eq!(
        names(&get(&secure, "/db/stats", &acme).await),
        ["acme-1", "sold"]
    );
    let found = get(&secure, "/db/batteries", &lab).await;
    assert_eq!(found["batteries"].as_array().unwrap().len(), 1);

    // What is there and what is not answer alike.
    for path in [
        "/db/beta-1/rows",
        "/db/beta-1",
        "/online/beta-1",
        "/db/beta-1/metadata",
    ] {
        let missing = path.replace("beta-1", "beta-9");
        for method in ["GET", "PUT", "DELETE"] {
            let (there, told) = secure
                .ask(method, &secure.hub(path), &acme, &Value::Null)
                .await;
            let (gone, other) = secure
                .ask(method, &secure.hub(&missing), &acme, &Value::Null)
                .await;
            assert_eq!(there, gone, "{method} {path}");
            assert_eq!(
                told.to_string().replace("beta-1", "beta-9"),
                other.to_string()
            );
        }
    }
    let register = |name: &str| json!({"name": name});
    for name in ["beta-1", "beta-9", "else"] {
        let url = secure.hub("/db/register");
        let (status, told) = secure.ask("POST", &url, &acme, &register(name)).await;
        assert_eq!(status, 403, "{told}");
    }
}

#[tokio::test]
async fn a_live_socket_shows_only_what_its_bearer_may_see() {
    let secure = Secure::start().await;
    let (_, acme) = secure.token(&["reader:tenant=acme"], None).await;
    for battery in ["beta-1", "acme-1"] {
        secure.upload(battery).await;
        let url = secure.twin("/events");
        eventually(PATIENCE, || async {
            let url = format!("{url}?battery={battery}");
            let answer = secure.stack.http().get(url).bearer_auth(ADMIN).send().await;
            let status = answer.unwrap().status().as_u16();
            if status == 200 { Ok(()) } else { Err(status) }
        })
        .await;
    }
    let socket = |query: &str| {
        let url = secure.hub(&format!("/ws{query}")).replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        let protocols = format!("rovi.v1, rovi.bearer.{acme}").parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocols);
        async move { connect_async(request).await.unwrap() }
    };
    let (mut all, answer) = socket("").await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "rovi.v1");
    let hello = text(&mut all).await;
    assert!(hello.contains("hello"), "{hello}");
    let snapshot = text(&mut all).await;
    assert!(
        snapshot.contains("acme-1") && !snapshot.contains("beta"),
        "{snapshot}"
    );
    // What changes for others is not even told as left out.
    for _ in 0..5 {
        secure.upload("beta-1").await;
    }
    secure.upload("acme-1").await;
    let change = text(&mut all).await;
    assert!(change.contains("\"battery:acme-1:data\""), "{change}");

    for query in ["?battery=beta-1", "?battery=beta-9"] {
        let (mut named, _) = socket(query).await;
        let mut last = None;
        while let Some(Ok(message)) = named.next().await {
            if let Message::Close(frame) = message {
                last = frame;
            }
        }
        let frame = last.unwrap();
        let name = query.trim_start_matches("?battery=");
        assert_eq!(u16::from(frame.code), 4404);
        assert_eq!(frame.reason.as_str(), format!("no such battery: {name}"));
    }
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let secure = Secure::start().await;
    let (_, chief) = secure.token(&["admin:tenant=acme"], Some(3600)).await;
    let url = secure.hub("/auth/tokens");
    let wanted = |grant: &str, expires_s: u64| json!({"name": "n", "grants": [grant], "expires_s": expires_s});
    for (grant, expires_s) in [
        ("reader", 60),
        ("reader:tenant=beta", 60),
        ("reader:tag=lab", 60),
        ("reader:battery=b7", 60),
        ("reader:tenant=acme", 7200),
    ] {
        let (status, told) = secure
            .ask("POST", &url, &chief, &wanted(grant, expires_s))
            .await;
        assert_eq!(status, 403, "{grant}: {told}");
    }
    let (status, made) = secure
        .ask("POST", &url, &chief, &wanted("admin:battery=acme-7", 60))
        .await;
    assert_eq!(status, 200, "{made}");
    let listed = get(&secure, "/auth/tokens", &chief).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let secret = made["token"].as_str().unwrap();
    assert!(!listed.to_string().contains(secret));
    let text = format!("/auth/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(
        secure
            .ask("DELETE", &secure.hub(&text), &chief, &Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        secure
            .ask("GET", &secure.hub("/auth/me"), secret, &Value::Null)
            .await
            .0,
        401
    );
}
