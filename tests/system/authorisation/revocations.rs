//! JWTs of an outside issuer that are revoked here.

use std::time::Duration;

use rovi_common::clock;
use serde_json::{Value, json};

use super::{
    live::{closed, connect},
    support::{ADMIN, Secure},
};

async fn revoke(secure: &Secure, body: &Value) -> (u16, Value) {
    let url = secure.hub("/auth/revocations");
    secure.ask("POST", &url, ADMIN, body).await
}

#[tokio::test]
async fn a_revoked_jwt_counts_nowhere_and_what_it_opened_closes_within_two_seconds() {
    let secure = Secure::start().await;
    secure.upload("b7").await;
    let stolen = secure.issuer.jwt(&json!({"jti": "stolen"}));
    let other = secure.issuer.jwt(&json!({"jti": "other"}));
    let sockets = [
        connect(&secure.hub("/ws"), &stolen).await.unwrap(),
        connect(&secure.twin("/ws"), &stolen).await.unwrap(),
        connect(&secure.hub("/db/upload/b7"), &stolen)
            .await
            .unwrap(),
    ];
    let url = secure.hub("/auth/ticket");
    let (_, ticket) = secure.ask("POST", &url, &stolen, &Value::Null).await;

    let (status, told) = revoke(&secure, &json!({"jti": "stolen"})).await;
    assert_eq!((status, &told["jti"]), (200, &json!("stolen")));
    let [one, two, three] = sockets.map(closed);
    let closed = tokio::join!(one, two, three);
    for (code, reason, took) in [closed.0, closed.1, closed.2] {
        assert_eq!((code, reason.as_str()), (4401, "the token was revoked"));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    for base in [secure.hub(""), secure.twin("")] {
        secure.answers(&base, &stolen, 401).await;
        secure.answers(&base, &other, 200).await;
        // Nor does what was made of it.
        secure
            .answers(&base, ticket["ticket"].as_str().unwrap(), 401)
            .await;
    }
    let url = secure.hub("/auth/revocations");
    let (_, listed) = secure.ask("GET", &url, ADMIN, &Value::Null).await;
    assert_eq!(listed[0]["created_by"], "admin");
    let (_, audit) = secure
        .ask("GET", &secure.hub("/audit"), ADMIN, &Value::Null)
        .await;
    assert!(audit.to_string().contains("the JWT stolen"), "{audit}");
}

#[tokio::test]
async fn all_that_somebody_was_given_before_can_be_revoked_and_holds_after_a_restart() {
    let mut secure = Secure::start().await;
    let now = clock::now_us() / 1_000_000;
    let before = secure.issuer.jwt(&json!({"sub": "ada", "iat": now - 60}));
    let undated = secure.issuer.jwt(&json!({"sub": "ada"}));
    let after = secure.issuer.jwt(&json!({"sub": "ada", "iat": now}));
    let other = secure.issuer.jwt(&json!({"sub": "bob", "iat": now - 60}));
    let body = json!({"subject": "ada", "issued_before": now - 10});
    assert_eq!(revoke(&secure, &body).await.0, 200);
    secure.stack.kill_hub();
    secure.stack.kill_twin();
    secure.stack.start_hub();
    secure.stack.start_twin();
    secure.stack.ready().await;
    for base in [secure.hub(""), secure.twin("")] {
        secure.answers(&base, &before, 401).await;
        secure.answers(&base, &undated, 401).await;
        secure.answers(&base, &after, 200).await;
        secure.answers(&base, &other, 200).await;
    }
}
