//! Those who fail again and again are locked out, and nobody else is; pages of others may do nothing.

use serde_json::{Value, json};

use super::support::{ADMIN, Secure};

const WRONG: &str = "rovi_0000000000000000_\
     0000000000000000000000000000000000000000000000000000000000000000";

async fn answer(secure: &Secure, url: &str, token: &str) -> reqwest::Response {
    let request = secure.stack.http().get(url).bearer_auth(token);
    request.send().await.unwrap()
}

#[tokio::test]
async fn an_address_that_fails_is_locked_and_good_tokens_from_there_go_on_to_count() {
    let settings = [
        ("AUTH__LOCKOUT__FAILURES_PER_MINUTE", "5"),
        ("AUTH__LOCKOUT__LOCK", "1h"),
    ];
    let secure = Secure::with(&settings).await;
    let (_, token) = secure.token(&["reader"], None).await;
    let known = secure.issuer.jwt(&json!({"sub": "known"}));
    for me in [secure.hub("/auth/me"), secure.twin("/auth/me")] {
        assert_eq!(answer(&secure, &me, &known).await.status(), 200);
        // What asked for the token above before it was known has failed there, too.
        let mut failures = 0;
        let locked = loop {
            let answer = answer(&secure, &me, WRONG).await;
            if answer.status() == 429 {
                break answer;
            }
            failures += 1;
            assert_eq!((answer.status().as_u16(), failures <= 5), (401, true));
        };
        let wait: u64 = locked.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((3000..=3600).contains(&wait), "{wait}");
        assert_eq!(
            locked.headers()["ratelimit"],
            format!("\"credentials\";r=0;t={wait}")
        );
        let told: Value = locked.json().await.unwrap();
        assert!(
            told["detail"]
                .as_str()
                .unwrap()
                .contains("a token that counts")
        );
        for good in [ADMIN, &token, &known] {
            assert_eq!(answer(&secure, &me, good).await.status(), 200, "{good}");
        }
        // A JWT that nobody saw before is not worth its signature from there.
        let new = secure.issuer.jwt(&json!({"sub": "new"}));
        assert_eq!(answer(&secure, &me, &new).await.status(), 429);
        let none = secure.stack.http().get(&me).send().await.unwrap();
        assert_eq!(none.status(), 401);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_only_the_address_that_fails_is_locked() {
    let settings = [
        ("AUTH__LOCKOUT__FAILURES_PER_MINUTE", "2"),
        ("AUTH__TRUSTED_PROXIES", r#"["127.0.0.0/8"]"#),
    ];
    let secure = Secure::with(&settings).await;
    let me = secure.hub("/auth/me");
    let ask = async |from: &str| {
        let request = secure.stack.http().get(&me).bearer_auth(WRONG);
        let request = request.header("x-forwarded-for", format!("203.0.113.1, {from}"));
        request.send().await.unwrap().status().as_u16()
    };
    for _ in 0..2 {
        assert_eq!(ask("192.0.2.1").await, 401);
    }
    assert_eq!(ask("192.0.2.1").await, 429);
    assert_eq!(ask("192.0.2.2").await, 401);
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_ask_and_their_cookies_never_count() {
    let page = "https://lab.example";
    let secure = Secure::with(&[("CORS__ORIGINS", r#"["https://lab.example"]"#)]).await;
    for base in [secure.hub(""), secure.twin("")] {
        let ask = |origin: &'static str| {
            let request = secure.stack.http().get(format!("{base}/auth/me"));
            request.header("origin", origin)
        };
        let allowed = ask(page).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(allowed.status(), 200);
        assert_eq!(allowed.headers()["access-control-allow-origin"], page);
        // It may also read why it is refused.
        let cookie = format!("rovi_session={ADMIN}");
        let refused = ask(page).header("cookie", cookie).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.headers()["access-control-allow-origin"], page);
        let other = ask("https://evil.example").bearer_auth(ADMIN).send().await;
        let other = other.unwrap();
        assert!(!other.headers().contains_key("access-control-allow-origin"));
    }
    // What the twin answers through the hub is the hub's to allow, once.
    let request = secure.stack.http().get(secure.hub("/online/status"));
    let passed = request.header("origin", page).bearer_auth(ADMIN);
    let passed = passed.send().await.unwrap();
    let allowed = passed.headers().get_all("access-control-allow-origin");
    assert_eq!(allowed.iter().count(), 1);
}
