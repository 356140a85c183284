//! Registering, refusing and showing over HTTP.

use rovi_common::testing;
use serde_json::{Value, json};
use twin::config::Settings;

use crate::{
    bus::Bus,
    hub::{HubOfRows, commit_registrations, take_requests},
    rows::{DOCUMENT, drive, frames},
    twin::{PATIENCE, Twin, settings},
};

pub(crate) async fn register(twin: &Twin, fields: &[(&str, &str)]) -> (u16, Value) {
    let client = reqwest::Client::new();
    let sent = client
        .post(format!("{}/online/register", twin.url))
        .form(fields)
        .send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Runs a test while a hub commits registrations.
pub(crate) async fn with_hub(bus: &Bus, test: impl Future<Output = ()>) {
    let requests = take_requests(bus).await;
    tokio::select! {
        () = commit_registrations(bus, requests) => panic!("the hub ended"),
        () = test => {}
    }
}

#[tokio::test]
async fn registering_answers_in_words_and_the_estimator_runs() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    with_hub(&bus, async {
        let fields = [("name", "b7"), ("definition", DOCUMENT), ("estimator", "")];
        let (status, words) = register(&twin, &fields).await;
        assert_eq!(status, 200, "{words}");
        let words = words.as_str().unwrap();
        let expected = "joint UKF `default` of `b7`, revision 1: soc, ";
        assert!(words.starts_with(expected), "{words}");
        bus.publish(&frames("b7", &drive(30), 1, 10)).await;
        twin.reached("b7", 30).await;

        let fields = [("name", "unknown"), ("definition", DOCUMENT)];
        let (status, problem) = register(&twin, &fields).await;
        let detail = json!("there is no battery `unknown`");
        assert_eq!((status, &problem["detail"]), (404, &detail));
    })
    .await;
}

#[tokio::test]
async fn state_of_health_is_measured_by_the_metadata_unless_the_document_says_by_what() {
    let bus = Bus::start().await;
    let hub = HubOfRows::start(frames("b7", &drive(1), 1, 1));
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    twin.ready("nats").await;
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut own = document.clone();
    own["nominal_capacity"] = json!(20.0);
    let own = own.to_string();
    with_hub(&bus, async {
        for (battery, definition, told) in [
            ("b7", DOCUMENT, "12.5 A h of the metadata"),
            ("b8", &own, ""),
            ("b9", DOCUMENT, "-1.0, no capacity"),
        ] {
            let fields = [("name", battery), ("definition", definition)];
            let (status, words) = register(&twin, &fields).await;
            assert_eq!(status, 200, "{words}");
            assert!(words.as_str().unwrap().contains(told), "{words}");
            bus.publish(&frames(battery, &drive(30), 1, 10)).await;
        }
        for (battery, nominal, from) in [
            ("b7", Some(12.5), "metadata"),
            ("b8", Some(20.0), "document"),
            ("b9", None, "initial"),
        ] {
            let status = twin.reached(battery, 30).await;
            let health = &status["health"];
            assert_eq!(health["nominal_capacity_from"], from, "{health}");
            let shown = health["nominal_capacity_ah"].as_f64().unwrap();
            if let Some(nominal) = nominal {
                assert_eq!(health["nominal_capacity_ah"], nominal);
            }
            let capacity = status["state_names"].as_array().unwrap().iter();
            let at = capacity.clone().position(|name| name == "q_t.base_values");
            let capacity = status["mean"][at.unwrap()].as_f64().unwrap();
            assert_eq!(health["state_of_health"], json!(capacity / shown));
        }
    })
    .await;
}

#[tokio::test]
async fn a_multipart_form_of_the_original_client_registers() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    with_hub(&bus, async {
        let file = reqwest::multipart::Part::bytes(b"x".to_vec()).file_name("a.csv");
        let form = reqwest::multipart::Form::new()
            .text("name", "b7")
            .text("start_time", "0")
            .text("definition", DOCUMENT)
            .part("files", file);
        let url = format!("{}/online/register?required_time=0", twin.url);
        let sent = reqwest::Client::new().post(url).multipart(form).send();
        let answer = sent.await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let words = answer.text().await.unwrap();
        assert!(words.contains("attached files are not used"), "{words}");
    })
    .await;
}

