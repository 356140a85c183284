//! What columns mean.

use serde_json::{Value, json};

use crate::support::{TestHub, postgres, query};

const COMMENTS: &str = "SELECT a.attname AS name, d.description AS comment \
     FROM pg_description d JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid \
     WHERE a.attrelid = 'battery.b7'::regclass AND a.attname NOT IN ('seq', 'received', 'segment') \
     ORDER BY 1";

async fn describe(hub: &TestHub, query: &str, patch: Value) -> (u16, Value) {
    hub.ask("PATCH", &format!("/db/b7/columns{query}"), patch)
        .await
}

#[tokio::test]
async fn a_description_is_told_everywhere_and_may_say_anything() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let name = "a \"b\" 'c' \\";
    hub.post_rows("b7", json!([{"voltage": 3.5, name: 1, "test_time": 0.0}]))
        .await;
    let text = "it's \\ \"50 %\"; DROP TABLE battery.\"b7\"; --";
    let patch = json!({name: {"unit": "kPa", "description": text}, "voltage": {"unit": "mV"}});
    assert_eq!(
        describe(&hub, "", patch).await,
        (
            200,
            json!({
                name: {"unit": "kPa", "description": text},
                "voltage": {"unit": "mV", "description": "Measured voltage"},
            })
        )
    );
    assert_eq!(
        query(&postgres, COMMENTS),
        json!([
            {"name": name, "comment": format!("{text} [kPa]")},
            {"name": "test_time", "comment": "Time from the beginning of the test [s]"},
            {"name": "voltage", "comment": "Measured voltage [mV]"},
        ])
    );
    let units = json!({name: "kPa", "voltage": "mV", "test_time": "s"});
    let (_, stats) = hub.ask("GET", "/db/stats", Value::Null).await;
    let stats = &stats["b7"]["data_stats"];
    assert_eq!(
        (&stats["units"], &stats["descriptions"][name]),
        (&units, &json!(text))
    );
    assert_eq!(stats["columns"]["voltage"], "double precision");
    let (_, rows) = hub.ask("GET", "/db/b7/rows", Value::Null).await;
    assert_eq!(rows["units"], units);
}

#[tokio::test]
async fn a_new_table_says_what_its_own_columns_hold() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    hub.post_rows("odd-name_7", json!([{"voltage": 3.5, "x'; --": 1}]))
        .await;
    let comments = "SELECT string_agg(d.description, '|' ORDER BY d.objsubid) AS comments \
         FROM pg_description d WHERE d.objoid = 'battery.\"odd-name_7\"'::regclass";
    let all = "Order of storing within the epoch, from 1 without gaps|When the hub took the row|\
         The test within the battery's life|Measured voltage [V]";
    assert_eq!(query(&postgres, comments), json!([{"comments": all}]));
}

#[tokio::test]
async fn a_merge_patch_leaves_what_it_does_not_name() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    hub.post_rows("b7", json!([{"x": 1, "voltage": 3.5}])).await;
    describe(&hub, "", json!({"x": {"unit": "m", "description": "long"}})).await;
    let (_, after) = describe(&hub, "", json!({"x": {"unit": null}})).await;
    assert_eq!(after, json!({"x": {"unit": null, "description": "long"}}));
    describe(&hub, "", json!({"x": null, "voltage": {"unit": "kV"}})).await;
    let (_, after) = describe(&hub, "", json!({"voltage": null})).await;
    assert_eq!(after["voltage"]["unit"], "V");
    assert_eq!(
        query(&postgres, COMMENTS),
        json!([{"name": "voltage", "comment": "Measured voltage [V]"}])
    );
    assert_eq!(query(&postgres, "SELECT name FROM hub.columns"), json!([]));
}

#[tokio::test]
async fn an_unknown_column_is_refused_by_name_and_nothing_is_changed() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (status, _) = describe(&hub, "", json!({"x": {"unit": "m"}})).await;
    assert_eq!(status, 404, "no battery");
    hub.post_rows("b7", json!([{"x": 1}])).await;
    let patch = json!({"x": {"unit": "m"}, "voltag": {"unit": "V"}});
    let (status, problem) = describe(&hub, "", patch).await;
    assert_eq!((status, &problem["field"]), (404, &json!("voltag")));
    assert_eq!(query(&postgres, "SELECT name FROM hub.columns"), json!([]));
    let (status, problem) = describe(&hub, "", json!({"x": {"units": "V"}})).await;
    assert_eq!((status, &problem["field"]), (400, &json!("x")));
}

#[tokio::test]
async fn what_a_file_says_waits_for_its_column_survives_its_changes_and_replaces_nothing() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let patch = json!({"late": {"unit": "bar"}, "seq": {"description": "the cycler's own"}});
    let (status, said) = describe(&hub, "?offered=true", patch).await;
    assert_eq!(
        (status, &said["seq_"]["description"]),
        (200, &json!("the cycler's own"))
    );
    hub.post_rows("b7", json!([{"late": null, "a": 1}])).await;
    hub.post_rows("b7", json!([{"late": 1, "seq": 5}])).await;
    let comments = json!([
        {"name": "late", "comment": "[bar]"}, {"name": "seq_", "comment": "the cycler's own"},
    ]);
    assert_eq!(query(&postgres, COMMENTS), comments);
    hub.post_rows("b7", json!([{"late": 1.5, "new": true}]))
        .await;
    assert_eq!(query(&postgres, COMMENTS), comments);
}
