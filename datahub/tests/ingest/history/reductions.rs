//! Reduction: what stays, from rows and from rollups.

use datahub::store::rollups;
use diesel::{Connection, PgConnection};
use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};

use super::{fill, get};
use crate::support::{PATIENCE, TestHub, execute, postgres, query};

const ROWS: i64 = 20_000;
/// A wave with a spike at row 5,555, a dip at 15,001, and beside them what is no finite number.
const WAVE: &str = "CASE WHEN n % 3 = 0 THEN 'a' END, n, CASE n WHEN 5555 THEN 99 WHEN 15001 THEN -99 \
                    WHEN 9 THEN 'NaN'::float8 WHEN 5554 THEN 'Infinity' WHEN 15002 THEN '-Infinity' \
                    ELSE sin(n / 100.0) END";
/// Few enough points that blocks of 256 rows are runs.
const POINTS: &str = "/db/b7/rows?columns=v&max_points=20";

async fn wave(hub: &TestHub, postgres: &TestPostgres) {
    fill(
        hub,
        postgres,
        &json!({"test_time": 1.0, "v": 0.5, "s": "a"}),
        WAVE,
        ROWS,
    )
    .await;
}

async fn rolled_up(postgres: &TestPostgres, units: i64) {
    eventually(PATIENCE, async || {
        let made = query(
            postgres,
            "SELECT count(*) FROM hub.rollups WHERE level = 1 AND column_name = 'received'",
        );
        if made == json!([{"count": units}]) {
            Ok(())
        } else {
            Err(made)
        }
    })
    .await;
}

fn values(body: &Value) -> Vec<f64> {
    body["columns"]["v"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect()
}

fn assert_shape(body: &Value) {
    let values = values(body);
    assert!(body["seq"].as_array().unwrap().len() <= 20, "{body}");
    assert!(values.contains(&99.0) && values.contains(&-99.0), "{body}");
    let seqs = body["seq"].as_array().unwrap();
    assert_eq!((&seqs[0], &seqs[seqs.len() - 1]), (&json!(1), &json!(ROWS)));
}

#[tokio::test]
async fn a_spike_survives_with_and_without_rollups() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    wave(&hub, &postgres).await;
    let from_rows = get(&hub, POINTS).await;
    assert_shape(&from_rows);
    rolled_up(&postgres, ROWS / 4096).await;
    let from_rollups = get(&hub, POINTS).await;
    assert_shape(&from_rollups);
    // A lie in the rollups shows that they are what is read.
    execute(
        &postgres,
        "UPDATE hub.rollups SET greatest = 1e9, greatest_seq = 777 WHERE column_name = 'v' AND block = 2 AND level = 0",
    );
    let seqs = get(&hub, POINTS).await["seq"].take();
    assert!(seqs.as_array().unwrap().contains(&json!(777)), "{seqs}");
    // Of the axis, the first and last point are shown, too.
    let by_time = get(&hub, &format!("{POINTS}&axis=test_time")).await;
    assert_eq!(by_time["seq"][0], 1);
    let other_forms = reqwest::get(hub.url(&format!("{POINTS}&format=csv")))
        .await
        .unwrap();
    assert!(other_forms.text().await.unwrap().contains("99.0"));
}

#[tokio::test]
async fn a_range_of_time_is_exact_beside_rollups() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    wave(&hub, &postgres).await;
    get(&hub, POINTS).await;
    rolled_up(&postgres, 4).await;
    for (range, first, last) in [
        ("test_time=5556..15000", 5556, 15_000),
        ("received=1700005556..1700015000", 5556, 15_000),
        ("seq=5556..15000", 5556, 15_000),
        ("test_time=5556..&seq=..15000", 5556, 15_000),
    ] {
        let body = get(&hub, &format!("{POINTS}&{range}")).await;
        let seqs = body["seq"].as_array().unwrap();
        assert_eq!(
            (&seqs[0], &seqs[seqs.len() - 1]),
            (&json!(first), &json!(last)),
            "{range}"
        );
        assert!(
            values(&body).iter().all(|value| value.abs() <= 1.0),
            "{range}: {body}"
        );
        assert!(
            values(&body).iter().any(|value| *value > 0.999),
            "{range}: {body}"
        );
    }
    // Test times that begin again: the range takes rows of both tests, out of the midst of blocks.
    execute(
        &postgres,
        r#"UPDATE battery."b7" SET test_time = test_time - 10000 WHERE seq > 10000"#,
    );
    execute(&postgres, "DELETE FROM hub.rollups");
    get(&hub, POINTS).await;
    rolled_up(&postgres, 4).await;
    let body = get(&hub, &format!("{POINTS}&test_time=5000..5500")).await;
    let seqs: Vec<i64> = body["seq"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert_eq!((seqs.first(), seqs.last()), (Some(&5000), Some(&15_500)));
    assert!(
        values(&body).contains(&-99.0) && !values(&body).contains(&99.0),
        "{body}"
    );
    assert!(
        seqs.iter()
            .all(|seq| (5000..=5500).contains(&(seq % 10_000))),
        "{seqs:?}"
    );
}

#[tokio::test]
async fn a_row_that_was_corrected_shows_after_its_blocks_are_invalidated() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    wave(&hub, &postgres).await;
    get(&hub, POINTS).await;
    rolled_up(&postgres, 4).await;
    let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
    execute(
        &postgres,
        r#"UPDATE battery."b7" SET v = 0 WHERE seq = 5555"#,
    );
    execute(
        &postgres,
        r#"UPDATE battery."b7" SET v = 200 WHERE seq = 7000"#,
    );
    let battery = query(&postgres, "SELECT id FROM hub.batteries")[0]["id"]
        .as_i64()
        .unwrap();
    connection
        .transaction(|connection| rollups::invalidate(connection, battery, 5555..=7000))
        .unwrap();
    rolled_up(&postgres, 3).await;
    let body = get(&hub, POINTS).await;
    assert!(
        values(&body).contains(&200.0) && !values(&body).contains(&99.0),
        "{body}"
    );
    rolled_up(&postgres, 4).await;
    let again = get(&hub, POINTS).await;
    assert!(values(&again).contains(&200.0), "{again}");
    // Deleted rows leave holes, and the battery takes its rollups along.
    execute(&postgres, r#"DELETE FROM battery."b7" WHERE seq <= 8192"#);
    connection
        .transaction(|connection| rollups::invalidate(connection, battery, 1..=8192))
        .unwrap();
    let body = get(&hub, POINTS).await;
    assert_eq!(body["seq"][0], 8193);
    execute(&postgres, "DELETE FROM hub.batteries");
    assert_eq!(
        query(&postgres, "SELECT count(*) FROM hub.rollups"),
        json!([{"count": 0}])
    );
}

#[tokio::test]
async fn few_points_for_many_columns_are_refused_and_text_alone_is_thinned() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    wave(&hub, &postgres).await;
    let answer = reqwest::get(hub.url("/db/b7/rows?max_points=5"))
        .await
        .unwrap();
    let problem = answer.text().await.unwrap();
    assert!(
        problem.contains("too few for 2 numeric columns: at least 6"),
        "{problem}"
    );
    let body = get(&hub, "/db/b7/rows?columns=s&max_points=10&order=desc").await;
    let seqs = body["seq"].as_array().unwrap();
    assert!(seqs.len() <= 10 && seqs.len() > 5, "{seqs:?}");
    assert_eq!(seqs[0], ROWS);
}
