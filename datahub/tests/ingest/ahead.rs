//! Groups that are committed while those before them are being flushed, on a disk that is slow.

use std::time::{Duration, Instant};

use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, TestHub, execute, postgres, query};

/// Rows of one burst, each a frame of its own.
const BURST: i64 = 40;
/// Rows that wait for their acknowledgement at most.
const AHEAD: i64 = 200;

/// What each flush takes.
const DELAY_US: u32 = 3000;

/// Starts PostgreSQL on a slow disk.
fn slow_postgres() -> TestPostgres {
    let postgres = postgres();
    execute(&postgres, "ALTER SYSTEM SET commit_siblings = 0");
    set_delay(&postgres, DELAY_US);
    postgres
}

fn set_delay(postgres: &TestPostgres, us: u32) {
    execute(postgres, &format!("ALTER SYSTEM SET commit_delay = {us}"));
    execute(postgres, "SELECT pg_reload_conf()");
}

async fn hub(postgres: &TestPostgres) -> TestHub {
    TestHub::start_with(postgres, |settings| settings.writers = 1).await
}

/// Sends rows `from` to `to` one by one, some ahead of their acknowledgements; returns what was
/// rejected.
async fn pour(client: &mut Client, who: &str, from: i64, to: i64) -> Vec<Value> {
    let (mut sent, mut stored, mut rejects) = (from, from, Vec::new());
    while stored < to {
        if sent < to && sent - stored < AHEAD {
            let end = to.min(sent + BURST);
            let frames: Vec<Value> = (sent..end).map(|n| json!({"who": who, "n": n})).collect();
            client.send_together(&frames).await;
            sent = end;
            continue;
        }
        let message = client.message().await;
        if message["type"] == "reject" {
            rejects.push(message);
        } else {
            stored = message["stored"].as_i64().unwrap_or(stored);
        }
    }
    rejects
}

/// Checks that a battery has every row of `who` once, in order, and `seq` without gaps.
fn assert_in_order(postgres: &TestPostgres, who: &str, rows: i64) {
    let sql = format!(
        "SELECT count(*) AS rows, count(DISTINCT n) AS different, max(n) + 1 AS newest, \
         bool_and(n > before) AS ascend FROM (SELECT n, lag(n, 1, -1::bigint) OVER (ORDER BY seq) \
         AS before FROM battery.b WHERE who = '{who}') rows"
    );
    let expected = json!([{"rows": rows, "different": rows, "newest": rows, "ascend": true}]);
    assert_eq!(query(postgres, &sql), expected, "{who}");
    let dense = "SELECT count(*) = max(seq) AS dense FROM battery.b";
    assert_eq!(query(postgres, dense), json!([{"dense": true}]));
}

/// Tells whether a connection flushes, or did last: it is there for what is written ahead.
fn is_ahead(postgres: &TestPostgres) -> bool {
    let sql = "SELECT count(*) > 0 AS flushes FROM pg_stat_activity \
        WHERE application_name = 'datahub writer' AND (query LIKE '%pg_logical_emit_message%' \
        OR query LIKE '%pg_current_wal_flush_lsn%')";
    query(postgres, sql) == json!([{"flushes": true}])
}

/// Waits until the only battery has so many rows, on the disk or not.
async fn until_stored(postgres: &TestPostgres, rows: i64) {
    eventually(PATIENCE, async || {
        let found = query(postgres, "SELECT last_seq FROM hub.batteries");
        match found[0]["last_seq"].as_i64() {
            Some(last) if last >= rows => Ok(()),
            _ => Err(found),
        }
    })
    .await;
}

