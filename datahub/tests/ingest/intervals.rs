//! Named intervals: kept by label, checked against the rows, summed up.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{TestHub, execute, postgres};

async fn ask(hub: &TestHub, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = Client::new().request(method, hub.url(path)).json(&body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

/// A test of 4 rows at -1, -1, 2 and 2 A, one hour each, and another test.
async fn upload(hub: &TestHub) {
    let row = |time: i32, current: i32, note: &str| json!({"test_time": time, "current": current, "voltage": 4.0, "note": note});
    let rows = [
        row(0, -1, "a"),
        row(3600, -1, "b"),
        row(7200, 2, "c"),
        row(10_800, 2, "d"),
    ];
    let (status, _) = ask(hub, Method::POST, "/db/upload/b7", json!(rows)).await;
    assert_eq!(status, 200);
    let later = json!([row(0, 7, "e")]);
    assert_eq!(ask(hub, Method::POST, "/db/upload/b7", later).await.0, 200);
}

fn close(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() - expected).abs() < 1e-12
}

#[tokio::test]
async fn an_interval_by_time_or_by_rows_is_summed_up_as_brute_force_does() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    upload(&hub).await;
    let path = "/db/b7/intervals/capacity%20test%203";
    let by_time = json!({"test_time": [3600, 10_800], "segment": 1, "note": "slow"});
    assert_eq!(ask(&hub, Method::PUT, path, by_time).await.0, 204);
    let (_, found) = ask(&hub, Method::GET, path, Value::Null).await;
    assert_eq!(
        (&found["first_seq"], &found["last_seq"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(
        (&found["label"], &found["note"]),
        (&json!("capacity test 3"), &json!("slow"))
    );
    let of_it = "/db/b7/rows?interval=capacity%20test%203";
    let (_, rows) = ask(&hub, Method::GET, of_it, Value::Null).await;
    assert_eq!(rows["seq"], json!([2, 3, 4]));
    let unknown = "/db/b7/statistics?every=1rows&interval=x";
    assert_eq!(ask(&hub, Method::GET, unknown, Value::Null).await.0, 404);
    let current = &found["columns"]["current"];
    assert_eq!(
        (
            &current["count"],
            &current["min"],
            &current["max"],
            &current["last"]
        ),
        (&json!(3), &json!(-1), &json!(2), &json!(2.0))
    );
    assert!(close(&current["mean"], 1.0) && close(&current["std"], 3_f64.sqrt()));
    assert!(found["columns"].get("note").is_none());
    // From -1 to 2 A within an hour: a third of it below zero.
    assert!(close(&found["capacity_out"], 1.0 / 6.0), "{found}");
    assert!(close(&found["capacity_in"], 2.0 / 3.0 + 2.0), "{found}");
    assert!(
        close(&found["energy_in"], 4.0 * (2.0 / 3.0 + 2.0)),
        "{found}"
    );

    let by_rows = json!({"seq": [1, 2]});
    assert_eq!(ask(&hub, Method::PUT, path, by_rows).await.0, 204);
    let (_, found) = ask(&hub, Method::GET, path, Value::Null).await;
    assert!(close(&found["capacity_out"], 1.0) && close(&found["capacity_in"], 0.0));
    let (_, list) = ask(&hub, Method::GET, "/db/b7/intervals", Value::Null).await;
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["seq"]),
        (1, &json!([1, 2]))
    );
    assert_eq!(ask(&hub, Method::DELETE, path, Value::Null).await.0, 204);
    assert_eq!(ask(&hub, Method::GET, path, Value::Null).await.0, 404);
    assert_eq!(ask(&hub, Method::DELETE, path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn an_interval_without_rows_or_of_no_form_is_refused() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    upload(&hub).await;
    for (body, status) in [
        (json!({"seq": [1, 6]}), 400),
        (json!({"seq": [3, 2]}), 400),
        (json!({"seq": [0, 2]}), 400),
        (json!({"test_time": [1, 2], "segment": 1}), 400),
        (json!({"test_time": [0, 2]}), 400),
        (json!({"seq": [1, 2], "segment": 1}), 400),
        (json!({"note": "x"}), 400),
        (json!({"rows": [1, 2]}), 400),
        (json!({"seq": [1, 5]}), 204),
    ] {
        let (found, problem) = ask(&hub, Method::PUT, "/db/b7/intervals/x", body.clone()).await;
        assert_eq!(found, status, "{body}: {problem}");
    }
    let path = "/db/nobody/intervals/x";
    assert_eq!(
        ask(&hub, Method::PUT, path, json!({"seq": [1, 2]})).await.0,
        404
    );
}

#[tokio::test]
async fn an_interval_whose_rows_went_is_not_found() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    upload(&hub).await;
    let path = "/db/b7/intervals/x";
    let body = json!({"seq": [1, 2]});
    assert_eq!(ask(&hub, Method::PUT, path, body).await.0, 204);
    execute(&postgres, "UPDATE hub.batteries SET first_seq = 3");
    execute(&postgres, "DELETE FROM battery.b7 WHERE seq < 3");
    let (status, problem) = ask(&hub, Method::GET, path, Value::Null).await;
    assert_eq!((status, &problem["field"]), (404, &json!("label")));
    assert_eq!(
        ask(&hub, Method::GET, "/db/b7/rows?interval=x", Value::Null)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_label_resolves_to_the_rows_it_means_now() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    upload(&hub).await;
    let body = json!({"test_time": [0, 1], "segment": 2});
    assert_eq!(
        ask(&hub, Method::PUT, "/db/b7/intervals/x", body).await.0,
        204
    );
    let mut connection =
        <diesel::PgConnection as diesel::Connection>::establish(&postgres.server.url()).unwrap();
    let mut resolve = |battery: &str, label: &str| {
        let battery = battery.parse().unwrap();
        datahub::store::intervals::resolve(&mut connection, &battery, label).unwrap()
    };
    assert_eq!(resolve("b7", "x"), Some((5, 5)));
    assert_eq!(resolve("b7", "y"), None);
    assert_eq!(resolve("nobody", "x"), None);
    let more = json!([{"test_time": 1, "current": 0, "voltage": 4.0, "note": "f"}]);
    ask(&hub, Method::POST, "/db/upload/b7", more).await;
    assert_eq!(resolve("b7", "x"), Some((5, 6)));
}
