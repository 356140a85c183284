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
    let sent: Vec<i64> = (0..60).map(|n| [1, 2, 4, 5, 40, 600][n % 6]).collect();
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
    client.send(&rows(1, 600)).await;
    assert_eq!(client.until_stored(600).await, Vec::<Value>::new());
    assert_rows(&postgres, "b", 600);
    // What no longer fits is rejected with the reason.
    execute(&postgres, "ALTER TABLE battery.b ALTER half TYPE text");
    client.send(&rows(600, 900)).await;
    assert_eq!(client.until_stored(900).await.len(), 300);
    assert!(hub.stop().await);
}