/// Pours rows until they are written ahead, over a second connection that is made beside the first
/// groups; returns how many there are.
async fn pour_until_ahead(postgres: &TestPostgres, client: &mut Client, mut rows: i64) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    while !is_ahead(postgres) {
        assert!(Instant::now() < deadline, "nothing is written ahead");
        pour(client, "one", rows, rows + AHEAD).await;
        rows += AHEAD;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_during_a_commit_are_written_beside_it_in_their_order() {
    let postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let rows = pour_until_ahead(&postgres, &mut client, 0).await;
    let rejects = pour(&mut client, "one", rows, rows + 3000).await;
    assert_eq!(rejects, Vec::<Value>::new());
    assert_in_order(&postgres, "one", rows + 3000);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_behind_few_keep_their_place() {
    let postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let mut rows = pour_until_ahead(&postgres, &mut client, 0).await;
    for _ in 0..10 {
        let (few, end) = (rows + 50, rows + 1550);
        let one_by_one = (rows..few).map(|n| json!({"who": "one", "n": n}));
        let mut frames: Vec<Value> = one_by_one.collect();
        let many: Vec<i64> = (few..end).collect();
        frames.push(json!({"who": vec!["one"; many.len()], "n": many}));
        client.send_together(&frames).await;
        rows = end;
    }
    client.until_stored(rows).await;
    assert_in_order(&postgres, "one", rows);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_that_write_ahead_for_one_battery_leave_no_gap_and_double_nothing() {
    let postgres = slow_postgres();
    let (one, other) = (hub(&postgres).await, hub(&postgres).await);
    let (mut client, _) = one.speaking("b").await;
    pour(&mut client, "one", 0, 500).await;
    let (mut guest, _) = other.speaking("b").await;
    tokio::join!(
        pour(&mut client, "one", 500, 2500),
        pour(&mut guest, "other", 0, 500),
    );
    assert_in_order(&postgres, "one", 2500);
    assert_in_order(&postgres, "other", 500);
    assert!(one.stop().await && other.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_ahead_costs_only_itself() {
    let postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    pour(&mut client, "one", 0, 500).await;
    execute(
        &postgres,
        "ALTER TABLE battery.b ADD CONSTRAINT odd CHECK (n <> 1234)",
    );
    let rejects = pour(&mut client, "one", 500, 2000).await;
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["position"], 1234);
    let found = query(&postgres, "SELECT count(*), max(seq) FROM battery.b");
    assert_eq!(found, json!([{"count": 1999, "max": 1999}]));
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_in_the_midst_of_rows_written_ahead_comes_with_its_row() {
    let postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    pour(&mut client, "one", 0, 1000).await;
    let frames: Vec<Value> = (1000..1300)
        .map(|n| match n {
            1100.. => json!({"who": "one", "n": n, "more": n}),
            n => json!({"who": "one", "n": n}),
        })
        .collect();
    client.send_together(&frames).await;
    client.until_stored(1300).await;
    assert_in_order(&postgres, "one", 1300);
    let found = query(&postgres, "SELECT min(more), count(more) FROM battery.b");
    assert_eq!(found, json!([{"min": 1100, "count": 200}]));
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_killed_with_rows_that_the_disk_has_not_loses_and_doubles_none() {
    let mut postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let mut rows = 0;
    for _ in 0..4 {
        // That it writes ahead again after the last time shows here, too.
        rows = pour_until_ahead(&postgres, &mut client, rows).await;
        set_delay(&postgres, 20_000);
        let killing = async {
            until_stored(&postgres, rows + 3 * AHEAD).await;
            postgres.server.kill();
            postgres.server.start_again().unwrap();
        };
        let end = rows + 6 * AHEAD;
        tokio::join!(pour(&mut client, "one", rows, end), killing);
        rows = end;
        assert_in_order(&postgres, "one", rows);
        set_delay(&postgres, DELAY_US);
    }
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_of_rows_written_ahead_is_durable() {
    let mut postgres = slow_postgres();
    for battery in ["a", "b", "c"] {
        let hub = TestHub::start_with(&postgres, |settings| {
            settings.writers = 1;
            settings.shutdown_timeout = Duration::from_millis(200);
        })
        .await;
        let (mut client, _) = hub.speaking(battery).await;
        let rows = pour_until_ahead(&postgres, &mut client, 0).await;
        // Long enough to be read and killed meanwhile.
        set_delay(&postgres, 100_000);
        let path = format!("/db/{battery}/rows?limit=1&order=desc");
        let reading = async {
            let mut newest = 0;
            while newest < rows + 3 * AHEAD {
                let (_, read) = hub.ask("GET", &path, Value::Null).await;
                newest = read["seq"][0].as_i64().unwrap_or(newest);
            }
            newest
        };
        let pouring = pour(&mut client, "one", rows, i64::MAX);
        let newest = tokio::select! {
            newest = reading => newest,
            _ = pouring => unreachable!("rows do not end"),
        };
        postgres.server.kill();
        // It would write them again.
        hub.stop().await;
        postgres.server.start_again().unwrap();
        let kept = format!("SELECT count(*) FROM battery.{battery} WHERE seq = {newest}");
        assert_eq!(query(&postgres, &kept), json!([{"count": 1}]), "{newest}");
        set_delay(&postgres, DELAY_US);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_stored_after_others_were_written_ahead_is_durable() {
    let mut postgres = slow_postgres();
    // Or it would take the row to the disk by itself.
    execute(&postgres, "ALTER SYSTEM SET wal_writer_delay = '10s'");
    execute(&postgres, "SELECT pg_reload_conf()");
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let mut rows = 0;
    for _ in 0..3 {
        rows = pour_until_ahead(&postgres, &mut client, rows).await;
        pour(&mut client, "one", rows, rows + AHEAD).await;
        rows += AHEAD;
        // A course ends within a millisecond after its last group.
        eventually(PATIENCE, async || {
            let sql = "SELECT max(state_change) < clock_timestamp() - interval '50 ms' AS rests \
                FROM pg_stat_activity WHERE application_name = 'datahub writer'";
            let found = query(&postgres, sql);
            (found == json!([{"rests": true}]))
                .then_some(())
                .ok_or(found)
        })
        .await;
        pour(&mut client, "one", rows, rows + 1).await;
        rows += 1;
        postgres.server.kill();
        postgres.server.start_again().unwrap();
        let kept = "SELECT count(*) FROM battery.b";
        assert_eq!(query(&postgres, kept), json!([{"count": rows}]));
    }
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_lost_while_rows_are_written_ahead_lose_and_double_none() {
    let postgres = slow_postgres();
    let hub = hub(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    for round in 0..6 {
        let (from, to) = (round * 500, round * 500 + 500);
        let pouring = pour(&mut client, "one", from, to);
        let cutting = async {
            until_stored(&postgres, from + 200).await;
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE application_name = 'datahub writer'";
            execute(&postgres, cut);
        };
        tokio::join!(pouring, cutting);
    }
    assert_in_order(&postgres, "one", 3000);
    assert!(hub.stop().await);
}