#[tokio::test]
async fn estimators_of_a_battery_are_shown_and_removed() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    with_hub(&bus, async {
        for estimator in ["default", "second", "third"] {
            let fields = [
                ("name", "b7"),
                ("definition", DOCUMENT),
                ("estimator", estimator),
            ];
            assert_eq!(register(&twin, &fields).await.0, 200);
        }
        bus.publish(&frames("b7", &drive(30), 1, 10)).await;
        let shown = testing::eventually(PATIENCE, async || {
            let shown = twin.get("/online/b7").await;
            if shown["estimators"]["second"]["seq"] == 30 {
                Ok(shown)
            } else {
                Err(shown)
            }
        })
        .await;
        assert_eq!(shown["battery"], "b7");
        assert_eq!(
            shown["estimators"]["default"]["definition"]["kind"],
            "joint"
        );

        let client = reqwest::Client::new();
        let delete = async |path: &str| {
            let sent = client.delete(format!("{}{path}", twin.url)).send();
            sent.await.unwrap().status().as_u16()
        };
        assert_eq!(delete("/online/b7?estimator=third").await, 400);
        assert_eq!(delete("/online/b7/third").await, 200);
        let shown = twin.get("/online/b7").await;
        assert_eq!(shown["estimators"].as_object().unwrap().len(), 2, "{shown}");
        assert_eq!(delete("/online/b7").await, 200);
        assert_eq!(twin.get("/online/b7").await["status"], 404);
        assert_eq!(delete("/online/b7").await, 404);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_field() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    let mut unknown_key: Value = serde_json::from_str(DOCUMENT).unwrap();
    unknown_key["covariance_asho"] = json!([[1.0]]);
    let unknown_key = unknown_key.to_string();
    let mut wrong_shape: Value = serde_json::from_str(DOCUMENT).unwrap();
    wrong_shape["covariance_transient"] = json!([[1.0]]);
    let wrong_shape = wrong_shape.to_string();
    let script = "from moirae import x\nestimator = x()";
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("definition", DOCUMENT)], "name"),
        (&[("name", "a.b"), ("definition", DOCUMENT)], "name"),
        (&[("name", "b7")], "definition"),
        (&[("name", "b7"), ("definition", script)], "definition"),
        (
            &[("name", "b7"), ("definition", &unknown_key)],
            "definition.covariance_asho",
        ),
        (
            &[("name", "b7"), ("definition", &wrong_shape)],
            "definition.covariance_transient",
        ),
        (
            &[
                ("name", "b7"),
                ("definition", DOCUMENT),
                ("valid_from", "soon"),
            ],
            "valid_from",
        ),
        (
            &[
                ("name", "b7"),
                ("definition", DOCUMENT),
                ("estimator", "a b"),
            ],
            "estimator",
        ),
    ];
    for (fields, at) in cases {
        let (status, problem) = register(&twin, fields).await;
        assert_eq!(
            (status, problem["field"].as_str()),
            (400, Some(at)),
            "{problem}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn with_the_hub_away_registering_is_unavailable_and_readiness_says_so() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    let client = reqwest::Client::new();
    let url = format!("{}/online/register", twin.url);
    let fields = [("name", "b7"), ("definition", DOCUMENT)];
    let answer = client.post(url).form(&fields).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let ready = testing::eventually(PATIENCE, async || {
        let ready = twin.get("/ready").await;
        let problems = ready["problems"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        if problems == 1 { Ok(ready) } else { Err(ready) }
    })
    .await;
    assert!(ready["problems"].get("hub").is_some(), "{ready}");
}

#[tokio::test]
async fn the_service_starts_without_a_bus_and_follows_when_it_comes() {
    let mut bus = Bus::start().await;
    let rows = frames("b7", &drive(100), 1, 10);
    bus.register("b7", 1, DOCUMENT).await;
    bus.publish(&rows).await;
    bus.nats.server.stop();
    let twin = Twin::start(settings(&bus));
    let ready = testing::eventually(PATIENCE, async || {
        let ready = twin.get("/ready").await;
        let problem = ready["problems"]["nats"].as_str().unwrap_or_default();
        if problem.contains("not connected") {
            Ok(ready)
        } else {
            Err(ready)
        }
    })
    .await;
    assert_eq!(ready["status"], "waiting");
    bus.nats.server.start_again().unwrap();
    twin.reached("b7", 100).await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    let openapi = twin.get("/openapi.json").await;
    for path in [
        "/online/status",
        "/online/register",
        "/online/{battery}",
        "/online/{battery}/{estimator}",
        "/online/{battery}/{estimator}/{action}",
        "/online/{battery}/backtest",
        "/online/{battery}/backtest/{id}",
        "/online/{battery}/backtest/{id}/promote",
        "/online/schema",
    ] {
        assert!(openapi["paths"].get(path).is_some(), "{path}");
    }
    assert!(
        twin.get("/online/schema").await["properties"]
            .get("asoh")
            .is_some()
    );
    assert_eq!(twin.get("/health").await["status"], "ok");
    assert_eq!(twin.get("/no/such/path").await["status"], 404);
    let foreign = reqwest::Client::new()
        .delete(format!("{}/online/b7", twin.url))
        .header("origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status().as_u16(), 403);
}

#[tokio::test]
async fn an_estimator_that_starts_from_data_says_what_it_gathers_and_what_it_found() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("nats").await;
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
    document["initialise"] = json!({"r0": true, "capacity": true});
    let definition = document.to_string();
    with_hub(&bus, async {
        let fields = [("name", "b7"), ("definition", definition.as_str())];
        let (status, problem) = register(&twin, &fields).await;
        let field = json!("definition.initialise.required_time");
        assert_eq!((status, &problem["field"]), (400, &field), "{problem}");
        let fields = [fields[0], fields[1], ("required_time", "100")];
        let (status, words) = register(&twin, &fields).await;
        assert_eq!(status, 200, "{words}");
        let words = words.as_str().unwrap();
        assert!(words.contains("it starts after 100 s of rows"), "{words}");

        let rows = frames("b7", &drive(200), 1, 50);
        bus.publish(&rows[..1]).await;
        let gathering = twin.status("b7", |status| status["seq"] == 50).await;
        assert_eq!(gathering["is_ready"], false);
        assert_eq!(
            gathering["initialisation"],
            json!({"gathered_rows": 50, "found": []})
        );

        bus.publish(&rows[1..]).await;
        let status = twin.reached("b7", 200).await;
        assert_eq!(
            (&status["is_ready"], &status["rows"]),
            (&true.into(), &200.into())
        );
        // The row 100 s after the first ends the gathering and starts.
        assert_eq!(status["steps"], 99);
        let found = &status["initialisation"]["found"];
        assert_eq!(
            (&found[0]["what"], &found[1]["what"]),
            (&"q_t".into(), &"r0".into())
        );
        // So short a drive shows no capacity, and says so.
        assert!(
            found[0]["reason"]
                .as_str()
                .unwrap()
                .contains("no discharge"),
            "{found}"
        );
        assert!(
            status["initialisation"].get("gathered_rows").is_none(),
            "{status}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_status_tells_trust_and_health_in_the_users_terms() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(300), 1, 100)).await;
    let status = twin.reached("b7", 300).await;
    let (trust, health) = (&status["trust"], &status["health"]);
    assert!(["healthy", "suspect", "diverged"].contains(&trust["state"].as_str().unwrap()));
    // Two windows of a hundred steps are whole.
    let band = [&trust["nis_band"][0], &trust["nis_band"][1]].map(|at| at.as_f64().unwrap());
    assert!(
        band[0] < 1.0 && 1.0 < band[1] && trust["nis_average"].is_f64(),
        "{trust}"
    );
    assert!(trust["autocorrelation"].is_f64(), "{trust}");
    for figure in [
        "state_of_health",
        "nominal_capacity_ah",
        "charged_ah",
        "discharged_ah",
        "charged_wh",
        "discharged_wh",
        "energy_throughput_wh",
        "equivalent_full_cycles",
    ] {
        assert!(
            health[figure].as_f64().unwrap() >= 0.0,
            "{figure}: {health}"
        );
    }
    assert_eq!(health["nominal_capacity_from"], "initial");
    // The energies of the rows themselves, but for the first step, which comes from the initial inputs.
    let energy: f64 = drive(300)
        .windows(2)
        .map(|pair| {
            (pair[0][1] * (pair[1][0] - pair[0][0]) * f64::midpoint(pair[0][2], pair[1][2])).abs()
        })
        .sum();
    let shown = health["energy_throughput_wh"].as_f64().unwrap();
    assert!((shown - energy / 3600.0).abs() < 0.02 * shown, "{health}");
}
