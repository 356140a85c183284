//! Secrets that sing: none shows in logs at the finest level, in answers, in the audit, in metrics, on the
//! bus, or in what programs print.

use std::{process::Command, time::Duration};

use async_nats::Subscriber;
use futures_util::StreamExt;
use rovi_common::{auth::Service, local::ServerProcess, testing::eventually};
use serde_json::{Value, json};
use system_tests::{Stack, binary};
use tokio::time::timeout;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};
use url::Url;

use super::{
    live::connect,
    support::{ADMIN, PATIENCE, SERVICE, Secure},
};

const WEBHOOK_SECRET: &str = "the-canary-secret-of-webhooks";
const WEBHOOK_PATH: &str = "the-canary-path-of-a-webhook";
const NATS_PASSWORD: &str = "the-canary-password-of-nats";
const WRONG: &str = "the-canary-of-one-who-guesses";
/// Of a secret that is longer, its end gives it away as well.
const TELLING_CHARS: usize = 16;

/// What must not show, and what showed it.
#[derive(Default)]
struct Cage {
    secrets: Vec<String>,
    sung: Vec<String>,
}

impl Cage {
    fn hide(&mut self, secret: &str) {
        let end = secret.len().saturating_sub(TELLING_CHARS);
        let telling = secret.get(end..).unwrap_or(secret);
        self.secrets.push(telling.to_owned());
    }

    fn listen(&mut self, place: &str, text: &str) {
        for secret in &self.secrets {
            if let Some((before, _)) = text.split_once(secret.as_str()) {
                let line = before.rsplit('\n').next().unwrap_or_default();
                self.sung.push(format!("{place}: {line}{secret}"));
            }
        }
    }
}

