//! Ranges of times in a long history: found without reading all of it, and exact.

use std::ops::RangeInclusive;

use datahub::store::rollups;
use diesel::{Connection, PgConnection};
use rovi_common::testing::{TestPostgres, eventually};
use serde_json::json;

use super::{fill, get};
use crate::support::{PATIENCE, TestHub, execute, postgres, query};

/// Enough that ranges are looked up: 68 units of 4096 rows and a rest.
const ROWS: i64 = 280_000;
/// Two tests of 200,000 s and 80,000 s; every seventh row is 30 s late, `time` is a day behind.
const CELLS: &str = "n, (n % 200000) - CASE WHEN n % 7 = 0 THEN 30 ELSE 0 END, 1.7e9 + n - 86400";

async fn long(hub: &TestHub, postgres: &TestPostgres) {
    let first = json!({"n": 1, "test_time": 1.0, "time": 1_699_913_601.0});
    fill(hub, postgres, &first, CELLS, ROWS).await;
}

async fn looked_up(postgres: &TestPostgres, units: i64) {
    eventually(PATIENCE, async || {
        let made = query(
            postgres,
            "SELECT count(*) FROM hub.rollups WHERE level = 2 AND column_name = 'time'",
        );
        if made == json!([{"count": units}]) {
            Ok(())
        } else {
            Err(made)
        }
    })
    .await;
}

/// Says that rows were changed or removed.
fn invalidate(postgres: &TestPostgres, seqs: RangeInclusive<i64>) {
    let battery = query(postgres, "SELECT id FROM hub.batteries");
    let battery = battery[0]["id"].as_i64().unwrap();
    let mut connection = PgConnection::establish(&postgres.server.url()).unwrap();
    connection
        .transaction(|connection| rollups::invalidate(connection, battery, seqs))
        .unwrap();
}

/// Ranges, and what they mean to PostgreSQL.
const RANGES: [(&str, &str); 8] = [
    (
        "received=1700100000..1700100010",
        "received BETWEEN to_timestamp(1700100000) AND to_timestamp(1700100010)",
    ),
    (
        "received=1700279000..",
        "received >= to_timestamp(1700279000)",
    ),
    (
        "time=1699990000..1699990100",
        r#""time" BETWEEN 1699990000 AND 1699990100"#,
    ),
    (
        "test_time=70000..70020",
        "test_time BETWEEN 70000 AND 70020",
    ),
    ("test_time=..-20", "test_time <= -20"),
    (
        "test_time=5000..5010&received=1700200000..",
        "test_time BETWEEN 5000 AND 5010 AND received >= to_timestamp(1700200000)",
    ),
    ("test_time=1e6..", "test_time >= 1e6"),
    (
        "test_time=150000..150500&seq=150100..150200",
        "test_time BETWEEN 150000 AND 150500 AND seq BETWEEN 150100 AND 150200",
    ),
];

/// A range of 6001 rows with a whole unit among them.
const BESIDE_A_LIE: &str = "received=1700098000..1700104000";

/// Says of a unit that it has no rows of the range, and checks that it is believed and not read.
async fn assert_not_all_read(hub: &TestHub, postgres: &TestPostgres) {
    execute(
        postgres,
        "UPDATE hub.rollups SET least = 0, greatest = 0 WHERE level = 2 AND block = 24",
    );
    let body = get(hub, &format!("/db/b7/rows?columns=n&{BESIDE_A_LIE}")).await;
    let seqs = body["seq"].as_array().unwrap();
    assert_eq!((&seqs[0], seqs.len()), (&json!(98_000), 1905));
}

