//! History: ranges, exports, reduction, statistics, histograms, signals, estimates.

mod exports;
mod histograms;
mod pictures;
mod ranges;
mod reductions;
mod signals;
mod times;

use reqwest::Method;
use rovi_common::testing::TestPostgres;
use serde_json::Value;

use crate::support::{TestHub, execute};

/// Sends a request with a body and returns status and answer; null where there is none.
async fn send(hub: &TestHub, method: Method, path: &str, body: &str) -> (u16, Value) {
    let request = reqwest::Client::new().request(method, hub.url(path));
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn get(hub: &TestHub, path: &str) -> Value {
    let (status, body) = send(hub, Method::GET, path, "").await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn post(hub: &TestHub, rows: &Value) {
    let (status, answer) = send(hub, Method::POST, "/db/upload/b7", &rows.to_string()).await;
    assert_eq!(status, 200, "{answer}");
}

/// Makes table `b7` by its first row, then fills its columns up to `rows` by SQL over `n`, the
/// `seq`. Columns of a posted object stand in the order of their names.
async fn fill(hub: &TestHub, postgres: &TestPostgres, first: &Value, cells: &str, rows: i64) {
    post(hub, &Value::Array(vec![first.clone()])).await;
    execute(
        postgres,
        &format!(
            r#"INSERT INTO battery."b7" SELECT n, to_timestamp(1.7e9 + n), 1, {cells}
               FROM generate_series(2, {rows}) n"#
        ),
    );
    execute(
        postgres,
        &format!("UPDATE hub.batteries SET last_seq = {rows}"),
    );
}
