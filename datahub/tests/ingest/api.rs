//! The hub's calls and their exact shapes.

use rovi_common::{auth::Service, frame::RowFrame};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{TestHub, execute, postgres, query};

async fn get(hub: &TestHub, path: &str) -> (u16, Value) {
    let answer = reqwest::get(hub.url(path)).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

async fn post(hub: &TestHub, path: &str, kind: Option<&str>, body: &str) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .post(hub.url(path))
        .body(body.to_owned());
    if let Some(kind) = kind {
        request = request.header("Content-Type", kind);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

#[tokio::test]
async fn registering_answers_the_name_and_the_same_name_replaces() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let register = async |body: &str| post(&hub, "/db/register", None, body).await;
    assert_eq!(
        register(r#"{"name": "b7", "is_measurement": true}"#).await,
        (200, json!("b7"))
    );
    assert_eq!(
        register(r#"{"name": "b7",  "n": 1}"#).await,
        (200, json!("b7"))
    );
    assert_eq!(
        register(r#"{"name": "Cell #3 (A)"}"#).await,
        (200, json!("Cell-3-A"))
    );
    assert_eq!(
        register(r#"{"name": "Cell 3 (A)"}"#).await,
        (200, json!("Cell-3-A-2"))
    );
    assert_eq!(
        register(r#"{"name": "Cell #3 (A)"}"#).await,
        (200, json!("Cell-3-A"))
    );
    let (status, name) = register("{}").await;
    assert!(
        status == 200 && name.as_str().unwrap().len() == 36,
        "{name}"
    );
    let (status, problem) = register(r#"{"name": 5}"#).await;
    assert_eq!((status, &problem["field"]), (400, &json!("name")));
    let (status, problem) = register("[").await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("no JSON"));
    let metadata = reqwest::get(hub.url("/db/b7/metadata")).await.unwrap();
    assert_eq!(
        metadata.text().await.unwrap(),
        r#"{"name": "b7",  "n": 1}"#,
        "kept as sent"
    );
}

#[tokio::test]
async fn metadata_join_the_battery_whose_rows_came_first() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, "/db/upload/b7", None, r#"[{"a": 1, "b": 1.0}]"#).await;
    let (status, problem) = get(&hub, "/db/b7/metadata").await;
    assert!(status == 404 && problem["detail"].as_str().unwrap().contains("no metadata"));
    let registered = post(&hub, "/db/register", None, r#"{"name": "b7"}"#).await;
    assert_eq!(registered, (200, json!("b7")));
    let columns = json!({
        "seq": "bigint", "received": "timestamp with time zone", "segment": "integer",
        "a": "bigint", "b": "double precision",
    });
    let (code, mut told) = get(&hub, "/db/stats").await;
    let age = told["b7"]["relay_stats"]["oldest_s"].take();
    assert!(age.is_i64(), "{age}");
    assert_eq!(
        (code, told),
        (
            200,
            json!({"b7": {
                "has_metadata": true, "has_data": true, "has_estimator": false,
                "data_stats": {"rows": 1, "first_seq": 1, "last_seq": 1, "columns": columns,
                               "units": {}, "descriptions": {}},
                // There is no bus in this test.
                "relay_stats": {"relayed_seq": 0, "rows_behind": 1, "oldest_s": null},
            }})
        )
    );
    execute(
        &postgres,
        "INSERT INTO hub.estimators (battery_id, name, definition) SELECT id, 'default', '{}' \
         FROM hub.batteries",
    );
    post(&hub, "/db/register", None, r#"{"name": "b8"}"#).await;
    let listed = get(&hub, "/db/stats").await.1;
    assert_eq!(listed["b7"]["has_estimator"], true);
    assert_eq!(listed["b8"]["data_stats"], Value::Null);
    assert_eq!(listed["b8"]["has_data"], false);
}

#[tokio::test]
async fn a_posted_body_is_answered_with_its_number_of_rows() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let path = "/db/upload/b7";
    assert_eq!(post(&hub, path, None, "[]").await, (200, json!(0)));
    assert_eq!(
        post(&hub, path, None, r#"[{"a": 1}, {"a": {}}]"#).await,
        (200, json!(2))
    );
    let ndjson = "{\"a\": 2}\n{\"a\": 3}\n";
    let posted = post(&hub, path, Some("application/x-ndjson"), ndjson).await;
    assert_eq!(posted, (200, json!(2)));
    let posted = post(&hub, path, Some("text/csv"), "a\n4\n5\n6\n").await;
    assert_eq!(posted, (200, json!(3)));
    for _ in 0..2 {
        let answer = reqwest::Client::new()
            .post(hub.url(path))
            .header("Idempotency-Key", "k1")
            .body(r#"[{"a": 7}, {"a": 8}]"#)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.text().await.unwrap(), "2");
    }
    assert_eq!(
        query(
            &postgres,
            r#"SELECT array_agg(a ORDER BY seq) AS a FROM battery."b7""#
        ),
        json!([{"a": [1, 2, 3, 4, 5, 6, 7, 8]}])
    );
    let (status, problem) = post(&hub, path, None, r#"{"a": 1, "b": [1]}"#).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("mixes"));
    let (status, problem) = post(&hub, "/db/upload/b.7", None, "[]").await;
    assert!(
        status == 400
            && problem["detail"]
                .as_str()
                .unwrap()
                .contains("'.' at byte 1")
    );
}

#[tokio::test]
async fn metadata_above_the_limit_are_refused_with_a_problem_that_tells_it() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let body = format!(r#"{{"name": "{}"}}"#, "x".repeat(1 << 20));
    let (status, problem) = post(&hub, "/db/register", None, &body).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        status == 413 && detail.contains("1048576 bytes"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_body_of_many_rows_is_stored_in_groups() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let rows: Vec<Value> = (0..25_000).map(|n| json!({"n": n})).collect();
    let body = Value::Array(rows).to_string();
    assert_eq!(
        post(&hub, "/db/upload/b7", None, &body).await,
        (200, json!(25_000))
    );
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), bool_and(seq = n + 1) FROM battery."b7""#
        ),
        json!([{"count": 25_000, "bool_and": true}])
    );
}

#[tokio::test]
async fn history_is_read_by_seq_or_test_time_in_three_forms() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let rows = r#"[{"test_time": 0.5, "state": "a,b"}, {"test_time": 1.5, "state": null},
                   {"test_time": 2.5, "state": "x"}]"#;
    post(&hub, "/db/upload/b7", None, rows).await;
    let (status, mut body) = get(&hub, "/db/b7/rows?seq=2..&columns=test_time").await;
    assert_eq!(status, 200);
    let received = body["received"].take();
    assert!(
        received[0].as_i64().unwrap() > 1_700_000_000_000_000,
        "{received}"
    );
    assert_eq!(
        body,
        json!({
            "battery": "b7", "epoch": 1, "first_seq": 1, "last_seq": 3, "more": false, "seq": [2, 3], "deleted": [],
            "received": null, "segment": [1, 1], "columns": {"test_time": [1.5, 2.5]},
            "units": {"test_time": "s"},
        })
    );
    let (_, body) = get(&hub, "/db/b7/rows?test_time=0..2&limit=1").await;
    assert_eq!((&body["seq"], &body["more"]), (&json!([1]), &json!(true)));

    let csv = reqwest::get(hub.url("/db/b7/rows?format=csv&seq=..1"))
        .await
        .unwrap();
    assert_eq!(csv.headers()["Rovi-Last-Seq"], "3");
    assert_eq!(csv.headers()["Rovi-Epoch"], "1");
    let csv = csv.text().await.unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "seq,received,segment,test_time,state");
    assert!(
        lines[1].starts_with("1,") && lines[1].ends_with(",1,0.5,\"a,b\""),
        "{csv}"
    );

    let frames = reqwest::Client::new()
        .get(hub.url("/db/b7/rows"))
        .header("Accept", "application/msgpack")
        .send()
        .await
        .unwrap();
    let bytes = frames.bytes().await.unwrap();
    let frame = RowFrame::decode(&bytes).unwrap();
    assert_eq!(
        (frame.first_seq, frame.last_seq(), frame.segment),
        (1, 3, 1)
    );
    assert_eq!(frame.columns.get("test_time").unwrap().number(2), Some(2.5));
}

#[tokio::test]
async fn many_rows_come_as_frames_of_256_one_after_another() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let rows: Vec<Value> = (0..600).map(|n| json!({"n": n})).collect();
    post(&hub, "/db/upload/b7", None, &Value::Array(rows).to_string()).await;
    let answer = reqwest::get(hub.url("/db/b7/rows?format=msgpack"))
        .await
        .unwrap();
    let bytes = answer.bytes().await.unwrap();
    let mut rest = bytes.as_ref();
    let mut sizes = Vec::new();
    while !rest.is_empty() {
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        let frame = RowFrame::deserialize(&mut deserializer).unwrap();
        sizes.push(frame.received.len());
    }
    assert_eq!(sizes, [256, 256, 88]);
}

#[tokio::test]
async fn wrong_questions_are_answered_with_the_field() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    post(&hub, "/db/upload/b7", None, r#"[{"a": 1}]"#).await;
    for (path, status, told) in [
        ("/db/b8/rows", 404, "No such dataset: b8"),
        ("/db/b8/metadata", 404, "No such dataset: b8"),
        ("/db/b.8/rows", 400, "'.' at byte 1"),
        ("/db/b7/rows?seq=5", 400, "a..b"),
        ("/db/b7/rows?limit=0", 400, "outside 1 to 100000"),
        ("/db/b7/rows?columns=a,x", 400, "no column `x`"),
        ("/db/b7/rows?test_time=0..1", 400, "no column `test_time`"),
        ("/db/b7/rows?epoch=2", 409, "b7 is in epoch 1"),
        ("/db/b7/rows?format=xml", 400, "format=xml"),
        ("/db/b7/rows?sek=1", 400, "unknown field `sek`"),
        ("/db/nothing", 404, "there is no GET /db/nothing"),
    ] {
        let (found, problem) = get(&hub, path).await;
        assert_eq!(found, status, "{path}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(told),
            "{path}: {problem}"
        );
    }
}

#[tokio::test]
async fn the_documentation_lists_every_call() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (_, openapi) = get(&hub, "/openapi.json").await;
    let is_documented =
        |method: &str, path: &str| openapi["paths"][path][method.to_lowercase()].is_object();
    let data = [
        "/db/",
        "/audit",
        "/auth/tokens",
        "/auth/batteries",
        "/dashboard/{battery}/",
    ];
    let missing: Vec<_> = Service::Hub
        .lines()
        .map(|(method, path, _)| (*method, *path))
        .filter(|(_, path)| data.iter().any(|data| path.starts_with(data)))
        .filter(|(method, path)| !is_documented(method, path))
        .collect();
    assert_eq!(missing, []);
    assert!(is_documented("GET", "/db/{battery}/rows"));
    let page = reqwest::get(hub.url("/docs/")).await.unwrap();
    assert_eq!(page.status(), 200);
    let foreign = reqwest::Client::new()
        .post(hub.url("/db/register"))
        .header("Origin", "http://evil.example")
        .body("{}");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_it_has() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let client = reqwest::Client::new();
    for (method, path, allowed) in [
        ("PUT", "/db/register", "POST"),
        ("PUT", "/db/upload/b7", "GET, POST"),
        ("PUT", "/db/b7/rejected", "GET, DELETE"),
        ("PUT", "/db/b7/columns", "PATCH"),
        ("DELETE", "/db/b7/metadata", "GET, PUT, PATCH"),
        ("DELETE", "/db/b7/retention", "GET, PUT"),
        ("DELETE", "/db/b7/tables/eis_data", "GET, PUT"),
        ("POST", "/db/b7/intervals/x", "GET, PUT, DELETE"),
        ("POST", "/db/b7/signals/x", "GET, PUT, DELETE"),
    ] {
        let method = method.parse().unwrap();
        let refused = client.request(method, hub.url(path)).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["Allow"]),
            (405, &allowed.parse().unwrap())
        );
        assert_eq!(
            refused.headers()["Content-Type"],
            "application/problem+json"
        );
        let options = client.request(reqwest::Method::OPTIONS, hub.url(path));
        let options = options.send().await.unwrap();
        assert_eq!(
            (options.status().as_u16(), &options.headers()["Allow"]),
            (204, &allowed.parse().unwrap())
        );
    }
}
