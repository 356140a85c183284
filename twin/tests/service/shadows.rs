//! Several estimators of a battery: one whose numbers count, and others beside it.

use rovi_common::{news::BatteryState, subjects, testing};
use serde_json::{Value, json};

use crate::{
    bus::Bus,
    http::{register, with_hub},
    rows::{DOCUMENT, drive, frames, uninterrupted},
    twin::{PATIENCE, Twin, assert_same_state, settings},
};

/// The document with another belief in the beginning.
pub(crate) fn other_document() -> String {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
    document["sensor_noise"] = json!(1e-4);
    document.to_string()
}

pub(crate) async fn post(twin: &Twin, path: &str) -> (u16, Value) {
    let client = reqwest::Client::new();
    let sent = client.post(format!("{}{path}", twin.url)).send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn register_both(twin: &Twin) {
    for (name, definition) in [("default", DOCUMENT), ("second", &other_document())] {
        let fields = [
            ("name", "b7"),
            ("definition", definition),
            ("estimator", name),
        ];
        assert_eq!(register(twin, &fields).await.0, 200);
    }
}

/// Waits until one estimator of b7 satisfies a condition.
async fn estimator(twin: &Twin, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
    testing::eventually(PATIENCE, async || {
        let shown = twin.get("/online/b7").await["estimators"][name].clone();
        if condition(&shown) {
            Ok(shown)
        } else {
            Err(shown.to_string())
        }
    })
    .await
}

async fn reached(twin: &Twin, name: &str, seq: i64) -> Value {
    estimator(twin, name, |shown| {
        shown["seq"] == seq && shown["phase"] == "live"
    })
    .await
}

fn metric(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn a_promoted_shadow_runs_on_and_every_twin_shows_its_numbers() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    Box::pin(with_hub(&bus, async {
        register_both(&twin).await;
        let rows = frames("b7", &drive(60), 1, 10);
        bus.publish(&rows[..3]).await;
        let before = reached(&twin, "second", 30).await;
        let status = twin.reached("b7", 30).await;
        assert_eq!(
            (&status["estimator"], &status["role"]),
            (&"default".into(), &"champion".into())
        );
        let catch_ups = metric(&twin.text("/metrics").await, "twin_catch_ups_total");

        let (code, stand) = post(&twin, "/online/b7/second/promote").await;
        assert_eq!(
            (code, &stand["champion"]["estimator"]),
            (200, &"second".into()),
            "{stand}"
        );
        let other = Twin::start(settings(&bus));
        bus.publish(&rows[3..]).await;
        for twin in [&twin, &other] {
            let status = twin
                .status("b7", |status| {
                    status["estimator"] == "second" && status["seq"] == 60
                })
                .await;
            assert_eq!(status["role"], "champion");
            assert_eq!(status["revision"], before["revision"]);
        }
        // It was never interrupted: nobody had to read rows anew.
        let now = metric(&twin.text("/metrics").await, "twin_catch_ups_total");
        assert_eq!(now, catch_ups);
        let shadow = reached(&twin, "default", 60).await;
        assert_eq!(shadow["role"], "shadow");
        assert_same_state(&shadow, &uninterrupted(&rows));

        let stream = bus
            .jetstream
            .get_stream(subjects::STATE_STREAM)
            .await
            .unwrap();
        let subject = "rovi.state.b7";
        testing::eventually(PATIENCE, async || {
            let last = stream
                .get_last_raw_message_by_subject(subject)
                .await
                .unwrap();
            let state = BatteryState::decode(&last.payload).unwrap();
            match state.champion().as_str() {
                "second" => Ok(()),
                name => Err(name.to_owned()),
            }
        })
        .await;
        let estimates = bus.estimates_of("second").await;
        let expected: Vec<i64> = (2..=60).collect();
        assert_eq!(
            estimates, expected,
            "each row once in effect, none left out"
        );
    }))
    .await;
}

#[tokio::test]
async fn a_paused_estimator_stands_still_alone_and_goes_on_where_it_was() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    Box::pin(with_hub(&bus, async {
        register_both(&twin).await;
        let rows = frames("b7", &drive(60), 1, 10);
        bus.publish(&rows[..2]).await;
        reached(&twin, "second", 20).await;
        reached(&twin, "default", 20).await;
        assert_eq!(post(&twin, "/online/b7/default/pause").await.0, 200);
        estimator(&twin, "default", |shown| shown["phase"] == "paused").await;
        bus.publish(&rows[2..4]).await;
        reached(&twin, "second", 40).await;
        let paused = estimator(&twin, "default", |shown| shown["rows_behind"] == 20).await;
        assert_eq!(
            (&paused["seq"], &paused["phase"]),
            (&20.into(), &"paused".into())
        );
        let (code, problem) = post(&twin, "/online/b7/default/promote").await;
        assert_eq!(code, 409, "{problem}");

        assert_eq!(post(&twin, "/online/b7/default/resume").await.0, 200);
        bus.publish(&rows[4..]).await;
        let resumed = reached(&twin, "default", 60).await;
        assert_same_state(&resumed, &uninterrupted(&rows));
        assert_eq!(resumed["revision"], paused["revision"]);

        let (_, stand) = post(&twin, "/online/b7/default/reset").await;
        assert_ne!(stand["revision"], resumed["revision"]);
        let reset = estimator(&twin, "default", |shown| {
            shown["revision"] == stand["revision"] && shown["seq"] == 60
        })
        .await;
        assert_same_state(&reset, &uninterrupted(&rows));
        let (code, problem) = post(&twin, "/online/b7/default/explode").await;
        assert_eq!(code, 404, "{problem}");
        assert_eq!(post(&twin, "/online/b7/nobody/pause").await.0, 404);
    }))
    .await;
}

