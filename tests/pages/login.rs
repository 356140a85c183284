//! Where everybody has to say who they are: signing in, by it reading and writing, and its end.

use std::time::Duration;

use rovi_common::testing::eventually;
use serde_json::{Value, json};
use system_tests::Stack;

use crate::browser::Browser;

const ADMIN: &str = "the-canary-token-of-the-admin-in-its-file";
const TOKEN: &str = "#token";

async fn secure_stack() -> Stack {
    let mut stack = Stack::servers();
    for (setting, name, token) in [
        (
            "AUTH__SERVICE_TOKEN_FILE",
            "service.token",
            "the-canary-token-of-the-services-in-its-file",
        ),
        ("AUTH__ADMIN_TOKEN_FILE", "admin.token", ADMIN),
    ] {
        let file = stack.folder().join(name);
        std::fs::write(&file, token).unwrap();
        stack.set(setting, file.to_str().unwrap());
    }
    stack.set("AUTH__REQUIRED", "true");
    stack.start_hub();
    stack.start_twin();
    stack.ready().await;
    stack
}

/// Makes a token and waits until the twin knows it; returns its id and the token.
async fn make_token(stack: &Stack, name: &str, grant: &str) -> (String, String) {
    let body = json!({"name": name, "grants": [grant], "expires_s": 600});
    let url = format!("{}/auth/tokens", stack.hub_url());
    let request = stack.http().post(url).bearer_auth(ADMIN).json(&body);
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let (id, token) = (text("id"), text("token"));
    eventually(Duration::from_secs(30), || async {
        let url = format!("{}/auth/me", stack.twin_url());
        let asked = stack.http().get(url).bearer_auth(&token).send().await;
        match asked.map(|answer| answer.status().as_u16()) {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (id, token)
}

async fn upload(stack: &Stack, battery: &str) {
    let rows = json!([{"test_time": 1.0, "current": 1.0, "voltage": 3.5}]);
    let url = format!("{}/db/upload/{battery}", stack.hub_url());
    let request = stack.http().post(url).bearer_auth(ADMIN).json(&rows);
    assert!(request.send().await.unwrap().status().is_success());
}

async fn is_at(browser: &Browser, path: &str) {
    let here = json!(path);
    let expression = format!("location.pathname + location.search === {here}");
    browser.sees(&expression).await;
}

#[tokio::test]
async fn a_token_signs_in_until_it_is_revoked() {
    let stack = secure_stack().await;
    let (id, token) = make_token(&stack, "Ada's laptop", "uploader").await;
    let browser = Browser::open(stack.hub_url()).await;

    // Whoever is not known is asked, and told nothing else.
    browser.go("/register").await;
    is_at(&browser, "/login?next=%2Fregister").await;
    browser.reads("rovicli token create").await;
    browser.keep("login").await;
    browser.types(TOKEN, "rovi_wrong\n").await;
    browser.reads("this token is not valid here").await;
    browser.keep("login-wrong").await;

    // By the keyboard alone: the field has the focus, and what was wrong is selected.
    browser.sees("document.activeElement.id === 'token'").await;
    browser.types(TOKEN, &format!("{token}\n")).await;
    is_at(&browser, "/register").await;
    browser.reads("Ada's laptop").await;
    assert_eq!(browser.run("return document.cookie").await, "");

    // What pages send counts by the session, at the hub and live from the twin.
    browser
        .types("#metadata textarea", r#"{"name": "Cell-8"}"#)
        .await;
    browser.click("#metadata button").await;
    browser.reads("Saved for Cell-8").await;
    upload(&stack, "Cell-8").await;
    browser.go("/").await;
    browser
        .sees("document.querySelector('td.name a')?.textContent === 'Cell-8'")
        .await;
    browser
        .sees("document.querySelector('.link-state').dataset.state === 'live'")
        .await;
    browser.keep("signed-in").await;

    let url = format!("{}/auth/tokens/{id}", stack.hub_url());
    let revoked = stack.http().delete(url).bearer_auth(ADMIN).send().await;
    assert!(revoked.unwrap().status().is_success());
    is_at(&browser, "/login?next=%2F").await;
    browser.reads("this token was revoked").await;
    browser.keep("login-revoked").await;
    browser.is_clean().await;
    browser.close().await;
}

#[tokio::test]
async fn signing_in_leads_to_own_pages_alone_and_out_again() {
    let stack = secure_stack().await;
    let (_, token) = make_token(&stack, "reader", "reader").await;
    let browser = Browser::open(stack.hub_url()).await;
    for elsewhere in [
        "//elsewhere.example/",
        "/.//elsewhere.example",
        "/%5Celsewhere.example",
        "javascript:alert(1)",
    ] {
        browser.go(&format!("/login?next={elsewhere}")).await;
        browser.types(TOKEN, &format!("{token}\n")).await;
        browser.sees("location.pathname !== '/login'").await;
        let host = browser.run("return location.origin").await;
        assert_eq!(host, stack.hub_url(), "{elsewhere}");
        browser.go("/status").await;
        browser.press("Sign out").await;
        is_at(&browser, "/login").await;
    }
    browser.go("/status").await;
    is_at(&browser, "/login?next=%2Fstatus").await;

    // The description of the interface works under a policy of its own.
    browser.go("/docs/").await;
    browser.reads("Metadata and rows of batteries.").await;
    browser.is_clean().await;
    browser.close().await;
}

#[tokio::test]
async fn where_nobody_is_asked_nobody_has_to_sign_in() {
    let stack = Stack::start().await;
    let browser = Browser::open(stack.hub_url()).await;
    browser.go("/login?next=/status").await;
    browser.reads("Nobody has to sign in here.").await;
    browser.click("#said a").await;
    is_at(&browser, "/status").await;

    // A cookie of another time, when somebody was asked, does no harm.
    let url = format!("{}/db/stats", stack.hub_url());
    let request = stack.http().get(url).header("cookie", "rovi_session=x");
    let answer = request.header("sec-fetch-site", "same-site").send().await;
    assert_eq!(answer.unwrap().status().as_u16(), 200);
    browser.close().await;
}
