//! The life of rows, estimates, corrections, alerts and backtests over a NATS that asks everybody for
//! credentials and a PostgreSQL in which the hub is no superuser: nothing that a service does is
//! missing in the table of `rovi_common::rights`, or the end of the stack says what NATS refused.

use std::time::Duration;

use futures_util::StreamExt;
use rovi_common::{
    rights::{Party, seed::Seed},
    streams,
    testing::{self, eventually},
    tls::Trust,
};
use rovicli::{
    bus_credentials::BusCredentials,
    simulation::{Plan, estimator_document},
};
use serde_json::{Value, json};
use system_tests::{Stack, hub::HubProcess, twin::TwinProcess};

use super::{
    database_roles,
    support::{ADMIN, PATIENCE, SERVICE, Secure},
};

const ROWS: i64 = 300;

/// A stack of which NATS lets nobody in without a seed.
async fn guarded() -> (Secure, Seed) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("nats");
    let acme = "acme".parse().unwrap();
    let bus = BusCredentials::bring_up_to_date(&place, &[acme]).unwrap();
    let reader = bus.seed_file(&"reader-acme".parse::<Party>().unwrap());
    let reader = Seed::read("seed", &reader).unwrap();
    let nats = testing::guarded_nats(bus.users());
    let mut stack = Stack::with(folder, (nats, bus));
    database_roles::make(&mut stack);
    (Secure::over(stack).await, reader)
}

