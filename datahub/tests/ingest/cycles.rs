//! Cycles: summed up as rows come, whatever came late or was interrupted.

use std::time::Duration;

use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};

use crate::support::{PATIENCE, TestHub, execute, postgres, query};

async fn start(postgres: &TestPostgres) -> TestHub {
    TestHub::start_with(postgres, |settings| {
        settings.cycles.interval = Duration::from_millis(50);
    })
    .await
}

/// Rows of cycles of 100 s: half at -1 A, half at +1 A, 4 V.
fn rows(times: std::ops::Range<i32>) -> Vec<Value> {
    let row = |time: i32| {
        let current = if time % 100 < 50 { -1.0 } else { 1.0 };
        json!({"test_time": f64::from(time), "current": current, "voltage": 4.0,
            "cycle_number": time / 100, "temperature": 25})
    };
    times.map(row).collect()
}

async fn upload(hub: &TestHub, path: &str, rows: &[Value]) {
    let url = hub.url(&format!("/db/upload/{path}"));
    let answer = reqwest::Client::new()
        .post(url)
        .json(rows)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

/// Waits until the cycles are those of `up_to` rows and none is stale.
async fn cycles(hub: &TestHub, battery: &str, up_to: i64) -> Vec<Value> {
    eventually(PATIENCE, async || {
        let url = hub.url(&format!("/db/{battery}/cycles"));
        let body: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let listed = body["cycles"].as_array().cloned().unwrap_or_default();
        let is_stale = listed.iter().any(|cycle| cycle["is_stale"] == true);
        if body["up_to_seq"] == up_to && !is_stale {
            return Ok(listed);
        }
        Err(body.to_string())
    })
    .await
}

fn without_seq(cycles: &[Value]) -> Vec<Value> {
    let strip = |cycle: &Value| {
        let mut cycle = cycle.clone();
        let fields = cycle.as_object_mut().unwrap();
        fields.remove("first_seq");
        fields.remove("last_seq");
        cycle
    };
    cycles.iter().map(strip).collect()
}

#[tokio::test]
async fn cycles_are_the_same_however_rows_come_and_hubs_restart() {
    let postgres = postgres();
    let hub = start(&postgres).await;
    upload(&hub, "whole", &rows(0..450)).await;
    let whole = cycles(&hub, "whole", 450).await;
    assert_eq!(whole.len(), 5);
    assert_eq!(whole[1]["capacity_discharge"], json!(49.0 / 3600.0));
    assert_eq!(whole[1]["cycle_duration"], 100.0);
    assert_eq!(whole[4]["is_complete"], false);
    for (part, first) in [0, 30, 170, 171].into_iter().enumerate() {
        let last = [30, 170, 171, 300][part];
        upload(&hub, "parts", &rows(first..last)).await;
        cycles(&hub, "parts", last.into()).await;
    }
    assert!(hub.stop().await);
    let hub = start(&postgres).await;
    upload(&hub, "parts", &rows(300..450)).await;
    assert_eq!(cycles(&hub, "parts", 450).await, whole);

    let csv = reqwest::get(hub.url("/db/parts/cycles?format=csv&limit=2"))
        .await
        .unwrap();
    let csv = csv.text().await.unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(
        csv.starts_with("first_seq,last_seq,segment,cycle_number,"),
        "{csv}"
    );
}

#[tokio::test]
async fn late_rows_count_as_if_they_had_come_in_time() {
    let postgres = postgres();
    let hub = start(&postgres).await;
    let all = rows(0..320);
    upload(&hub, "in-time", &all).await;
    let expected = cycles(&hub, "in-time", 320).await;
    // Rows of an ended cycle and of the one that is going on come last.
    let is_late = |n: usize| (120..130).contains(&n) || (305..308).contains(&n);
    let pick = |late: bool| {
        let rows = all.iter().enumerate().filter(|(n, _)| is_late(*n) == late);
        rows.map(|(_, row)| row.clone()).collect::<Vec<_>>()
    };
    upload(&hub, "late", &pick(false)).await;
    cycles(&hub, "late", 307).await;
    upload(&hub, "late", &pick(true)).await;
    let found = cycles(&hub, "late", 320).await;
    assert_eq!(without_seq(&found), without_seq(&expected));
    // What follows goes on from the mended cycle.
    for battery in ["late", "in-time"] {
        upload(&hub, battery, &rows(320..420)).await;
    }
    let expected = cycles(&hub, "in-time", 420).await;
    assert_eq!(
        without_seq(&cycles(&hub, "late", 420).await),
        without_seq(&expected)
    );
}

#[tokio::test]
async fn corrected_rows_are_summed_up_again_where_they_are_said_to_be() {
    let postgres = postgres();
    let hub = start(&postgres).await;
    upload(&hub, "b7", &rows(0..250)).await;
    let before = cycles(&hub, "b7", 250).await;
    execute(
        &postgres,
        "UPDATE battery.b7 SET current = 2 * current WHERE cycle_number = 1",
    );
    let mut connection =
        <diesel::PgConnection as diesel::Connection>::establish(&postgres.server.url()).unwrap();
    let battery = "b7".parse().unwrap();
    datahub::store::cycles::invalidate(&mut connection, &battery, 120..=130).unwrap();
    let after = eventually(PATIENCE, async || {
        let after = cycles(&hub, "b7", 250).await;
        if after[1] == before[1] {
            Err("the old cycle")
        } else {
            Ok(after)
        }
    })
    .await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    let (old, new) = (
        &before[1]["capacity_discharge"],
        &after[1]["capacity_discharge"],
    );
    assert!(
        (new.as_f64().unwrap() / old.as_f64().unwrap() - 2.0).abs() < 0.03,
        "{new} {old}"
    );
}

#[tokio::test]
async fn without_numbers_or_measurements_there_are_cycles_as_far_as_they_are_known() {
    let postgres = postgres();
    let hub = start(&postgres).await;
    let mut rows = rows(0..100);
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("cycle_number");
    }
    upload(&hub, "b7", &rows).await;
    let found = cycles(&hub, "b7", 100).await;
    assert_eq!((found.len(), &found[0]["cycle_number"]), (1, &Value::Null));
    assert_eq!(found[0]["rows"], 100);
    upload(&hub, "odd", &[json!({"note": "x"}), json!({"note": "y"})]).await;
    let found = cycles(&hub, "odd", 2).await;
    assert_eq!(
        (&found[0]["rows"], &found[0]["capacity_charge"]),
        (&json!(0), &Value::Null)
    );
    let listed = query(&postgres, "SELECT battery FROM hub.cycles ORDER BY battery");
    assert_eq!(listed, json!([{"battery": "b7"}, {"battery": "odd"}]));
}

#[tokio::test]
async fn the_largest_number_of_a_cycle_ends_like_any_other() {
    let postgres = postgres();
    let hub = start(&postgres).await;
    let mut rows = rows(0..3);
    for (row, number) in rows.iter_mut().zip([i64::MAX, i64::MIN, 5]) {
        row["cycle_number"] = json!(number);
    }
    upload(&hub, "b7", &rows).await;
    let found = cycles(&hub, "b7", 3).await;
    let numbers: Vec<_> = found.iter().map(|cycle| &cycle["cycle_number"]).collect();
    assert_eq!(numbers, [&json!(i64::MAX), &json!(i64::MIN), &json!(5)]);
}
