//! The ways of writing, one for each shape of a group: what is stored is the same.

use rovi_common::testing::{TestPostgres, eventually};
use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, TableLock, TestHub, execute, postgres, query};

fn rows(from: i64, to: i64) -> Value {
    let half = |n| f64::from(i32::try_from(n).unwrap()) / 2.0;
    let halves: Vec<f64> = (from..to).map(half).collect();
    json!({"n": (from..to).collect::<Vec<i64>>(), "half": halves})
}

fn assert_rows(postgres: &TestPostgres, battery: &str, count: i64) {
    let sql = format!(
        "SELECT count(*) AS rows, max(seq) AS newest, \
         bool_and(half = n / 2.0) AS is_right FROM battery.\"{battery}\""
    );
    let found = query(postgres, &sql);
    let expected = json!([{"rows": count, "newest": count, "is_right": true}]);
    assert_eq!(found, expected, "{battery}");
}

/// Batteries with a row each, and one more whose table is held: what is sent meanwhile waits and
/// becomes one group.
struct Fleet {
    hub: TestHub,
    first: Client,
    others: Vec<Client>,
    lock: TableLock,
}

impl Fleet {
    async fn held(postgres: &TestPostgres, batteries: usize) -> Self {
        let hub = TestHub::start_with(postgres, |settings| {
            settings.writers = 1;
            settings.lock_timeout = PATIENCE;
        })
        .await;
        let (mut first, _) = hub.speaking("first").await;
        first.send(&rows(0, 1)).await;
        first.until_stored(1).await;
        let mut others = Vec::new();
        for number in 0..batteries {
            let (mut client, _) = hub.speaking(&format!("b{number}")).await;
            client.send(&rows(0, 1)).await;
            client.until_stored(1).await;
            others.push(client);
        }
        let lock = TableLock::take(postgres, "first");
        first.send(&rows(1, 2)).await;
        let fleet = Self {
            hub,
            first,
            others,
            lock,
        };
        fleet.until_waiting(1).await;
        eventually(PATIENCE, async || {
            let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            match query(postgres, waiting) {
                Value::Array(found) if found.is_empty() => Err("nobody waits for the lock"),
                _ => Ok(()),
            }
        })
        .await;
        fleet
    }

    async fn until_waiting(&self, rows: i64) {
        eventually(PATIENCE, async || {
            match self.hub.metric("datahub_rows_waiting").await {
                waiting if waiting == rows => Ok(()),
                waiting => Err(format!("{waiting} rows wait")),
            }
        })
        .await;
    }

