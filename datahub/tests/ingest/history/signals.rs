//! Derived signals and statistics.

use reqwest::Method;
use serde_json::{Value, json};

use super::{get, post, send};
use crate::support::{TestHub, execute, postgres};

const POWER: &str = r#"{"expression": "voltage * current", "unit": "W"}"#;

#[tokio::test]
async fn a_formula_without_columns_has_a_value_in_every_row() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"v": 4.0}, {"v": 3.0}, {"v": 2.0}])).await;
    let limit = r#"{"expression": "2 * 2.1", "unit": "V"}"#;
    let (status, _) = send(&hub, Method::PUT, "/db/b7/signals/limit", limit).await;
    assert_eq!(status, 201);
    let all = json!({"limit": [4.2, 4.2, 4.2]});
    let page = get(&hub, "/db/b7/rows?columns=limit").await;
    assert_eq!(page["columns"], all);
    let reduced = get(&hub, "/db/b7/rows?columns=limit&max_points=100").await;
    assert_eq!(reduced["columns"], all);
    let statistics = get(&hub, "/db/b7/statistics?columns=limit&every=3rows").await;
    assert_eq!(statistics["columns"]["limit"][0]["count"], 3);
    let file = reqwest::get(hub.url("/db/b7/rows/export?format=csv&columns=limit"));
    let file = file.await.unwrap().text().await.unwrap();
    assert!(file.ends_with(",4.2\n"), "{file}");
}

#[tokio::test]
async fn a_signal_is_asked_for_like_a_column() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"voltage": 4.0, "current": 2, "I, raw": 0.0}, {"voltage": 3.0, "current": null, "I, raw": 2.0}])).await;
    let power =
        json!({"name": "power", "expression": "voltage * current", "unit": "W", "problem": null});
    let put = async |name: &str, body: &str| {
        send(&hub, Method::PUT, &format!("/db/b7/signals/{name}"), body).await
    };
    assert_eq!(put("power", POWER).await, (201, power.clone()));
    assert_eq!(put("power", POWER).await, (200, power.clone()));
    assert_eq!(
        put("r%2F", r#"{"expression": "voltage / \"I, raw\""}"#)
            .await
            .0,
        201
    );
    assert_eq!(get(&hub, "/db/b7/signals/power").await, power);
    assert_eq!(get(&hub, "/db/b7/signals").await[1]["name"], "r/");
    let body = get(&hub, "/db/b7/rows?columns=power,voltage,r/").await;
    assert_eq!(
        body["columns"],
        json!({"power": [8.0, null], "voltage": [4.0, 3.0], "r/": [null, 1.5]})
    );
    let all = get(&hub, "/db/b7/rows").await;
    assert_eq!(
        all["columns"].as_object().unwrap().len(),
        3,
        "only where it is named"
    );
    let csv = reqwest::get(hub.url("/db/b7/rows/export?format=csv&columns=power"))
        .await
        .unwrap();
    assert!(
        csv.text()
            .await
            .unwrap()
            .starts_with("seq,received,segment,power\n")
    );
    let reduced = get(&hub, "/db/b7/rows?columns=power&max_points=4").await;
    assert_eq!(reduced["columns"], json!({"power": [8.0, null]}));
    assert_eq!(
        send(&hub, Method::DELETE, "/db/b7/signals/power", "")
            .await
            .0,
        204
    );
    assert_eq!(
        send(&hub, Method::DELETE, "/db/b7/signals/power", "")
            .await
            .0,
        404
    );
    assert_eq!(
        send(&hub, Method::GET, "/db/b7/rows?columns=power", "")
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn a_wrong_definition_is_refused_with_the_place() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"voltage": 4.0, "state": "x"}])).await;
    for (name, body, status, told) in [
        (
            "p",
            r#"{"expression": "voltage *"}"#,
            400,
            "at character 10: the expression ends here",
        ),
        (
            "p",
            r#"{"expression": "voltage * currant"}"#,
            400,
            "no column `currant`",
        ),
        (
            "p",
            r#"{"expression": "state + 1"}"#,
            400,
            "column `state` is text",
        ),
        ("p", r#"{"unit": "W"}"#, 400, "missing field `expression`"),
        ("p", "[", 400, "no definition"),
        ("seq", r#"{"expression": "voltage"}"#, 400, "every row has"),
        (
            "voltage",
            r#"{"expression": "voltage"}"#,
            409,
            "a name of its own",
        ),
    ] {
        let (found, problem) =
            send(&hub, Method::PUT, &format!("/db/b7/signals/{name}"), body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            found == status && detail.contains(told),
            "{name} {body}: {found} {detail}"
        );
    }
    let (status, _) = send(&hub, Method::PUT, "/db/b8/signals/p", POWER).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_column_that_comes_later_wins_over_a_signal_of_its_name() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, &json!([{"voltage": 4.0, "current": 2.0}])).await;
    send(&hub, Method::PUT, "/db/b7/signals/power", POWER).await;
    post(
        &hub,
        &json!([{"voltage": 4.0, "current": 2.0, "power": 7.0}]),
    )
    .await;
    let body = get(&hub, "/db/b7/rows?columns=power").await;
    assert_eq!(body["columns"], json!({"power": [null, 7.0]}));
    let signal = get(&hub, "/db/b7/signals/power").await;
    assert!(
        signal["problem"]
            .as_str()
            .unwrap()
            .contains("taken instead"),
        "{signal}"
    );
    execute(&postgres, "DELETE FROM hub.batteries");
    execute(&postgres, "SELECT 1 / (count(*) = 0)::int FROM hub.signals");
}

