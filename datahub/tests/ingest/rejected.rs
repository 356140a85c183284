//! Rejected rows: listed, sent again after a mend, dropped.

use std::collections::BTreeMap;

use rovi_common::{rows::Value as Cell, testing::eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, TableLock, TestHub, execute, postgres, query};

const REJECTED: &str = "/db/b7/rejected";
const REPLAY: &str = "/db/b7/rejected/replay";

/// Makes `a` an integer column and sends rows that do not fit it.
async fn reject(hub: &TestHub, values: &[Value]) {
    hub.post_rows("b7", json!([{"a": 1}])).await;
    let rows: Vec<Value> = values.iter().map(|value| json!({"a": value})).collect();
    hub.post_rows("b7", Value::Array(rows)).await;
}

#[tokio::test]
async fn rejected_rows_are_listed_by_page_with_their_reasons() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    reject(&hub, &[json!("x"), json!("x"), json!({"deep": 1})]).await;
    let (status, first) = hub.ask("GET", "/db/b7/rejected?limit=2", Value::Null).await;
    assert_eq!(
        (status, &first["count"], &first["more"]),
        (200, &3.into(), &true.into())
    );
    let text = "column `a` is integer, the row has text \"x\"";
    let nested = "column `a`: a nested map cannot be stored in a column";
    assert_eq!(
        first["reasons"],
        json!([{"reason": text, "rows": 2}, {"reason": nested, "rows": 1}])
    );
    let row = &first["rejected"][1];
    assert_eq!(
        (&row["row"], &row["position"]),
        (&json!({"a": "x"}), &1.into())
    );
    assert!(row["received"].as_i64().unwrap() > 1_700_000_000_000_000);
    let after = format!("/db/b7/rejected?after={}", row["id"]);
    let (_, rest) = hub.ask("GET", &after, Value::Null).await;
    assert_eq!(rest["rejected"][0]["reason"], nested);
    assert_eq!(
        (rest["rejected"].as_array().unwrap().len(), &rest["more"]),
        (1, &false.into())
    );
    assert_eq!(hub.ask("GET", "/db/no/rejected", Value::Null).await.0, 404);
    let (status, problem) = hub.ask("GET", "/db/b7/rejected?id=x", Value::Null).await;
    assert_eq!((status, &problem["field"]), (400, &json!("id")));
}