impl Secure {
    async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, told) = self.ask(method, &self.hub(path), ADMIN, body).await;
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {told}"
        );
        told
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, || async {
            let url = self.hub(path);
            let (status, told) = self.ask("GET", &url, ADMIN, &Value::Null).await;
            if status == 200 && wanted(&told) {
                Ok(told)
            } else {
                Err(format!("{path}: {status} {told}"))
            }
        })
        .await
    }

    async fn upload_rows(&self, battery: &str, from: i64) {
        let row = |n: i64| {
            #[expect(clippy::cast_precision_loss, reason = "a few rows")]
            let time = (from + n) as f64;
            json!({"test_time": time, "current": -0.5, "voltage": 3.7, "temperature": 25.0})
        };
        let rows: Vec<Value> = (0..ROWS).map(row).collect();
        self.done("POST", &format!("/db/upload/{battery}"), &json!(rows))
            .await;
    }

    async fn register(&self, battery: &str, definition: &str) {
        let form = [("name", battery), ("definition", definition)];
        let request = self.stack.http().post(self.hub("/online/register"));
        let answer = request.bearer_auth(ADMIN).form(&form).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn services_with_their_credentials_live_whole_lives_and_want_no_more_than_they_are_given() {
    let (secure, reader) = guarded().await;
    let url = secure.stack.nats.server.url().parse().unwrap();
    let reader = streams::connect_as(&url, "reader-acme", &Trust::default(), Some(&reader))
        .await
        .unwrap();
    let mut heard = reader.subscribe("rovi.tenant.acme.state.*").await.unwrap();

    // Hops 1 to 7, for two tenants, with an alert.
    let document = estimator_document(&Plan::default()).to_string();
    let rule = json!({
        "batteries": ["acme-1"], "severity": "info",
        "condition": {"kind": "threshold", "value": "voltage", "above": 1.0},
    });
    secure
        .done("PUT", "/online/alerts/rules/acme-high", &rule)
        .await;
    for battery in ["beta-1", "acme-1"] {
        secure.upload_rows(battery, 0).await;
        secure.register(battery, &document).await;
        secure
            .until("/online/status", |all| all[battery]["seq"] == ROWS)
            .await;
    }
    secure
        .until("/online/alerts?active=true", |all| {
            all.to_string().contains("acme-high")
        })
        .await;
    let estimates = "/db/acme-1/estimates?limit=1000";
    secure
        .until(estimates, |page| {
            page["last_seq"] == ROWS && !page["seq"].as_array().unwrap().is_empty()
        })
        .await;
    let state = tokio::time::timeout(PATIENCE, heard.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(state.subject.as_str(), "rovi.tenant.acme.state.acme-1");
    assert!(serde_json::from_slice::<Value>(&state.payload).unwrap()["seq"].is_u64());

    // A correction goes back over the estimates; a candidate is compared over the same rows.
    secure
        .done("PUT", "/db/acme-1/rows/50", &json!({"voltage": 3.6}))
        .await;
    secure
        .until("/online/acme-1", |all| {
            all.to_string().contains("\"corrections\":1")
        })
        .await;
    let request = secure
        .stack
        .http()
        .post(secure.hub("/online/acme-1/backtest"));
    let started = request
        .bearer_auth(ADMIN)
        .form(&[("definition", &document)])
        .send();
    let started: Value = started.await.unwrap().json().await.unwrap();
    let id = started["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{started}"));
    let ended = |one: &Value| one["state"] != "running";
    let ended = secure
        .until(&format!("/online/acme-1/backtest/{id}"), ended)
        .await;
    assert_eq!(ended["state"], "done", "{ended}");

    // Another twin takes its share; missed rows are read back from the streams.
    let settings = second_twin(&secure);
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let mut second = TwinProcess::new(&secure.stack, 2, &secure.stack.hub_url(), &settings);
    second.start("");
    second.ready().await;
    secure.upload_rows("acme-1", ROWS).await;
    secure
        .until("/online/status", |all| all["acme-1"]["seq"] == 2 * ROWS)
        .await;
    let events = secure.hub("/events?battery=acme-1&since=acme-1:1:10");
    let events = secure
        .stack
        .http()
        .get(events)
        .bearer_auth(ADMIN)
        .send()
        .await
        .unwrap();
    let first = events.bytes_stream().next().await.unwrap().unwrap();
    assert!(!first.is_empty());
    assert!(second.stop());

    // Everything is published again, then a battery ends; who did that is kept.
    let hub = HubProcess::new(&secure.stack, 2, &[]);
    let mut rebuild = hub.task(&["relay", "rebuild"]);
    let output = tokio::task::spawn_blocking(move || rebuild.output());
    let output = output.await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    secure
        .done("DELETE", "/db/beta-1?confirm=beta-1", &Value::Null)
        .await;
    secure
        .until("/online/status", |all| all.get("beta-1").is_none())
        .await;
    secure
        .until("/audit", |all| {
            all.to_string().contains("\"service\":\"twin\"")
        })
        .await;
    secure
        .until("/db/services", |all| all.to_string().contains("twin"))
        .await;

    // The reader heard of no other tenant.
    while let Ok(Some(state)) = tokio::time::timeout(Duration::ZERO, heard.next()).await {
        assert_eq!(state.subject.as_str(), "rovi.tenant.acme.state.acme-1");
    }
}

/// Says all it can find, as the reason why it is refused.
const CURIOUS: &str = r"
import os
seen = [repr(dict(os.environ))]
for path in PATHS + ['/proc/self/environ', '/proc/%d/environ' % os.getppid()]:
    try:
        seen.append(open(path).read())
    except OSError:
        pass
for number in range(3, 1024):
    try:
        os.set_blocking(number, False)
        seen.append(repr(os.read(number, 65536)))
    except OSError:
        pass
raise ValueError('seen: ' + ' '.join(seen))
";

#[tokio::test]
async fn a_script_finds_no_credential_of_the_services() {
    let (secure, _reader) = guarded().await;
    secure.upload_rows("acme-1", 0).await;
    let folder = secure.stack.folder().canonicalize().unwrap();
    let seeds = ["datahub", "twin", "operator", "admin"].map(|one| format!("nats/{one}.nk"));
    let tokens = ["service.token", "admin.token"].map(str::to_owned);
    let files: Vec<_> = seeds
        .into_iter()
        .chain(tokens)
        .map(|name| folder.join(name))
        .collect();
    let mut secrets = vec![
        ADMIN.to_owned(),
        SERVICE.to_owned(),
        database_roles::PASSWORD.to_owned(),
    ];
    secrets.extend(
        files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap()),
    );
    let script = format!("PATHS = {files:?}\n{CURIOUS}");
    let form = reqwest::multipart::Form::new()
        .text("name", "acme-1")
        .text("definition", script);
    let request = secure.stack.http().post(secure.hub("/online/register"));
    let answer = request
        .bearer_auth(ADMIN)
        .multipart(form)
        .send()
        .await
        .unwrap();
    let (status, told) = (answer.status(), answer.text().await.unwrap());
    assert!(status == 400 && told.contains("seen: "), "{status} {told}");
    let found = secrets.iter().find(|secret| told.contains(secret.trim()));
    assert_eq!(found, None, "{told}");
}

fn second_twin(secure: &Secure) -> Vec<(&'static str, String)> {
    let file = |name: &str| secure.stack.folder().join(name).display().to_string();
    vec![
        ("AUTH__REQUIRED", "true".to_owned()),
        ("AUTH__SERVICE_TOKEN_FILE", file("service.token")),
        ("AUTH__ADMIN_TOKEN_FILE", file("admin.token")),
    ]
}