    /// Lets the group go and waits until `rows` of each battery are stored; returns the number
    /// of groups and what was rejected.
    async fn let_go(&mut self, rows: &[i64]) -> (i64, Vec<Value>) {
        self.until_waiting(1 + rows.iter().sum::<i64>()).await;
        let before = self.hub.metric("datahub_groups_total").await;
        self.lock.unlock();
        self.first.until_stored(2).await;
        let mut rejects = Vec::new();
        for (client, rows) in self.others.iter_mut().zip(rows) {
            rejects.extend(client.until_stored(1 + rows).await);
        }
        (
            self.hub.metric("datahub_groups_total").await - before,
            rejects,
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batteries_with_few_and_some_with_many_rows_are_one_group() {
    let postgres = postgres();
    let mut fleet = Fleet::held(&postgres, 60).await;
    // More tables than one statement takes, and rows for each of the three ways.
    let sent: Vec<i64> = (0..60)
        .map(|n| [1, 2, 4, 5, 40, 3, 1, 2, 4, 5, 40, 1500][n % 12])
        .collect();
    for (client, rows_sent) in fleet.others.iter_mut().zip(&sent) {
        client.send(&rows(1, 1 + rows_sent)).await;
    }
    let (groups, rejects) = fleet.let_go(&sent).await;
    assert_eq!((groups, rejects.len()), (2, 0));
    for (number, rows) in sent.iter().enumerate() {
        assert_rows(&postgres, &format!("b{number}"), 1 + rows);
    }
    assert!(fleet.hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_costs_its_neighbours_in_one_statement_nothing() {
    let postgres = postgres();
    let mut fleet = Fleet::held(&postgres, 5).await;
    execute(
        &postgres,
        "ALTER TABLE battery.b2 ADD CONSTRAINT small CHECK (n < 2)",
    );
    for client in &mut fleet.others {
        client.send(&rows(1, 3)).await;
    }
    let (_groups, rejects) = fleet.let_go(&[2; 5]).await;
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["position"], 2);
    assert!(
        rejects[0]["reason"].as_str().unwrap().contains("small"),
        "{rejects:?}"
    );
    for (battery, count) in [("b0", 3), ("b1", 3), ("b2", 2), ("b3", 3), ("b4", 3)] {
        assert_rows(&postgres, battery, count);
    }
    assert!(fleet.hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_among_thousands_costs_only_itself() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    client.send(&rows(0, 1)).await;
    client.until_stored(1).await;
    execute(
        &postgres,
        "ALTER TABLE battery.b ADD CONSTRAINT odd CHECK (n <> 1234)",
    );
    client.send(&rows(1, 3000)).await;
    let rejects = client.until_stored(3000).await;
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["position"], 1234);
    assert_rows(&postgres, "b", 2999);
    let kept = query(&postgres, "SELECT body FROM hub.rejected_rows");
    assert_eq!(kept, json!([{"body": {"n": 1234, "half": 617.0}}]));
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_change_of_a_large_table_delays_only_its_battery() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| settings.writers = 1).await;
    let (mut large, _) = hub.speaking("large").await;
    let (mut other, _) = hub.speaking("other").await;
    for client in [&mut large, &mut other] {
        client.send(&json!({"n": [1]})).await;
        client.until_stored(1).await;
    }
    for sql in [
        "INSERT INTO battery.large SELECT n, now(), 1, n FROM generate_series(2, 100001) n",
        "UPDATE hub.batteries SET last_seq = 100001 WHERE name = 'large'",
        "CREATE TABLE public.gate (open boolean)",
        // A change of a table takes until the gate opens.
        "CREATE FUNCTION public.wait() RETURNS event_trigger LANGUAGE plpgsql AS \
         'BEGIN WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.01); \
         END LOOP; END'",
        "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('ALTER TABLE') \
         EXECUTE FUNCTION public.wait()",
    ] {
        execute(&postgres, sql);
    }
    large.send(&json!({"n": [0.5]})).await;
    large.send(&json!({"n": [1.5]})).await;
    for position in 1..20 {
        other.send(&json!({"n": [position]})).await;
        other.until_stored(position + 1).await;
    }
    assert_eq!(hub.metric("datahub_batteries_parked").await, 1);
    execute(&postgres, "INSERT INTO public.gate VALUES (true)");
    large.until_stored(3).await;
    let found = query(
        &postgres,
        "SELECT seq, n FROM battery.large WHERE seq > 100000 ORDER BY seq",
    );
    let expected = json!([
        {"seq": 100_001, "n": 100_001}, {"seq": 100_002, "n": 0.5}, {"seq": 100_003, "n": 1.5}
    ]);
    assert_eq!(found, expected);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_for_a_column_that_somebody_gave_another_type_keep_their_values() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    client.send(&rows(0, 1)).await;
    client.until_stored(1).await;
    execute(
        &postgres,
        "ALTER TABLE battery.b ALTER n TYPE double precision",
    );
    client.send(&rows(1, 2000)).await;
    assert_eq!(client.until_stored(2000).await, Vec::<Value>::new());
    assert_rows(&postgres, "b", 2000);
    // What no longer fits is rejected with the reason.
    execute(&postgres, "ALTER TABLE battery.b ALTER half TYPE text");
    client.send(&rows(2000, 4000)).await;
    assert_eq!(client.until_stored(4000).await.len(), 2000);
    assert!(hub.stop().await);
}

const MOST_FRAMES: i64 = 2000;

/// Sends frames of one row, each after the one before is stored, until groups of the battery
/// are written in one statement.
async fn settle(postgres: &TestPostgres, client: &mut Client) -> i64 {
    let last = "SELECT count(*) AS turns FROM pg_stat_activity \
        WHERE application_name = 'datahub writer' AND query LIKE 'WITH turn AS %'";
    // While commits are slow, as beside others' work, they may go out back to back instead.
    for n in 0..MOST_FRAMES {
        client.send(&rows(n, n + 1)).await;
        client.until_stored(n + 1).await;
        if n >= 7 && query(postgres, last) == json!([{"turns": 1}]) {
            return n + 1;
        }
    }
    panic!("no group was written in one statement")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_in_one_statement_notices_that_another_hub_wrote_meanwhile() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let other_hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let mut sent = settle(&postgres, &mut client).await;
    let (mut other, _) = other_hub.speaking("b").await;
    for round in 1..=5 {
        other.send(&rows(100 * round, 100 * round + 1)).await;
        other.until_stored(round).await;
        for _ in 0..4 {
            client.send(&rows(sent, sent + 1)).await;
            sent += 1;
            client.until_stored(sent).await;
        }
    }
    assert_rows(&postgres, "b", sent + 5);
    assert!(hub.stop().await && other_hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_in_one_statement_keeps_the_latest_time_that_a_correction_left() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let sent = settle(&postgres, &mut client).await;
    execute(&postgres, "UPDATE hub.batteries SET latest_test_time = 7.5");
    client.send(&rows(sent, sent + 1)).await;
    client.until_stored(sent + 1).await;
    let latest = "SELECT latest_test_time AS latest FROM hub.batteries";
    assert_eq!(query(&postgres, latest), json!([{"latest": 7.5}]));
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_in_one_statement_of_an_older_connection_is_not_stored() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let path = "b?session=0b5f4f10-6f5e-4a57-9a3e-3f1d6c1f7a01";
    let (mut old, _) = hub.speaking(path).await;
    let sent = settle(&postgres, &mut old).await;
    let (mut new, _) = hub.speaking(&format!("{path}&from={sent}")).await;
    old.send(&rows(sent, sent + 3)).await;
    let (code, reason) = old.closed().await;
    assert_eq!(code, 1008, "{reason}");
    new.send(&rows(sent, sent + 2)).await;
    new.until_stored(sent + 2).await;
    assert_rows(&postgres, "b", sent + 2);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_in_one_statement_costs_only_itself() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let sent = settle(&postgres, &mut client).await;
    let odd = sent + 2;
    let constraint = format!("ALTER TABLE battery.b ADD CONSTRAINT odd CHECK (n <> {odd})");
    execute(&postgres, &constraint);
    client.send(&rows(sent, sent + 5)).await;
    let rejects = client.until_stored(sent + 5).await;
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["position"], odd);
    assert_rows(&postgres, "b", sent + 4);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_frames_that_come_at_once_keep_their_order_positions_and_forms() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    // Types and columns change from frame to frame, some rows are refused, one frame is empty.
    let frames = [
        json!({"n": 0, "half": 0.0}),
        json!({"n": 1, "half": 0.5}),
        json!({"n": "x"}),
        json!({"half": 1.0, "n": 2}),
        json!([]),
        json!({"n": [3, 4], "half": [1.5, 2.0]}),
        json!({"n": {"nested": 1}}),
        json!({"n": 5, "half": 2.5, "more": true}),
        json!({"n": 6, "half": 3, "more": null}),
    ];
    client.send_together(&frames).await;
    let rejects = client.until_stored(9).await;
    let positions: Vec<&Value> = rejects.iter().map(|reject| &reject["position"]).collect();
    assert_eq!(positions, [&json!(2), &json!(6)], "{rejects:?}");
    assert_eq!(
        query(
            &postgres,
            "SELECT seq, n, half, more FROM battery.b ORDER BY seq"
        ),
        json!([
            {"seq": 1, "n": 0, "half": 0, "more": null},
            {"seq": 2, "n": 1, "half": 0.5, "more": null},
            {"seq": 3, "n": 2, "half": 1, "more": null},
            {"seq": 4, "n": 3, "half": 1.5, "more": null},
            {"seq": 5, "n": 4, "half": 2, "more": null},
            {"seq": 6, "n": 5, "half": 2.5, "more": true},
            {"seq": 7, "n": 6, "half": 3, "more": null},
        ])
    );
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cannot_be_read_after_others_that_came_with_it_names_its_position() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let frames = (0..20).map(|n| rows(n, n + 1));
    let frames: Vec<Value> = frames.chain([json!("no rows")]).collect();
    client.send_together(&frames).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1007, "{reason}");
    assert!(reason.contains("position 20 "), "{reason}");
    assert_rows(&postgres, "b", 20);
    assert!(hub.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_column_can_keep_exactly_is_set_aside_where_others_are_one_statement() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b").await;
    let sent = settle(&postgres, &mut client).await;
    // `half` is float, and this integer is none.
    client
        .send(&json!({"n": sent, "half": 9_007_199_254_740_993_i64}))
        .await;
    let rejects = client.until_stored(sent + 1).await;
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    let kept = query(&postgres, "SELECT count(*) FROM hub.rejected_rows");
    assert_eq!(kept, json!([{"count": 1}]));
    assert_rows(&postgres, "b", sent);
    assert!(hub.stop().await);
}
