//! Every line of the table of routes with every kind of credential.

use futures_util::{StreamExt, stream};
use rovi_common::{
    auth::{Need, Role, Service},
    clock,
    testing::eventually,
};
use serde_json::json;
use system_tests::Stack;

use super::support::{ADMIN, PATIENCE, Secure};

const BATTERY: &str = "acme-1";

/// What is shown, and what it gives for [`BATTERY`].
struct Credential {
    name: &'static str,
    token: Option<String>,
    gives: Gives,
    /// Where it is the cookie of a browser: what that says of the page that asks.
    site: Option<&'static str>,
}

impl Credential {
    /// The same as a browser shows it for a page.
    fn in_browser(self, name: &'static str, site: &'static str) -> Self {
        let site = Some(site);
        Self { name, site, ..self }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    /// It does not count.
    Nothing,
    /// A role for the tenant of the battery.
    Tenant(Role),
    /// Much, but for others: the battery may not be known of.
    Elsewhere,
    /// No role for anything.
    NoRole,
    /// Everything.
    All(Role),
    /// Nothing to the page that asks.
    NotHere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The handler answers.
    Passes,
    Unknown,
    Forbidden,
    /// As if there were no such battery.
    Hidden,
}

#[expect(clippy::too_many_lines, reason = "a list reads best as one")]
async fn credentials(secure: &Secure) -> Vec<Credential> {
    let past = clock::now_us() / 1_000_000 - 3600;
    let issuer = &secure.issuer;
    let (revoked_id, revoked) = secure.token(&["admin"], None).await;
    secure.revoke(&revoked_id).await;
    let (_, expired) = secure.token(&["admin"], Some(1)).await;
    for url in [secure.hub("/auth/me"), secure.twin("/auth/me")] {
        for token in [&revoked, &expired] {
            eventually(PATIENCE, || async {
                let (status, told) = secure.ask("GET", &url, token, &json!(null)).await;
                if status == 401 {
                    Ok(())
                } else {
                    Err(told.to_string())
                }
            })
            .await;
        }
    }
    let made = |grants: &'static str| async move { Some(secure.token(&[grants], None).await.1) };
    let some = |name, token: &str| Credential {
        name,
        token: Some(token.to_owned()),
        gives: Gives::Nothing,
        site: None,
    };
    let with = |name, token, gives| Credential {
        name,
        token,
        gives,
        site: None,
    };
    vec![
        with("none", None, Gives::Nothing),
        some("malformed", "rovi_x"),
        some(
            "made up",
            &format!("rovi_{}_{}", "0".repeat(16), "0".repeat(64)),
        ),
        some("expired", &expired),
        some("expired JWT", &issuer.jwt(&json!({"exp": past}))),
        some("JWT of later", &issuer.jwt(&json!({"nbf": past + 7200}))),
        some(
            "wrong issuer",
            &issuer.jwt(&json!({"iss": "https://else.example"})),
        ),
        some("wrong audience", &issuer.jwt(&json!({"aud": "others"}))),
        some("alg none", &issuer.unsigned()),
        some(
            "HMAC signed with the public key",
            &issuer.signed_with_public_key(),
        ),
        some("revoked", &revoked),
        some("", &revoked).in_browser("session of a revoked token", "same-origin"),
        with(
            "",
            made("engineer:tenant=acme").await,
            Gives::Tenant(Role::Engineer),
        )
        .in_browser("session of an engineer", "same-origin"),
        with("", Some(ADMIN.to_owned()), Gives::NotHere)
            .in_browser("session of an admin, another port asking", "same-site"),
        with("", Some(ADMIN.to_owned()), Gives::NotHere)
            .in_browser("session of an admin, another site asking", "cross-site"),
        with(
            "reader",
            made("reader:tenant=acme").await,
            Gives::Tenant(Role::Reader),
        ),
        with(
            "uploader",
            made("uploader:tenant=acme").await,
            Gives::Tenant(Role::Uploader),
        ),
        with(
            "engineer",
            made("engineer:tenant=acme").await,
            Gives::Tenant(Role::Engineer),
        ),
        with(
            "tenant's admin",
            made("admin:tenant=acme").await,
            Gives::Tenant(Role::Admin),
        ),
        with(
            "other tenant",
            made("admin:tenant=beta").await,
            Gives::Elsewhere,
        ),
        with(
            "other battery",
            made("admin:battery=acme-2").await,
            Gives::Elsewhere,
        ),
        with("other tag", made("admin:tag=lab").await, Gives::Elsewhere),
        with(
            "reader of all",
            made("reader").await,
            Gives::All(Role::Reader),
        ),
        with("admin", Some(ADMIN.to_owned()), Gives::All(Role::Admin)),
        with("", Some(ADMIN.to_owned()), Gives::All(Role::Admin))
            .in_browser("session of an admin", "same-origin"),
        with(
            "JWT of an admin",
            Some(issuer.jwt(&json!({}))),
            Gives::All(Role::Admin),
        ),
        with(
            "JWT without grants",
            Some(issuer.jwt(&json!({"rovi_grants": []}))),
            Gives::NoRole,
        ),
    ]
}

fn expected(need: Need, path: &str, gives: Gives) -> Expected {
    use Expected::{Forbidden, Hidden, Passes, Unknown};
    if need == Need::Nothing {
        return Passes;
    }
    let has = match gives {
        Gives::Nothing => return Unknown,
        Gives::NotHere => return Forbidden,
        Gives::Tenant(role) | Gives::All(role) => Some(role),
        Gives::Elsewhere | Gives::NoRole => None,
    };
    let for_battery = |role| match has {
        Some(has) if has >= role => Passes,
        Some(_) => Forbidden,
        None => Hidden,
    };
    match need {
        Need::Nothing | Need::Known | Need::Listed(_) | Need::Forwarded => Passes,
        Need::All(role) => match gives {
            Gives::All(has) if has >= role => Passes,
            _ => Forbidden,
        },
        Need::Battery(role) => for_battery(role),
        Need::Named(role) => match path {
            // Whoever administers nothing knows of no tokens.
            "/auth/tokens/{token}" => Hidden,
            // Whoever has the role for nothing is not even heard.
            "/online/register" if gives == Gives::NoRole => Forbidden,
            // What one sends tells nothing about others.
            "/auth/tokens" | "/db/register" if has.is_none_or(|has| has < role) => Forbidden,
            _ => for_battery(role),
        },
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let mut stack = Stack::servers();
    // Many ask at once for what the hub does two of at a time.
    stack.set_variable("ROVI_HUB_FILES", "100");
    let secure = Secure::over(stack).await;
    secure.upload(BATTERY).await;
    let credentials = credentials(&secure).await;
    let mut wrong = Vec::new();
    for (service, base) in [
        (Service::Hub, secure.hub("")),
        (Service::Twin, secure.twin("")),
        (Service::Twin, secure.hub("")),
    ] {
        for (method, path, need) in service.lines() {
            let is_passed_on = service == Service::Twin && base == secure.hub("");
            if is_passed_on && !path.starts_with("/online") {
                continue;
            }
            let asked = credentials.iter().map(|credential| async {
                let found = ask(&secure, (method, &base, path), credential).await;
                // The hub asks everybody who they are before it passes anything on.
                let nothing = is_passed_on && *need == Need::Nothing;
                let need = if nothing { Need::Known } else { *need };
                let expected = expected(need, path, credential.gives);
                let place = format!("{method} {base}{path} with {}", credential.name);
                (found != expected).then(|| format!("{place}: {found:?}, not {expected:?}"))
            });
            // No more at once than the hub allows exports.
            let asked = stream::iter(asked).buffered(3);
            wrong.extend(asked.collect::<Vec<_>>().await.into_iter().flatten());
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cells:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[expect(
    clippy::too_many_lines,
    reason = "what each route is sent stands in one place"
)]
async fn ask(
    secure: &Secure,
    (method, base, path): (&str, &str, &str),
    credential: &Credential,
) -> Expected {
    // Each has a rule of its own, since some may remove it.
    let named = credential.name.chars().filter(char::is_ascii_alphanumeric);
    let rule_name = format!("acme-{}", named.collect::<String>());
    let rule = json!({
        "batteries": [BATTERY], "severity": "info",
        "condition": {"kind": "stale", "after_s": 1e9},
    });
    if path.ends_with("{rule}") {
        let url = secure.twin(&format!("/online/alerts/rules/{rule_name}"));
        let (status, told) = secure.ask("PUT", &url, ADMIN, &rule).await;
        assert_eq!(status, 200, "{told}");
    }
    let url = [
        ("{battery}", BATTERY),
        ("{rule}", rule_name.as_str()),
        ("{_:.*}", ""),
        ("{token}", "0"),
    ];
    let url = url
        .iter()
        .fold(format!("{base}{path}"), |url, (name, value)| {
            url.replace(name, value)
        });
    let url = url.replace(['{', '}'], "");
    let client = secure.stack.http();
    let mut request = client.request(method.parse().unwrap(), &url);
    if let Some(token) = &credential.token {
        request = match credential.site {
            Some(site) => request
                .header("cookie", format!("rovi_session={token}"))
                .header("sec-fetch-site", site),
            None => request.bearer_auth(token),
        };
    }
    let request = match (method, path) {
        ("POST", "/auth/tokens") => request.json(&json!({
            "name": "n", "grants": ["reader:battery=acme-1"], "expires_s": 60,
        })),
        ("POST", "/db/register") => request.json(&json!({"name": BATTERY})),
        ("POST", "/online/register") => request.form(&[("name", BATTERY), ("definition", "{}")]),
        ("PUT", "/online/alerts/rules/{rule}") => request.json(&rule),
        _ => request,
    };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let is_stream = answer
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream");
    let text = if is_stream {
        String::new()
    } else {
        answer.text().await.unwrap()
    };
    let is_hidden = [
        "No such dataset: acme-1",
        "there is no alert rule",
        "there is no such token",
    ]
    .iter()
    .any(|words| text.contains(words));
    match status {
        401 => Expected::Unknown,
        403 => Expected::Forbidden,
        404 if is_hidden => Expected::Hidden,
        405 | 500 | 503 => panic!("{method} {url} with {}: {status} {text}", credential.name),
        _ => Expected::Passes,
    }
}