async fn start() -> Secure {
    let mut stack = Stack::servers();
    let secret = stack.folder().join("webhook.secret");
    std::fs::write(&secret, WEBHOOK_SECRET).unwrap();
    let nats = with_password(&stack.nats.server.url());
    stack.set("NATS_URL", &nats);
    stack.set("AUTH__LOCKOUT__FAILURES_PER_MINUTE", "0");
    for (name, value) in [
        ("ROVI_HUB_LOG_FILTER", "trace"),
        ("ROVI_TWIN_LOG", "trace"),
        ("ROVI_TWIN_ALERTS__WEBHOOK_ALLOW", r#"["127.0.0.1"]"#),
        (
            "ROVI_TWIN_ALERTS__WEBHOOK_SECRET_FILE",
            secret.to_str().unwrap(),
        ),
    ] {
        stack.set_variable(name, value);
    }
    Secure::on(stack).await
}

fn with_password(url: &str) -> String {
    let mut url: Url = url.parse().unwrap();
    url.set_username("somebody").unwrap();
    url.set_password(Some(NATS_PASSWORD)).unwrap();
    url.to_string()
}

/// Asks every route of both services, well and badly, and listens to the answers; each credential is
/// shown in another way from route to route.
async fn ask_everything(secure: &Secure, shown: &[&str], cage: &mut Cage) {
    for (service, base) in [
        (Service::Hub, secure.hub("")),
        (Service::Twin, secure.twin("")),
    ] {
        for (at, (method, path, _)) in service.lines().enumerate() {
            // Those end by giving a secret away on purpose, or end never.
            let gives = ["/auth/session", "/auth/tokens", "/auth/ticket"].contains(path);
            if gives || ["/events", "/ws"].contains(path) {
                continue;
            }
            let url = format!("{base}{path}").replace("{battery}", "b7");
            let url = url.replace(['{', '}'], "");
            for (which, token) in shown.iter().enumerate() {
                let client = secure.stack.http();
                let request = client.request(method.parse().unwrap(), &url);
                let request = match (at + which) % 3 {
                    0 => request.bearer_auth(token),
                    1 => request.basic_auth("somebody", Some(token)),
                    _ => request
                        .header("cookie", format!("rovi_session={token}"))
                        .header("sec-fetch-site", "same-origin"),
                };
                let answer = request.body("{no JSON").send().await.unwrap();
                let headers = format!("{:?}", answer.headers());
                let text = headers + &answer.text().await.unwrap();
                cage.listen(&format!("answer of {method} {url}"), &text);
            }
        }
    }
}

/// Opens sockets by every way of showing a credential.
async fn open_sockets(secure: &Secure, token: &str, cage: &mut Cage) {
    for base in [secure.hub(""), secure.twin("")] {
        connect(&format!("{base}/ws"), token).await.unwrap();
        let url = format!("{base}/auth/ticket");
        let (_, made) = secure.ask("POST", &url, token, &Value::Null).await;
        let ticket = made["ticket"].as_str().unwrap();
        cage.hide(ticket);
        let socket = format!("{base}/ws").replacen("http", "ws", 1);
        connect_async(format!("{socket}?ticket={ticket}"))
            .await
            .unwrap();
        let spent = connect_async(format!("{socket}?ticket={ticket}")).await;
        cage.listen("a refused ticket", &spent.unwrap_err().to_string());
        let mut offered = socket.into_client_request().unwrap();
        let protocols = format!("rovi.v1, rovi.bearer.{token}");
        let protocols = HeaderValue::from_str(&protocols).unwrap();
        offered
            .headers_mut()
            .insert("sec-websocket-protocol", protocols);
        let (_, answer) = connect_async(offered).await.unwrap();
        cage.listen(
            "an answer to subprotocols",
            &format!("{:?}", answer.headers()),
        );
    }
}

/// Has a webhook fail, whose path is a secret.
async fn fail_webhook(secure: &Secure) {
    let rule = json!({
        "condition": {"kind": "threshold", "value": "voltage", "above": 1.0},
        "webhook": format!("http://127.0.0.1:9/{WEBHOOK_PATH}"),
    });
    let url = secure.twin("/online/alerts/rules/high");
    let (status, told) = secure.ask("PUT", &url, ADMIN, &rule).await;
    assert_eq!(status, 200, "{told}");
    secure.upload("b8").await;
    eventually(PATIENCE, || async {
        let log = std::fs::read_to_string(secure.stack.log("twin")).unwrap();
        let failed = log.contains("is posted again later");
        failed.then_some(()).ok_or("no webhook failed")
    })
    .await;
}

/// Runs a hub whose servers are away, and returns what it says of that.
async fn hub_without_servers(secure: &Secure) -> String {
    let log = secure.stack.log("lonely");
    let listen = rovi_common::local::free_port().unwrap();
    let mut command = Command::new(binary("datahub"));
    command
        .current_dir(secure.stack.folder())
        .args(["--listen", &format!("127.0.0.1:{listen}")])
        .env("ROVI_HUB_LOG_FILTER", "trace")
        .env(
            "DATABASE_URL",
            format!("postgres://somebody:{NATS_PASSWORD}@127.0.0.1:9/rovi"),
        )
        .env("ROVI_HUB_TWIN_URL", with_password("http://127.0.0.1:9"))
        .env("NATS_URL", with_password("nats://127.0.0.1:9"));
    let lonely = ServerProcess::spawn("datahub", command, &log).unwrap();
    let ready = format!("http://127.0.0.1:{listen}/ready");
    let told = eventually(PATIENCE, || async {
        let answer = secure.stack.http().get(&ready).send().await;
        let told = answer.map_err(|error| error.to_string())?.text().await;
        let told = told.map_err(|error| error.to_string())?;
        let is_told = told.contains("cannot connect") && told.contains("NATS is not connected");
        if is_told { Ok(told) } else { Err(told) }
    })
    .await;
    let mut told = told;
    for path in ["/online/status", "/db/stats"] {
        let url = format!("http://127.0.0.1:{listen}{path}");
        let answer = secure.stack.http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        told += &answer.text().await.unwrap();
    }
    let socket = connect_async(format!("ws://127.0.0.1:{listen}/ws")).await;
    told += &socket.unwrap_err().to_string();
    drop(lonely);
    told + &std::fs::read_to_string(&log).unwrap()
}

/// What programs print that know secrets.
fn printed(secure: &Secure) -> Vec<(String, String)> {
    let mut printed = Vec::new();
    let mut keep = |name: String, mut command: Command| {
        command.env("HOME", secure.stack.folder());
        command.env("NO_COLOR", "1");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.is_empty(), "{name} prints nothing");
        printed.push((name, text));
    };
    for (name, prefix) in [("datahub", "ROVI_HUB"), ("twin", "ROVI_TWIN")] {
        let mut command = Command::new(binary(name));
        command
            .arg("--print-config")
            .env("DATABASE_URL", secure.stack.postgres.server.url());
        command.env(
            format!("{prefix}_NATS_URL"),
            with_password("nats://127.0.0.1:9"),
        );
        let peer = format!("http://somebody:{NATS_PASSWORD}@127.0.0.1:9/");
        command
            .env("ROVI_HUB_TWIN_URL", &peer)
            .env("ROVI_TWIN_HUB_URL", &peer);
        keep(format!("{name} --print-config"), command);
    }
    for args in [
        &["status"][..],
        &["token", "list"],
        &["audit"],
        &["delete", "none", "--yes"],
    ] {
        for token in [ADMIN, WRONG] {
            let mut command = secure.stack.rovicli(args);
            command.env("ROVI_TOKEN", token);
            keep(format!("rovicli {}", args.join(" ")), command);
        }
    }
    printed
}

