//! Who did what is kept, and no secret with it.

use rovi_common::testing::eventually;
use serde_json::{Value, json};

use super::support::{ADMIN, PATIENCE, SERVICE, Secure};

async fn entries(secure: &Secure) -> Vec<Value> {
    let url = secure.hub("/audit");
    let (status, page) = secure.ask("GET", &url, ADMIN, &Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["entries"].as_array().unwrap().clone()
}

fn rovicli(secure: &Secure, args: &[&str]) -> std::process::Output {
    let mut command = secure.stack.rovicli(args);
    command.env("HOME", secure.stack.folder());
    command.env("ROVI_TOKEN", ADMIN).output().unwrap()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a story of one token")]
async fn it_is_kept_who_did_what_and_a_change_of_that_shows() {
    let secure = Secure::start().await;
    secure.upload("acme-1").await;
    let (id, token) = secure.token(&["engineer:tenant=acme"], None).await;
    let rule = json!({
        "batteries": ["acme-1"], "severity": "info",
        "condition": {"kind": "stale", "after_s": 1e9},
    });
    let url = secure.hub("/online/alerts/rules/acme-r");
    let (status, told) = secure.ask("PUT", &url, &token, &rule).await;
    assert_eq!(status, 200, "{told}");
    let url = secure.hub("/db/beta-1?confirm=beta-1");
    assert_eq!(
        secure.ask("DELETE", &url, &token, &Value::Null).await.0,
        404
    );
    secure.revoke(&id).await;
    let kept = eventually(PATIENCE, || async {
        let kept = entries(&secure).await;
        if kept.len() == 4 {
            Ok(kept)
        } else {
            Err(json!(kept).to_string())
        }
    })
    .await;

    let one = |action: &str| kept.iter().find(|one| one["action"] == action).unwrap();
    let made = one("POST /auth/tokens");
    assert_eq!(
        (&made["who"], &made["status"]),
        (&json!("admin"), &json!(200))
    );
    assert!(made["subject"].as_str().unwrap().contains(&id), "{made}");
    let put = one("PUT /online/alerts/rules/{rule}");
    assert_eq!(put["who"], format!("test (token {id})"));
    assert_eq!(
        (&put["service"], &put["subject"]),
        (&json!("twin"), &json!("acme-1"))
    );
    let deleted = one("DELETE /db/{battery}");
    assert_eq!(
        (&deleted["path"], &deleted["status"]),
        (&json!("/db/beta-1"), &json!(404))
    );
    assert_eq!(deleted["source"], "127.0.0.1");
    assert_eq!(one("DELETE /auth/tokens/{token}")["status"], 200);

    let whole = rovicli(&secure, &["audit", "--verify"]);
    let told = String::from_utf8(whole.stdout).unwrap();
    assert!(told.starts_with("4 entries, none was changed"), "{told}");
    secure
        .stack
        .database()
        .run("UPDATE hub.audit SET who = 'eve' WHERE id = 2");
    let changed = rovicli(&secure, &["audit", "--verify"]);
    let told = String::from_utf8(changed.stderr).unwrap();
    assert!(told.contains("entry 2 was changed"), "{told}");

    let shown = json!(kept).to_string();
    let log = |name: &str| std::fs::read_to_string(secure.stack.log(name)).unwrap();
    for text in [shown, log("datahub"), log("twin")] {
        for secret in [ADMIN, SERVICE, &token] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