#[tokio::test]
async fn statistics_are_told_for_each_interval_and_column() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let rows: Vec<Value> = (0..10)
        .map(|n| json!({"test_time": f64::from(n) * 100.0, "v": if n == 4 { Value::Null } else { json!(n) }, "s": "x"}))
        .collect();
    post(&hub, &Value::Array(rows)).await;
    send(
        &hub,
        Method::PUT,
        "/db/b7/signals/w",
        r#"{"expression": "v * 2"}"#,
    )
    .await;
    let body = get(
        &hub,
        "/db/b7/statistics?every=400s&axis=test_time&columns=v,w,s",
    )
    .await;
    let of = |count: i64, min: f64, max: f64, mean: f64, std: f64, last: f64| json!({"count": count, "min": min, "max": max, "mean": mean, "std": std, "last": last});
    let half = 0.5_f64.sqrt();
    assert_eq!(body["axis"], "test_time");
    assert_eq!(body["from"], json!([0.0, 400.0, 800.0]));
    assert_eq!(body["rows"], json!([4, 4, 2]));
    assert_eq!(body["columns"]["v"][1], of(3, 5.0, 7.0, 6.0, 1.0, 7.0));
    assert_eq!(body["columns"]["v"][2], of(2, 8.0, 9.0, 8.5, half, 9.0));
    assert_eq!(body["columns"]["w"][1], of(3, 10.0, 14.0, 12.0, 2.0, 14.0));
    assert_eq!(
        body["columns"].as_object().unwrap().len(),
        2,
        "text has no statistics"
    );
    let body = get(&hub, "/db/b7/statistics?every=5rows&columns=v&seq=4..").await;
    assert_eq!(
        (&body["from"], &body["rows"]),
        (&json!([1.0, 6.0]), &json!([2, 5]))
    );
    let body = get(&hub, "/db/b7/statistics?every=1d&columns=v").await;
    assert_eq!(body["axis"], "received");
    let (status, problem) = send(
        &hub,
        Method::GET,
        "/db/b7/statistics?every=1ms&axis=test_time",
        "",
    )
    .await;
    assert_eq!(status, 200, "{problem}");
}

#[tokio::test]
async fn too_many_intervals_are_refused() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    super::fill(&hub, &postgres, &json!({"v": 1}), "n", 12_000).await;
    let (status, problem) = send(&hub, Method::GET, "/db/b7/statistics?every=1rows", "").await;
    assert_eq!(status, 400);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("more than 10000 intervals"),
        "{problem}"
    );
}
