//! Many batteries that share a writer.

use rovi_common::testing::eventually;
use serde_json::json;

use crate::support::{Client, PATIENCE, TestHub, connect, postgres, query, run};

const BATTERIES: usize = 20;
const ROWS: i64 = 10;

/// Opens a socket for each battery, whose table is there.
async fn sockets(hub: &TestHub) -> Vec<Client> {
    let mut clients = Vec::new();
    for battery in 0..BATTERIES {
        let (mut client, _) = hub.speaking(&format!("b{battery}")).await;
        client.send(&json!({"n": 0})).await;
        client.until_stored(1).await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_waited_are_written_battery_by_battery_each_with_all_of_its() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| {
        settings.writers = 1;
        settings.group_tables = 5;
        settings.lock_timeout = PATIENCE;
    })
    .await;
    let mut clients = sockets(&hub).await;
    let before = hub.metric("datahub_groups_total").await;
    // Nothing can be written while the batteries' lines are locked.
    let mut holder = connect(&postgres);
    run(&mut holder, "BEGIN; LOCK TABLE hub.batteries");
    for n in 1..=ROWS {
        for client in &mut clients {
            client.send(&json!({"n": n})).await;
        }
    }
    let sent = ROWS * i64::try_from(BATTERIES).unwrap();
    eventually(PATIENCE, async || {
        match hub.metric("datahub_rows_waiting").await {
            rows if rows == sent => Ok(()),
            rows => Err(format!("{rows} rows wait")),
        }
    })
    .await;
    run(&mut holder, "COMMIT");
    for client in &mut clients {
        client.until_stored(1 + ROWS).await;
    }
    // The one that was under way, and a few tables each with all of their rows: not one for every
    // five rows.
    let groups = hub.metric("datahub_groups_total").await - before;
    assert!(groups <= 6, "{groups} groups");
    for battery in 0..BATTERIES {
        let sql = format!("SELECT array_agg(n ORDER BY seq) AS n FROM battery.\"b{battery}\"");
        let n: Vec<i64> = (0..=ROWS).collect();
        assert_eq!(query(&postgres, &sql), json!([{"n": n}]));
    }
    assert!(hub.stop().await);
}
