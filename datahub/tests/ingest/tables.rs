//! Other tables of a battery's file: typed as rows are, replaced as a whole.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{TestHub, postgres, query};

async fn ask(hub: &TestHub, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = Client::new().request(method, hub.url(path)).json(&body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_table_is_replaced_as_a_whole_and_read_as_it_was_sent() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    ask(&hub, Method::POST, "/db/upload/b7", json!([{"a": 1}])).await;
    let path = "/db/b7/tables/cycle_stats";
    let first = json!({"cycle_number": [0, 1, 2], "old": ["x", null, "z"]});
    assert_eq!(ask(&hub, Method::PUT, path, first).await, (200, json!(3)));
    let second = json!({"cycle_number": [0, 1], "E \"max\"": [0.5, null], "seq": [7, 8]});
    for _ in 0..2 {
        assert_eq!(
            ask(&hub, Method::PUT, path, second.clone()).await,
            (200, json!(2))
        );
    }
    let (_, table) = ask(&hub, Method::GET, path, Value::Null).await;
    assert_eq!(
        table,
        json!({"battery": "b7", "table": "cycle_stats", "rows": 2, "seq": [1, 2], "columns":
            {"cycle_number": [0, 1], "E \"max\"": [0.5, null], "seq_": [7, 8]}})
    );
    let sql = query(
        &postgres,
        "SELECT * FROM tables.\"b7/cycle_stats\" ORDER BY seq LIMIT 1",
    );
    assert_eq!(
        sql,
        json!([{"seq": 1, "cycle_number": 0, "E \"max\"": 0.5, "seq_": 7}])
    );
    let (_, rest) = ask(
        &hub,
        Method::GET,
        &format!("{path}?after=1&limit=1"),
        Value::Null,
    )
    .await;
    assert_eq!(rest["seq"], json!([2]));
    let csv = reqwest::get(hub.url(&format!("{path}?format=csv")))
        .await
        .unwrap();
    assert!(csv.text().await.unwrap().starts_with("seq,"));
    let (_, listed) = ask(&hub, Method::GET, "/db/b7/tables", Value::Null).await;
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["rows"]),
        (1, &json!(2))
    );
    assert_eq!(listed[0]["sql_name"], "b7/cycle_stats");
}

#[tokio::test]
async fn what_cannot_be_a_table_changes_nothing() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    ask(&hub, Method::POST, "/db/upload/b7", json!([{"a": 1}])).await;
    let path = "/db/b7/tables/eis_data";
    let good = json!({"z": [1.5]});
    assert_eq!(ask(&hub, Method::PUT, path, good.clone()).await.0, 200);
    for body in [
        json!({"z": ["a", 1]}),
        json!({"z": [[1]]}),
        json!({"z": [1], "y": 2}),
    ] {
        let (status, problem) = ask(&hub, Method::PUT, path, body.clone()).await;
        assert_eq!(status, 400, "{body}: {problem}");
    }
    let (_, table) = ask(&hub, Method::GET, path, Value::Null).await;
    assert_eq!(table["columns"], good);
    for (path, status) in [
        ("/db/nobody/tables/eis_data", 404),
        ("/db/b7/tables/a%22b", 400),
        ("/db/b7/tables/a-name-of-more-than-31-characters", 400),
    ] {
        assert_eq!(
            ask(&hub, Method::PUT, path, good.clone()).await.0,
            status,
            "{path}"
        );
        assert_eq!(
            ask(&hub, Method::GET, path, Value::Null).await.0,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn tables_of_a_deleted_battery_are_kept_with_its_rows() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let long = "b".repeat(63);
    for battery in ["b7", &long] {
        let path = format!("/db/upload/{battery}");
        ask(&hub, Method::POST, &path, json!([{"a": 1}])).await;
        let path = format!("/db/{battery}/tables/eis_data");
        assert_eq!(
            ask(&hub, Method::PUT, &path, json!({"z": [1.5]})).await.0,
            200
        );
        let path = format!("/db/{battery}?confirm={battery}");
        let (status, deleted) = ask(&hub, Method::DELETE, &path, Value::Null).await;
        assert_eq!(
            (status, deleted["kept_as"].as_array().unwrap().len()),
            (200, 2)
        );
    }
    let kept = query(&postgres, "SELECT z FROM tables.\"b7@1/eis_data\"");
    assert_eq!(kept, json!([{"z": 1.5}]));
    let left = query(
        &postgres,
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'tables'",
    );
    assert_eq!(left, json!([{"count": 2}]));
}