#[tokio::test]
async fn rows_sent_again_after_a_mend_are_stored_and_the_others_stay_with_the_reason_of_now() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    reject(&hub, &[json!("x"), json!("y"), json!({"deep": 1})]).await;
    let replayed = hub.ask("POST", REPLAY, Value::Null).await;
    assert_eq!(
        replayed,
        (200, json!({"replayed": 3, "stored": 0, "rejected": 3}))
    );
    execute(&postgres, r#"ALTER TABLE battery."b7" ALTER a TYPE text"#);
    let first = hub.ask("GET", REJECTED, Value::Null).await.1["rejected"][0]["id"].clone();
    let one = hub
        .ask("POST", &format!("{REPLAY}?id={first}"), Value::Null)
        .await;
    assert_eq!(
        one,
        (200, json!({"replayed": 1, "stored": 1, "rejected": 0}))
    );
    let rest = hub.ask("POST", REPLAY, Value::Null).await;
    assert_eq!(
        rest,
        (200, json!({"replayed": 2, "stored": 1, "rejected": 1}))
    );
    assert_eq!(
        query(&postgres, r#"SELECT seq, a FROM battery."b7" ORDER BY seq"#),
        json!([{"seq": 1, "a": "1"}, {"seq": 2, "a": "x"}, {"seq": 3, "a": "y"}])
    );
    let (_, left) = hub.ask("GET", REJECTED, Value::Null).await;
    assert_eq!(left["rejected"][0]["row"], json!({"a": {"deep": 1}}));
    assert_eq!(left["count"], 1);
    assert_eq!(
        hub.ask("POST", "/db/no/rejected/replay", Value::Null)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_row_that_names_a_column_twice_loses_no_cell_and_is_stored_by_no_replay() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let sent = reqwest::Client::new()
        .post(hub.url("/db/upload/b7"))
        .body(r#"[{"a": 1}, {"a": 2, "a": 3}]"#);
    assert_eq!(sent.send().await.unwrap().text().await.unwrap(), "2");
    let replayed = hub.ask("POST", REPLAY, Value::Null).await;
    assert_eq!(
        replayed,
        (200, json!({"replayed": 1, "stored": 0, "rejected": 1}))
    );
    let (_, left) = hub.ask("GET", REJECTED, Value::Null).await;
    let row = &left["rejected"][0];
    assert_eq!(row["row"], json!({"a": {"repeated": [2, 3]}}));
    assert_eq!(row["reason"], "column `a`: it stands 2 times in the row");
}

#[tokio::test]
async fn values_that_json_has_no_form_for_come_back_as_they_were() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 1})).await;
    client.until_stored(1).await;
    let row = BTreeMap::from([
        ("a", Cell::Text("x".into())),
        ("at", Cell::Time(-1_500_000)),
        ("nan", Cell::Float(f64::NAN)),
    ]);
    client.send(&row).await;
    assert_eq!(client.until_stored(2).await.len(), 1);
    execute(&postgres, r#"ALTER TABLE battery."b7" ALTER a TYPE text"#);
    let replayed = hub.ask("POST", REPLAY, Value::Null).await;
    assert_eq!(replayed.1["stored"], 1, "{replayed:?}");
    assert_eq!(
        query(
            &postgres,
            r#"SELECT a, nan::text, at = '1969-12-31T23:59:58.5Z' AS at FROM battery."b7" WHERE seq = 2"#
        ),
        json!([{"a": "x", "nan": "NaN", "at": true}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_at_once_by_two_hubs_store_each_row_once() {
    let postgres = postgres();
    let hubs = [
        TestHub::start(&postgres).await,
        TestHub::start(&postgres).await,
    ];
    let values: Vec<Value> = (0..500).map(|n| format!("x{n}").into()).collect();
    reject(&hubs[0], &values).await;
    execute(&postgres, r#"ALTER TABLE battery."b7" ALTER a TYPE text"#);
    let mut replays = JoinSet::new();
    for replay in 0..6 {
        let url = hubs[replay % 2].url(REPLAY);
        replays.spawn(async move {
            let answer = reqwest::Client::new().post(url).send().await.unwrap();
            answer.status().as_u16()
        });
    }
    while let Some(status) = replays.join_next().await {
        let status = status.unwrap();
        assert!([200, 409].contains(&status), "{status}");
    }
    assert_eq!(hubs[1].ask("POST", REPLAY, Value::Null).await.0, 200);
    assert_eq!(
        query(
            &postgres,
            r#"SELECT count(*), count(DISTINCT a) AS n, max(seq) AS seq,
               (SELECT count(*) FROM hub.rejected_rows) AS left FROM battery."b7""#
        ),
        json!([{"count": 501, "n": 501, "seq": 501, "left": 0}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_cut_by_a_dead_database_stores_each_row_once() {
    let mut postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    reject(&hub, &[json!("x"), json!("y")]).await;
    execute(&postgres, r#"ALTER TABLE battery."b7" ALTER a TYPE text"#);
    let lock = TableLock::take(&postgres, "b7");
    let url = hub.url(REPLAY);
    let mut replay = JoinSet::new();
    replay.spawn(reqwest::Client::new().post(url).send());
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_waiting").await {
            0 => Err("nothing waits"),
            _ => Ok(()),
        }
    })
    .await;
    drop(lock);
    postgres.server.kill();
    postgres.server.start_again().unwrap();
    let answer = replay.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["stored"], 2);
    let rows = r#"SELECT a, (SELECT count(*) FROM hub.rejected_rows) AS left
                  FROM battery."b7" WHERE seq > 1"#;
    assert_eq!(
        query(&postgres, rows),
        json!([{"a": "x", "left": 0}, {"a": "y", "left": 0}])
    );
}

#[tokio::test]
async fn rejected_rows_are_dropped_only_where_somebody_names_them() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    reject(&hub, &[json!("x"), json!("y"), json!("z")]).await;
    let (status, problem) = hub.ask("DELETE", REJECTED, Value::Null).await;
    assert_eq!((status, &problem["field"]), (400, &json!("id")));
    let (_, listed) = hub.ask("GET", REJECTED, Value::Null).await;
    let id = |row: usize| listed["rejected"][row]["id"].clone();
    let path = format!("{REJECTED}?id={}..{}", id(0), id(1));
    assert_eq!(hub.ask("DELETE", &path, Value::Null).await, (200, json!(2)));
    let (_, left) = hub.ask("GET", REJECTED, Value::Null).await;
    assert_eq!(left["rejected"][0]["row"], json!({"a": "z"}));
}