/// Listens to what was said on the bus so far.
async fn listen_to_bus(mut heard: Subscriber, cage: &mut Cage) {
    let mut messages = 0;
    while let Ok(Some(message)) = timeout(Duration::from_millis(200), heard.next()).await {
        messages += 1;
        let payload = String::from_utf8_lossy(&message.payload);
        let text = format!("{} {:?} {payload}", message.subject, message.headers);
        cage.listen("the bus", &text);
    }
    assert!(messages > 0, "nothing was heard of the bus");
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let secure = start().await;
    let bus = secure.stack.nats.server.url();
    let bus = async_nats::connect(bus).await.unwrap();
    let heard = bus.subscribe(">").await.unwrap();
    secure.upload("b7").await;
    let (id, token) = secure.token(&["engineer"], None).await;
    let jwt = secure.issuer.jwt(&json!({"jti": "known"}));
    let mut cage = Cage::default();
    let database: Url = secure.stack.postgres.server.url().parse().unwrap();
    let database = database.password().unwrap_or_default().to_owned();
    let known = [
        ADMIN,
        SERVICE,
        &token,
        &jwt,
        WRONG,
        WEBHOOK_SECRET,
        NATS_PASSWORD,
        &database,
    ];
    for secret in known.into_iter().filter(|secret| !secret.is_empty()) {
        cage.hide(secret);
    }

    ask_everything(&secure, &[&token, &jwt, WRONG, SERVICE], &mut cage).await;
    open_sockets(&secure, &token, &mut cage).await;
    fail_webhook(&secure).await;
    secure.revoke(&id).await;
    let (status, _) = secure
        .ask("GET", &secure.hub("/auth/me"), &token, &Value::Null)
        .await;
    assert_eq!(status, 401);
    for (name, text) in printed(&secure) {
        cage.listen(&name, &text);
    }
    let lonely = hub_without_servers(&secure).await;
    cage.listen("a hub without its servers", &lonely);

    listen_to_bus(heard, &mut cage).await;
    // The rule has it, and the bus carries rules; logs do not.
    cage.hide(WEBHOOK_PATH);
    for service in ["datahub", "twin"] {
        let log = std::fs::read(secure.stack.log(service)).unwrap();
        assert!(log.len() > 10_000, "{service} logs at its finest");
        cage.listen(service, &String::from_utf8_lossy(&log));
    }
    let sung = cage.sung;
    assert!(
        sung.is_empty(),
        "{} times:\n{}",
        sung.len(),
        sung.join("\n")
    );
}
