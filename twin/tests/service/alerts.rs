//! Alerts: raised and cleared once, told, and posted.

use std::sync::{Arc, Mutex, mpsc};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use futures_util::StreamExt;
use rovi_common::{
    alerts::{AlertRule, AlertRuleReply, DeleteAlertRule, Episode, PutAlertRule, Severity},
    news::ASYNC_API,
    streams, subjects,
    testing::eventually,
};
use serde_json::{Value, json};

use crate::{
    bus::Bus,
    hub::take_requests,
    rows::{Row, frame},
    twin::{PATIENCE, Twin, settings},
};

/// Puts a rule into the bucket, as the hub does.
async fn rule(bus: &Bus, name: &str, revision: i64, definition: Value) {
    let name: rovi_common::name::EstimatorName = name.parse().unwrap();
    let bucket = streams::bucket(&bus.jetstream, subjects::ALERT_RULES_BUCKET, &bus.settings);
    let rule = AlertRule {
        rule: name.clone(),
        revision,
        definition: serde_json::from_value(definition).unwrap(),
        changed: 0,
    };
    let value = serde_json::to_vec(&rule).unwrap();
    let bucket = bucket.await.unwrap();
    bucket.put(name.to_string(), value.into()).await.unwrap();
}

fn low_voltage() -> Value {
    json!({"condition": {"kind": "threshold", "value": "voltage", "below": 3.0, "hysteresis": 0.2}})
}

async fn row(bus: &Bus, seq: i64, voltage: f64) {
    let row: [Row; 1] = [[1.0, 1.0, voltage, 25.0]];
    bus.publish(&[frame("b7", (1, 1), seq, &row)]).await;
}

/// Waits for that many events and returns them all.
async fn events(bus: &Bus, count: u64) -> Vec<Value> {
    let stream = eventually(PATIENCE, async || {
        let stream = bus.jetstream.get_stream(subjects::EVENTS_STREAM).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let found = stream.cached_info().state.messages;
        if found >= count {
            Ok(stream)
        } else {
            Err(format!("{found} events"))
        }
    })
    .await;
    let mut events = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        events.push(serde_json::from_slice(&message.payload).unwrap());
    }
    events
}

