//! Candidates over the hub's rows, beside the champion.

use rovi_common::testing;
use serde_json::{Value, json};

use crate::{
    bus::Bus,
    http::{register, with_hub},
    hub::HubOfRows,
    rows::{DOCUMENT, drive, frames, uninterrupted},
    shadows::{other_document, post},
    twin::{PATIENCE, Twin, settings},
};

const ROWS: u32 = 3000;

fn twin_of(bus: &Bus, hub: &HubOfRows) -> Twin {
    let mut settings = settings(bus);
    settings.hub_url = hub.url.clone();
    Twin::start(settings)
}

async fn start(twin: &Twin, query: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/online/b7/backtest{query}", twin.url);
    let sent = reqwest::Client::new().post(url).form(fields).send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn ended(twin: &Twin, id: &Value) -> Value {
    let path = format!("/online/b7/backtest/{}", id.as_str().unwrap());
    testing::eventually(PATIENCE, async || {
        let shown = twin.get(&path).await;
        if shown["state"] == "running" {
            Err(shown.to_string())
        } else {
            Ok(shown)
        }
    })
    .await
}

/// The root mean square of the innovations of a run that was never interrupted, in volts.
fn rmse() -> f64 {
    let estimates = uninterrupted(&frames("b7", &drive(ROWS), 1, 100)).estimates;
    let innovations = estimates
        .values()
        .map(|bits| f64::from_bits(bits["innovation"]));
    let squares: Vec<f64> = innovations.map(|one| one * one).collect();
    let count = f64::from(u32::try_from(squares.len()).unwrap());
    (squares.iter().sum::<f64>() / count).sqrt()
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn a_candidate_is_compared_with_the_champion_over_the_same_rows_and_promoted() {
    let bus = Bus::start().await;
    let hub = HubOfRows::start(frames("b7", &drive(ROWS), 1, 1));
    let twin = twin_of(&bus, &hub);
    twin.ready("nats").await;
    with_hub(&bus, async {
        let fields = [("name", "b7"), ("definition", DOCUMENT)];
        assert_eq!(register(&twin, &fields).await.0, 200);
        bus.publish(&frames("b7", &drive(ROWS), 1, 100)).await;
        twin.reached("b7", i64::from(ROWS)).await;

        let other = other_document();
        let (code, started) = start(&twin, "", &[("definition", &other)]).await;
        assert_eq!(
            (code, &started["rows_total"]),
            (202, &ROWS.into()),
            "{started}"
        );
        let done = ended(&twin, &started["id"]).await;
        assert_eq!(
            (&done["state"], &done["rows_done"]),
            (&"done".into(), &ROWS.into()),
            "{done}"
        );
        let result = &done["result"];
        assert_eq!(result["rows_compared"], ROWS - 1);
        let champion = &result["champion"];
        let found = champion["voltage"]["rmse"].as_f64().unwrap();
        assert!((found / rmse() - 1.0).abs() < 1e-9, "{found} {}", rmse());
        let status = twin.get("/online/status").await["b7"].clone();
        let soc = status["state_names"].as_array().unwrap();
        let soc = soc.iter().position(|name| name == "soc").unwrap();
        assert_eq!(champion["end"]["soc"]["mean"], status["mean"][soc]);
        let candidate = &result["candidate"];
        assert_ne!(candidate["voltage"], champion["voltage"]);
        assert!(candidate["consistency"]["nis_band"][0].as_f64() < Some(1.0));
        assert_eq!(candidate["steps"], ROWS - 1);
        // Nothing was registered and nothing estimated by that.
        assert_eq!(
            twin.get("/online/b7").await["estimators"]
                .as_object()
                .unwrap()
                .len(),
            1
        );

        let path = format!(
            "/online/b7/backtest/{}/promote",
            started["id"].as_str().unwrap()
        );
        let (code, problem) = post(&twin, &path).await;
        assert_eq!(
            (code, &problem["field"]),
            (400, &"estimator".into()),
            "{problem}"
        );
        let (code, stand) = post(&twin, &format!("{path}?estimator=better")).await;
        assert_eq!(
            (code, &stand["champion"]["estimator"]),
            (200, &"better".into()),
            "{stand}"
        );
        twin.status("b7", |status| {
            status["estimator"] == "better" && status["seq"] == ROWS
        })
        .await;
    })
    .await;
}

/// A command, the fields that it is sent, the status and a word of the answer.
type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], u16, &'c str);

#[tokio::test]
async fn a_range_is_kept_to_and_what_cannot_run_is_told() {
    let bus = Bus::start().await;
    let hub = HubOfRows::start(frames("b7", &drive(200), 1, 1));
    let twin = twin_of(&bus, &hub);
    twin.ready("nats").await;
    let (code, started) = start(&twin, "?seq=101..150", &[("definition", DOCUMENT)]).await;
    assert_eq!(code, 202, "{started}");
    let done = ended(&twin, &started["id"]).await;
    assert_eq!(
        (&done["rows_done"], &done["seq"]),
        (&50.into(), &json!([101, 150]))
    );
    assert_eq!(
        (&done["champion"], &done["result"]["champion"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(done["result"]["rows_compared"], 49);

    let raising = "
class Raising:
    state_names = ['n']
    def step(self, inputs, outputs):
        raise SystemExit('enough')
    def get_mean(self):
        return [0.0]
    def get_covariance(self):
        return [[1.0]]
    state = property(lambda self: self)
estimator = Raising()
";
    let (code, started) = start(&twin, "", &[("definition", raising)]).await;
    assert_eq!(code, 202, "{started}");
    let failed = ended(&twin, &started["id"]).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .starts_with("the candidate"),
        "{failed}"
    );

    let cases: [Case<'_>; 4] = [
        ("", &[("definition", "{}")], 400, "definition"),
        ("", &[("estimator", "nobody")], 404, "estimator"),
        ("?seq=7", &[("definition", DOCUMENT)], 400, "seq"),
        ("?seq=900..", &[("definition", DOCUMENT)], 400, "seq"),
    ];
    for (query, fields, code, field) in cases {
        let (found, problem) = start(&twin, query, fields).await;
        assert_eq!(found, code, "{problem}");
        let named = problem["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{problem}");
    }
    let listed = twin.get("/online/b7/backtest").await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn a_backtest_is_ended_and_forgotten_through_any_twin_and_their_number_is_bounded() {
    let bus = Bus::start().await;
    let hub = HubOfRows::start(frames("b7", &drive(200), 1, 1));
    let mut few = settings(&bus);
    few.hub_url = hub.url.clone();
    few.backtest.jobs = 1.try_into().unwrap();
    few.backtest.kept = 2.try_into().unwrap();
    let twin = Twin::start(few);
    let other = twin_of(&bus, &hub);
    for twin in [&twin, &other] {
        twin.ready("nats").await;
    }
    // A script that takes its time.
    let slow = "
import time
class Slow:
    state_names = ['n']
    def step(self, inputs, outputs):
        time.sleep(0.5)
    def get_mean(self):
        return [0.0]
    def get_covariance(self):
        return [[1.0]]
    state = property(lambda self: self)
estimator = Slow()
";
    let (code, started) = start(&twin, "", &[("definition", slow)]).await;
    assert_eq!(code, 202, "{started}");
    let (code, problem) = start(&twin, "", &[("definition", DOCUMENT)]).await;
    assert_eq!(code, 503, "{problem}");
    let path = format!("/online/b7/backtest/{}", started["id"].as_str().unwrap());
    let url = format!("{}{path}", other.url);
    let client = reqwest::Client::new();
    let ending = client.delete(&url).send().await.unwrap();
    assert_eq!(ending.status().as_u16(), 200);
    let ending = ending.text().await.unwrap();
    let shown = ended(&twin, &started["id"]).await;
    assert_eq!(shown["state"], "cancelled", "{ending}: {shown}");

    // Its place is free again, and the oldest that ended make place.
    let mut newest = Value::Null;
    for _ in 0..3 {
        let started = testing::eventually(PATIENCE, async || {
            match start(&twin, "", &[("definition", DOCUMENT)]).await {
                (202, started) => Ok(started),
                (_, problem) => Err(problem.to_string()),
            }
        })
        .await;
        newest = ended(&twin, &started["id"]).await["id"].clone();
    }
    let listed = twin.get("/online/b7/backtest").await;
    let listed = listed.as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]["id"]), (2, &newest));
    assert_eq!(twin.get(&path).await["status"], 404);
    let forget = format!(
        "{}/online/b7/backtest/{}",
        twin.url,
        newest.as_str().unwrap()
    );
    assert_eq!(
        client
            .delete(&forget)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
    assert_eq!(
        client
            .delete(&forget)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        404
    );
}