/// Compares the hub's answers with PostgreSQL's: pages from either end, and exports.
async fn assert_exact(hub: &TestHub, postgres: &TestPostgres) {
    for (range, condition) in RANGES {
        let sql = format!(
            r#"SELECT coalesce(array_agg(seq ORDER BY seq), '{{}}') AS seq FROM battery."b7" WHERE {condition}"#
        );
        let answer = query(postgres, &sql);
        let expected = answer[0]["seq"].as_array().unwrap();
        let path = format!("/db/b7/rows?columns=n&{range}");
        assert_eq!(get(hub, &path).await["seq"], json!(expected), "{range}");
        let newest = get(hub, &format!("{path}&limit=3&order=desc")).await;
        let last: Vec<_> = expected.iter().rev().take(3).collect();
        assert_eq!(newest["seq"], json!(last), "{range}");
        let export = format!("/db/b7/rows/export?columns=n&format=ndjson&{range}");
        let exported = reqwest::get(hub.url(&export)).await.unwrap();
        let lines = exported.text().await.unwrap().lines().count();
        assert_eq!(lines, expected.len(), "{range}");
    }
}

#[tokio::test]
async fn ranges_of_times_are_exact_in_a_long_history() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    long(&hub, &postgres).await;
    looked_up(&postgres, ROWS / 4096).await;
    assert_exact(&hub, &postgres).await;
    // A limit that ends within one part goes on in the next.
    let page = get(
        &hub,
        "/db/b7/rows?columns=n&test_time=70000..70020&limit=30",
    )
    .await;
    assert_eq!(
        (&page["more"], page["seq"].as_array().unwrap().len()),
        (&json!(true), 30)
    );
    // Rows that are removed take what is known of them along.
    execute(&postgres, r#"DELETE FROM battery."b7" WHERE seq <= 10000"#);
    invalidate(&postgres, 1..=10_000);
    looked_up(&postgres, ROWS / 4096 - 3).await;
    assert_exact(&hub, &postgres).await;
}

#[tokio::test]
async fn a_range_of_times_reads_only_where_its_rows_may_be() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    long(&hub, &postgres).await;
    looked_up(&postgres, ROWS / 4096).await;
    assert_not_all_read(&hub, &postgres).await;
    let path = format!("/db/b7/statistics?columns=n&every=1000000s&{BESIDE_A_LIE}");
    let every = get(&hub, &path).await;
    assert_eq!(every["rows"], json!([1905]));
}

#[tokio::test]
async fn corrected_rows_are_found_and_those_of_other_times_still_not_read() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    long(&hub, &postgres).await;
    looked_up(&postgres, ROWS / 4096).await;
    execute(
        &postgres,
        r#"UPDATE battery."b7" SET "time" = 1.6e9, test_time = -1000 WHERE seq = 123456"#,
    );
    invalidate(&postgres, 123_456..=123_456);
    assert_exact(&hub, &postgres).await;
    for range in ["time=1599999999..1600000001", "test_time=-1000..-999"] {
        let body = get(&hub, &format!("/db/b7/rows?columns=n&{range}")).await;
        assert_eq!(body["seq"], json!([123_456]), "{range}");
    }
    // As a correction counts itself; what it took away is made again.
    execute(&postgres, "UPDATE hub.batteries SET corrections = 1");
    looked_up(&postgres, ROWS / 4096).await;
    assert_exact(&hub, &postgres).await;
    assert_not_all_read(&hub, &postgres).await;
}

#[tokio::test]
async fn the_times_of_rows_that_come_later_are_known_even_if_some_before_are_not() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    long(&hub, &postgres).await;
    looked_up(&postgres, ROWS / 4096).await;
    hub.stop().await;
    execute(&postgres, "DELETE FROM hub.rollups WHERE block IN (0, 30)");
    let more = 2 * ROWS;
    execute(
        &postgres,
        &format!(
            r#"INSERT INTO battery."b7" SELECT n, to_timestamp(1.7e9 + n), 1, {CELLS}
               FROM generate_series({ROWS} + 1, {more}) n"#
        ),
    );
    execute(
        &postgres,
        &format!("UPDATE hub.batteries SET last_seq = {more}"),
    );
    let hub = TestHub::start(&postgres).await;
    looked_up(&postgres, more / 4096).await;
    let range = "received=1700400000..1700400003";
    let body = get(&hub, &format!("/db/b7/rows?columns=n&{range}")).await;
    assert_eq!(body["seq"], json!([400_000, 400_001, 400_002, 400_003]));
}