/// Waits until the alerts of a twin satisfy a condition.
async fn alerts(twin: &Twin, condition: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(PATIENCE, async || {
        let alerts = twin.get("/online/alerts").await;
        match alerts.as_array() {
            Some(all) if condition(all) => Ok(all.clone()),
            _ => Err(alerts.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn an_alert_begins_and_ends_once_also_over_a_crash_and_with_two_twins() {
    let bus = Bus::start().await;
    rule(&bus, "low", 1, low_voltage()).await;
    let first = Twin::start(settings(&bus));
    row(&bus, 1, 2.9).await;
    events(&bus, 1).await;
    alerts(&first, |all| all.len() == 1 && all[0]["is_told"] == true).await;
    first.kill();

    let twins = [Twin::start(settings(&bus)), Twin::start(settings(&bus))];
    for twin in &twins {
        alerts(twin, |all| all.len() == 1 && all[0]["is_active"] == true).await;
    }
    // Within the hysteresis it lasts.
    row(&bus, 2, 3.1).await;
    row(&bus, 3, 3.3).await;
    events(&bus, 2).await;
    row(&bus, 4, 2.5).await;
    let told = events(&bus, 3).await;
    let mut schema: Value = serde_json::from_str(ASYNC_API).unwrap();
    schema["$ref"] = "#/components/schemas/AlertEvent".into();
    let schema = jsonschema::validator_for(&schema).unwrap();
    assert!(told.iter().all(|event| schema.is_valid(event)), "{told:?}");
    let told: Vec<_> = told
        .iter()
        .map(|one| (&one["type"], &one["episode"], &one["seq"]))
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["alert_raised", 1, 1],
            ["alert_cleared", 1, 3],
            ["alert_raised", 2, 4]
        ])
    );
    for twin in &twins {
        let all = alerts(twin, |all| all.len() == 1 && all[0]["episode"] == 2).await;
        assert_eq!(all[0]["severity"], "warning");
    }
}

#[tokio::test]
async fn a_removed_rule_ends_its_alerts_and_silence_is_noticed() {
    let bus = Bus::start().await;
    let definition = json!({
        "condition": {"kind": "stale", "after_s": 1.0}, "severity": "critical", "batteries": ["b7"],
    });
    rule(&bus, "silent", 1, definition).await;
    let twin = Twin::start(settings(&bus));
    row(&bus, 1, 3.5).await;
    let told = events(&bus, 1).await;
    assert_eq!(
        (&told[0]["type"], &told[0]["severity"]),
        (&"alert_raised".into(), &"critical".into())
    );
    rule(&bus, "silent", 2, Value::Null).await;
    let told = events(&bus, 2).await;
    assert_eq!(told[1]["type"], "alert_cleared");
    assert_eq!(told[1]["detail"], "the rule was removed");
    assert_eq!(twin.get("/online/alerts?active=true").await, json!([]));
}

#[tokio::test]
async fn the_alerts_of_a_deleted_battery_end() {
    let bus = Bus::start().await;
    rule(&bus, "low", 1, low_voltage()).await;
    let twin = Twin::start(settings(&bus));
    row(&bus, 1, 2.9).await;
    events(&bus, 1).await;
    // As the hub does.
    let subject = subjects::state_of(&"b7".parse().unwrap());
    let ended = bus.jetstream.publish(subject, "".into()).await.unwrap();
    ended.await.unwrap();
    let told = events(&bus, 2).await;
    assert_eq!(told[1]["type"], "alert_cleared");
    assert_eq!(told[1]["detail"], "the battery was deleted");
    assert_eq!(twin.get("/online/alerts?active=true").await, json!([]));
}

#[tokio::test]
async fn a_change_that_was_written_and_not_told_is_told_by_the_next_twin() {
    let bus = Bus::start().await;
    rule(&bus, "low", 1, low_voltage()).await;
    let bucket = streams::bucket(&bus.jetstream, subjects::ALERTS_BUCKET, &bus.settings);
    let bucket = bucket.await.unwrap();
    let episode = Episode {
        rule: "low".parse().unwrap(),
        revision: 1,
        battery: "b7".parse().unwrap(),
        episode: 4,
        severity: Severity::Info,
        is_active: true,
        raised: 1_000_000,
        cleared: None,
        detail: "voltage is low".to_owned(),
        value: Some(2.0),
        epoch: 1,
        seq: 7,
        is_told: false,
    };
    let value = serde_json::to_vec(&episode).unwrap();
    bucket.put("low.b7", value.clone().into()).await.unwrap();
    streams::ensure_events(&bus.jetstream, &bus.settings)
        .await
        .unwrap();
    let twin = Twin::start(settings(&bus));
    let told = events(&bus, 1).await;
    assert_eq!(
        (&told[0]["type"], &told[0]["episode"]),
        (&"alert_raised".into(), &4.into())
    );
    alerts(&twin, |all| all[0]["is_told"] == true).await;
    // Told long ago, and only the word of it was lost: the stream is asked.
    bucket.put("low.b7", value.into()).await.unwrap();
    alerts(&twin, |all| all[0]["is_told"] == true).await;
    assert_eq!(events(&bus, 1).await.len(), 1);
}

/// Somebody who takes what is posted, and fails at first.
struct Receiver {
    url: String,
    posted: Arc<Mutex<Vec<(String, Value)>>>,
    handle: ServerHandle,
}

impl Receiver {
    fn start() -> Self {
        let (tell, told) = mpsc::channel();
        let posted: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = web::Data::from(Arc::clone(&posted));
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(log.clone())
                        .route("/hook", web::post().to(take))
                });
                let server = server.workers(1).disable_signals();
                let server = server.bind(("127.0.0.1", 0)).unwrap();
                let address = server.addrs()[0];
                let running = server.run();
                tell.send((address, running.handle())).unwrap();
                running.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        let url = format!("http://{address}/hook");
        Self {
            url,
            posted,
            handle,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

async fn take(
    log: web::Data<Mutex<Vec<(String, Value)>>>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let signature = request.headers().get("rovi-signature").unwrap();
    let signature = signature.to_str().unwrap();
    let mut log = log.lock().unwrap();
    log.push((signature.to_owned(), serde_json::from_slice(&body).unwrap()));
    if log.len() == 1 {
        HttpResponse::InternalServerError().finish()
    } else {
        HttpResponse::Ok().finish()
    }
}

#[tokio::test]
async fn a_webhook_is_posted_signed_until_it_is_taken() {
    let bus = Bus::start().await;
    let receiver = Receiver::start();
    let folder = std::env::temp_dir().join(format!("rovi-secret-{}", std::process::id()));
    std::fs::write(&folder, "secret\n").unwrap();
    let mut definition = low_voltage();
    definition["webhook"] = receiver.url.clone().into();
    rule(&bus, "low", 1, definition).await;
    let mut settings = settings(&bus);
    settings.alerts.webhook_secret_file = Some(folder.clone());
    settings.alerts.webhook_allow = vec!["127.0.0.0/8".to_owned()];
    let twin = Twin::start(settings);
    // The consumer of events exists before anything happens.
    eventually(PATIENCE, async || {
        let stream = bus.jetstream.get_stream(subjects::EVENTS_STREAM).await?;
        stream.consumer_info("webhooks").await?;
        Ok::<(), async_nats::Error>(())
    })
    .await;
    row(&bus, 1, 2.9).await;
    eventually(PATIENCE, async || {
        let count = receiver.posted.lock().unwrap().len();
        if count >= 2 {
            Ok(())
        } else {
            Err(format!("{count} posts"))
        }
    })
    .await;
    let posted = receiver.posted.lock().unwrap().clone();
    assert_eq!(posted[0].1, posted[1].1);
    assert_eq!(posted[1].1["type"], "alert_raised");
    assert!(posted[1].0.starts_with("t=") && posted[1].0.contains(",v1="));
    drop(twin);
    std::fs::remove_file(folder).unwrap();
}

/// Commits rules as the hub does.
async fn commit_rules(bus: &Bus, mut requests: async_nats::Subscriber) {
    while let Some(request) = requests.next().await {
        let done = |rule, definition| {
            AlertRuleReply::Done(Box::new(AlertRule {
                rule,
                revision: 1,
                definition,
                changed: 0,
            }))
        };
        let reply = if request.subject.as_str() == subjects::PUT_ALERT_RULE {
            let put: PutAlertRule = serde_json::from_slice(&request.payload).unwrap();
            done(put.rule, Some(put.definition))
        } else {
            let delete: DeleteAlertRule = serde_json::from_slice(&request.payload).unwrap();
            if delete.rule.as_str() == "unknown" {
                AlertRuleReply::NotFound
            } else {
                done(delete.rule, None)
            }
        };
        let bytes = serde_json::to_vec(&reply).unwrap();
        let inbox = request.reply.unwrap();
        bus.client.publish(inbox, bytes.into()).await.unwrap();
    }
}

#[tokio::test]
async fn rules_are_made_shown_and_removed_and_wrong_ones_are_refused_by_field() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    let client = reqwest::Client::new();
    let url = |rule: &str| format!("{}/online/alerts/rules/{rule}", twin.url);
    let put = |rule: &str, body: Value| client.put(url(rule)).json(&body).send();
    let work = async {
        let made = put("low", low_voltage()).await.unwrap();
        assert_eq!(made.status(), 200);
        let made: Value = made.json().await.unwrap();
        assert_eq!(
            (&made["rule"], &made["condition"]["below"]),
            (&"low".into(), &3.0.into())
        );
        assert_eq!(twin.get("/online/alerts/rules/low").await, made);
        assert_eq!(twin.get("/online/alerts/rules").await, json!([made]));
        let mut hook = low_voltage();
        hook["webhook"] = "http://127.0.0.1/".into();
        for (body, field) in [
            (
                json!({"condition": {"kind": "threshold", "value": "v"}}),
                "condition",
            ),
            (hook, "webhook"),
        ] {
            let refused = put("bad", body).await.unwrap();
            assert_eq!(refused.status(), 400);
            let problem: Value = refused.json().await.unwrap();
            assert_eq!(problem["field"], field);
        }
        let removed = client.delete(url("low")).send().await.unwrap();
        assert_eq!(removed.status(), 200);
        assert_eq!(twin.get("/online/alerts/rules").await, json!([]));
        let unknown = client.delete(url("unknown")).send().await.unwrap();
        assert_eq!(unknown.status(), 404);
    };
    // The hub must listen before it is asked.
    let requests = take_requests(&bus).await;
    tokio::select! {
        () = commit_rules(&bus, requests) => unreachable!("the hub serves for ever"),
        () = work => {}
    }
}