#[tokio::test]
async fn a_shadow_that_crashes_changes_nothing_for_the_champion_and_cannot_replace_it() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut shadow = crate::python::registration("second", 2, CRASHING);
    shadow.battery = "b7".parse().unwrap();
    bus.put(&shadow).await;
    let rows = frames("b7", &drive(60), 1, 10);
    bus.publish(&rows).await;
    let status = twin.reached("b7", 60).await;
    assert_same_state(&status, &uninterrupted(&rows));
    assert_eq!(status["skipped"], json!({}));
    estimator(&twin, "second", |shown| shown["phase"] == "broken").await;
    let (code, problem) = post(&twin, "/online/b7/second/promote").await;
    assert_eq!(code, 409, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("`second`"),
        "{problem}"
    );
}

const CRASHING: &str = "
class Crashing:
    state_names = ['n']
    def step(self, inputs, outputs):
        raise SystemExit(1)
    @property
    def state(self):
        return self
    def get_mean(self):
        return [0.0]
    def get_covariance(self):
        return [[1.0]]
estimator = Crashing()
";

#[tokio::test]
async fn commands_by_request_give_the_same_results_and_problems_as_http() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    Box::pin(with_hub(&bus, async {
        register_both(&twin).await;
        bus.publish(&frames("b7", &drive(20), 1, 10)).await;
        reached(&twin, "second", 20).await;
        let ask = async |command: &str, body: Value| {
            let subject = format!("rovi.twin.{command}");
            let sent = bus.client.request(subject, body.to_string().into()).await;
            serde_json::from_slice::<Value>(&sent.unwrap().payload).unwrap()
        };
        let of = |estimator: &str| json!({"battery": "b7", "estimator": estimator});
        for action in ["promote", "pause", "resume"] {
            let by_bus = ask(action, of("second")).await;
            assert_eq!(by_bus["status"], 200, "{by_bus}");
            if action == "promote" {
                let paused = by_bus["body"]["paused"].as_bool();
                assert_eq!(
                    (paused, &by_bus["body"]["champion"]["estimator"]),
                    (Some(false), &"second".into())
                );
            }
        }
        for (command, body, path) in [
            ("pause", of("nobody"), "/online/b7/nobody/pause"),
            ("backtest.get", json!({"battery": "b7", "id": "abc"}), ""),
        ] {
            let by_bus = ask(command, body).await;
            assert_eq!(by_bus["status"], 404, "{by_bus}");
            let (code, by_http) = match path {
                "" => (404, twin.get("/online/b7/backtest/abc").await),
                path => post(&twin, path).await,
            };
            assert_eq!((&by_bus["body"], code), (&by_http, 404));
        }
        let wrong = ask("pause", json!({"battery": "b7"})).await;
        assert_eq!(
            (&wrong["status"], &wrong["body"]["field"]),
            (&400.into(), &"estimator".into())
        );
        assert_eq!(ask("explode", of("second")).await["status"], 404);
        let removed = ask("remove", of("second")).await;
        assert_eq!(removed["body"], "removed `second` of `b7`");
    }))
    .await;
}
