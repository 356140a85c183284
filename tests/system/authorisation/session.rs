//! Sessions of browsers: how their cookie is made, for whom it counts, and when it ends.

use futures_util::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::support::{ADMIN, PATIENCE, Secure};

/// Headers of a request, by name.
type Headers<'a> = &'a [(&'a str, &'a str)];

const OWN_PAGE: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn send(secure: &Secure, method: &str, url: &str, headers: Headers<'_>) -> Response {
    let request = secure.stack.http().request(method.parse().unwrap(), url);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.send().await.unwrap()
}

async fn status(secure: &Secure, method: &str, url: &str, headers: Headers<'_>) -> u16 {
    send(secure, method, url, headers).await.status().as_u16()
}

/// Signs in; returns the cookie and its attributes.
async fn sign_in(secure: &Secure, token: &str) -> (String, Vec<String>) {
    let shown = format!("Bearer {token}");
    let url = secure.hub("/auth/session");
    let answer = send(secure, "POST", &url, &[("authorization", &shown)]).await;
    assert_eq!(answer.status().as_u16(), 204);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let mut parts = cookie.split("; ").map(str::to_owned);
    (parts.next().unwrap(), parts.collect())
}

/// Opens the live socket with a cookie; the error is the status of the refusal.
async fn watch(
    secure: &Secure,
    cookie: &str,
    origin: Option<&str>,
) -> Result<
    impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin + use<>,
    String,
> {
    let url = secure.hub("/ws").replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("cookie", cookie.parse().unwrap());
    if let Some(origin) = origin {
        headers.insert("origin", origin.parse().unwrap());
    }
    let connected = connect_async(request).await;
    connected
        .map(|(socket, _)| socket)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_session_counts_for_both_services_and_ends_with_its_token() {
    let secure = Secure::start().await;
    let (id, token) = secure.token(&["engineer:tenant=acme"], Some(600)).await;
    let (cookie, attributes) = sign_in(&secure, &token).await;
    for wanted in ["Path=/", "HttpOnly", "SameSite=Strict"] {
        assert!(attributes.iter().any(|one| one == wanted), "{attributes:?}");
    }
    let age = attributes
        .iter()
        .find_map(|one| one.strip_prefix("Max-Age="));
    let age: u32 = age.unwrap().parse().unwrap();
    assert!((1..=600).contains(&age), "{age}");

    for url in [secure.hub("/auth/me"), secure.twin("/auth/me")] {
        let me: Value = send(&secure, "GET", &url, &[("cookie", &cookie)])
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(me["grants"], json!(["engineer:tenant=acme"]));
    }
    let own = secure.hub("");
    let mut socket = watch(&secure, &cookie, Some(&own)).await.unwrap();
    secure.revoke(&id).await;
    let closed = async {
        loop {
            if let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() {
                return u16::from(frame.code);
            }
        }
    };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    assert_eq!(closed.unwrap(), 4401);
    let me = secure.hub("/auth/me");
    assert_eq!(
        status(&secure, "GET", &me, &[("cookie", &cookie)]).await,
        401
    );
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn a_session_counts_for_own_pages_alone() {
    let secure = Secure::start().await;
    secure.upload("b7").await;
    let (cookie, attributes) = sign_in(&secure, ADMIN).await;
    assert!(attributes.iter().any(|one| one == "Max-Age=43200"));
    let shown = ("cookie", cookie.as_str());
    let origin = secure.hub("");
    let own = ("origin", origin.as_str());
    let put = secure.hub("/auth/batteries/b7");
    let rows = secure.hub("/db/b7/rows");
    let foreign: [Headers; 5] = [
        &[shown],
        &[shown, ("origin", "https://elsewhere.example")],
        &[shown, ("origin", "null")],
        &[shown, own, ("sec-fetch-site", "same-site")],
        &[shown, ("sec-fetch-site", "cross-site")],
    ];
    for headers in foreign {
        assert_eq!(
            status(&secure, "DELETE", &rows, headers).await,
            403,
            "{headers:?}"
        );
        assert_eq!(
            status(&secure, "PUT", &put, headers).await,
            403,
            "{headers:?}"
        );
    }
    // Not even reading is for pages of another port; the twin is asked by ours alone, too.
    let headers = [shown, ("sec-fetch-site", "same-site")];
    for url in [
        &rows,
        &secure.hub("/online/status"),
        &secure.twin("/online/status"),
    ] {
        assert_eq!(status(&secure, "GET", url, &headers).await, 403, "{url}");
    }
    let told = send(&secure, "DELETE", &rows, &[shown])
        .await
        .text()
        .await
        .unwrap();
    assert!(
        told.contains("own pages") && told.contains("Authorization"),
        "{told}"
    );
    for origin in [None, Some("https://elsewhere.example")] {
        let refused = watch(&secure, &cookie, origin).await.err().unwrap();
        assert!(refused.contains("403"), "{refused}");
    }

    for headers in [[shown, own], [shown, OWN_PAGE]] {
        let request = secure
            .stack
            .http()
            .put(&put)
            .json(&json!({"tags": ["lab"]}));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    }
    assert_eq!(status(&secure, "GET", &rows, &[shown]).await, 200);
    // A credential that is shown as such goes before the cookie.
    let wrong = ("authorization", "Bearer wrong");
    assert_eq!(status(&secure, "GET", &rows, &[shown, wrong]).await, 401);
}

#[tokio::test]
async fn only_what_counts_signs_in_and_everybody_signs_out() {
    let secure = Secure::start().await;
    let url = secure.hub("/auth/session");
    let (_, made) = secure
        .ask("POST", &secure.hub("/auth/ticket"), ADMIN, &Value::Null)
        .await;
    let ticket = made["ticket"].as_str().unwrap();
    for (shown, expected) in [("rovi_wrong", 401), (ticket, 400)] {
        let shown = format!("Bearer {shown}");
        let answer = send(&secure, "POST", &url, &[("authorization", &shown)]).await;
        assert_eq!(answer.status().as_u16(), expected);
        assert!(!answer.headers().contains_key("set-cookie"));
    }
    assert_eq!(status(&secure, "POST", &url, &[]).await, 401);
    sign_in(&secure, &secure.issuer.jwt(&json!({}))).await;

    let answer = send(
        &secure,
        "DELETE",
        &url,
        &[("cookie", "rovi_session=x"), OWN_PAGE],
    )
    .await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(
        cookie.starts_with("rovi_session=; Path=/; Max-Age=0;"),
        "{cookie}"
    );
}

#[tokio::test]
async fn no_answer_is_framed_sniffed_or_read_by_others() {
    let secure = Secure::start().await;
    let origin = ("origin", "https://elsewhere.example");
    for base in [secure.hub(""), secure.twin("")] {
        for path in ["/", "/login", "/docs/", "/health", "/auth/me", "/nowhere"] {
            let answer = send(&secure, "GET", &format!("{base}{path}"), &[origin]).await;
            let headers = answer.headers();
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let policy = header("content-security-policy").unwrap_or_default();
            let place = format!("{base}{path}: {headers:?}");
            assert!(policy.contains("default-src 'none'"), "{place}");
            assert!(policy.contains("frame-ancestors 'none'"), "{place}");
            assert!(!policy.contains("script-src 'self' '"), "{place}");
            assert_eq!(header("x-content-type-options"), Some("nosniff"), "{place}");
            assert_eq!(header("x-frame-options"), Some("DENY"), "{place}");
            assert!(header("referrer-policy").is_some(), "{place}");
            assert_eq!(header("access-control-allow-origin"), None, "{place}");
        }
    }
}
