//! Hop 4 over real servers: whatever happens, the stream carries the table.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use datahub::{
    relay::{Relay, RelayParts, RelaySettings},
    stored::StoredRows,
};
use rovi_common::{
    frame::{MAX_FRAME_BYTES, MAX_FRAME_ROWS},
    streams::BusSettings,
    subjects, testing,
};
use tokio::sync::mpsc;

use crate::support::{PATIENCE, Parts, Servers, rows_in};

/// A relay that runs, and its inbox.
pub(crate) struct Running {
    pub(crate) parts: Parts,
    pub(crate) stored: mpsc::Sender<Vec<StoredRows>>,
}

pub(crate) async fn start(servers: &Servers) -> Running {
    start_sweeping(servers, Duration::from_millis(100)).await
}

async fn start_sweeping(servers: &Servers, sweep_interval: Duration) -> Running {
    let parts = servers.parts(BusSettings::default()).await;
    let settings = RelaySettings {
        sweep_interval,
        ..RelaySettings::default()
    };
    let relay_parts = RelayParts {
        bus: Arc::clone(&parts.bus),
        pool: servers.pool.clone(),
        settings,
        readiness: parts.readiness.clone(),
    };
    let (stored, inbox) = mpsc::channel(64);
    Relay::new(relay_parts, &parts.metrics).start(&parts.lifecycle, inbox);
    Running { parts, stored }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.parts.lifecycle.stop();
        drop(self.stored);
        self.parts.stop().await;
    }
}

/// Waits until the table says that all its rows are on the bus.
async fn all_marked(servers: &Servers) {
    testing::eventually(PATIENCE, || async {
        let behind = servers.number(
            "SELECT coalesce(sum(last_seq - relayed_seq), 0)::bigint AS value FROM hub.batteries",
        );
        if behind == 0 {
            Ok(())
        } else {
            Err(format!("{behind} rows behind"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_carries_what_the_tables_have_in_order() {
    let servers = Servers::start();
    let relay = start(&servers).await;
    for name in ["a", "b"] {
        servers.battery(name);
    }
    for round in 0..20 {
        for name in ["a", "b"] {
            let rows = servers.store(name, 1 + round * 17);
            relay.stored.send(vec![rows]).await.unwrap();
        }
        if round == 10 {
            servers.sql("UPDATE hub.batteries SET segment = segment + 1");
        }
    }
    for name in ["a", "b"] {
        let frames = servers.stream_equals_table(name).await;
        assert!(
            frames
                .iter()
                .all(|frame| frame.received.len() <= MAX_FRAME_ROWS)
        );
        assert!(frames.iter().all(|frame| frame.epoch == 1));
    }
    all_marked(&servers).await;
    assert_eq!(relay.parts.metric("datahub_relay_refusals_total"), 0);
    assert_eq!(relay.parts.metric("datahub_relay_rows_not_kept_total"), 0);
    testing::eventually(PATIENCE, || async {
        let problems = relay.parts.readiness.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{problems:?}"))
        }
    })
    .await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stored_while_no_relay_ran_are_sent_by_the_sweep() {
    let servers = Servers::start();
    servers.battery("late");
    servers.store("late", 3000);
    let relay = start(&servers).await;
    servers.stream_equals_table("late").await;
    // Rows of another hub, which never reach this relay's inbox.
    servers.store("late", 5);
    servers.stream_equals_table("late").await;
    all_marked(&servers).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_many_bytes_fit_their_frames() {
    let servers = Servers::start();
    servers.battery("wide");
    let relay = start(&servers).await;
    let rows = servers.store_as("wide", 9, "now()", "repeat('w', 200000)");
    relay.stored.send(vec![rows]).await.unwrap();
    let frames = servers.stream_equals_table("wide").await;
    assert!(
        frames
            .iter()
            .all(|frame| frame.encode().len() <= MAX_FRAME_BYTES)
    );
    relay.stop().await;
}

/// Waits until the metrics tell of rows that are not on the bus.
async fn lag_shows(relay: &Running) {
    testing::eventually(PATIENCE, || async {
        match relay.parts.metric("datahub_rows_not_relayed") {
            behind if behind >= 50 => Ok(()),
            behind => Err(format!("{behind} rows behind")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_was_away_gets_every_row_once() {
    let mut servers = Servers::start();
    servers.battery("b7");
    let relay = start(&servers).await;
    for round in 0..30 {
        let rows = servers.store("b7", 7);
        relay.stored.send(vec![rows]).await.unwrap();
        match round {
            10 => servers.nats.server.kill(),
            19 => lag_shows(&relay).await,
            20 => servers.nats.server.start_again().unwrap(),
            _ => {}
        }
    }
    servers.stream_equals_table("b7").await;
    all_marked(&servers).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_bus_is_filled_with_its_window_again() {
    let mut servers = Servers::start();
    for name in ["b7", "quiet"] {
        servers.battery(name);
    }
    servers.store_as("b7", 1000, "now() - interval '8 days'", "'old'");
    servers.store_as("quiet", 10, "now() - interval '8 days'", "'old'");
    let relay = start(&servers).await;
    let rows = servers.store("b7", 700);
    relay.stored.send(vec![rows]).await.unwrap();
    all_marked(&servers).await;
    let epoch_before = relay.parts.bus.life().unwrap().epoch;

    servers.nats.server.wipe().unwrap();
    servers.store("b7", 7);
    servers.nats.server.start_again().unwrap();

    let frames = testing::eventually(PATIENCE, || async {
        let frames = servers.frames("b7").await;
        match frames.last() {
            Some(last) if last.last_seq() == 1707 => Ok(frames),
            other => Err(format!("the last frame is {other:?}")),
        }
    })
    .await;
    let window = servers.table("b7").split_off(1000);
    assert_eq!(rows_in(&frames), window);
    assert_eq!(servers.frames("quiet").await, []);
    all_marked(&servers).await;
    assert_ne!(relay.parts.bus.life().unwrap().epoch, epoch_before);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_in_competition_send_no_row_twice_and_leave_none_out() {
    let servers = Servers::start();
    servers.battery("b7");
    let relays = [start(&servers).await, start(&servers).await];
    assert_eq!(
        relays[0].parts.bus.life().unwrap().epoch,
        relays[1].parts.bus.life().unwrap().epoch
    );
    for round in 0..40 {
        let rows = servers.store("b7", 1 + round % 5);
        // Both, one or none of them hear of it at once.
        for (place, relay) in relays.iter().enumerate() {
            if round % 4 == 0 || round % 3 == i64::try_from(place).unwrap() {
                relay.stored.send(vec![rows.clone()]).await.unwrap();
            }
        }
    }
    servers.stream_equals_table("b7").await;
    all_marked(&servers).await;
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_limits_reach_the_stream_and_keep_the_life_of_the_bus() {
    let servers = Servers::start();
    let before = servers.parts(BusSettings::default()).await;
    let epoch = before.bus.life().unwrap().epoch;
    before.stop().await;
    let settings = BusSettings {
        max_bytes: 1 << 20,
        ..BusSettings::default()
    };
    let after = servers.parts(settings).await;
    assert_eq!(after.bus.life().unwrap().epoch, epoch);
    let stream = after
        .bus
        .jetstream()
        .get_stream(subjects::ROWS_STREAM)
        .await
        .unwrap();
    assert_eq!(stream.cached_info().config.max_bytes, 1 << 20);
    after.stop().await;
}

/// Runs a relay over 300 rows, changes the table as a restored backup would be, and returns the
/// frames of the epoch that the next relay begins.
async fn after_restoring(damage: &str) {
    let servers = Servers::start();
    servers.battery("b7");
    servers.store("b7", 300);
    let relay = start(&servers).await;
    servers.stream_equals_table("b7").await;
    relay.stop().await;

    servers.sql(damage);
    let relay = start(&servers).await;
    let rows = servers.store("b7", 3);
    relay.stored.send(vec![rows]).await.unwrap();
    let table = servers.table("b7");
    testing::eventually(PATIENCE, || async {
        let mut frames = servers.frames("b7").await;
        frames.retain(|frame| frame.epoch == 2);
        let sent = rows_in(&frames);
        if sent == table {
            Ok(())
        } else {
            Err(format!("{} of {}", sent.len(), table.len()))
        }
    })
    .await;
    all_marked(&servers).await;
    let journal = servers.number(
        "SELECT count(*) AS value FROM hub.table_changes WHERE epoch = 2 AND change LIKE '%restored%'",
    );
    assert_eq!(journal, 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_restored_behind_the_stream_begins_a_new_epoch() {
    after_restoring(
        "DELETE FROM battery.b7 WHERE seq > 280; \
         UPDATE hub.batteries SET last_seq = 280, relayed_seq = 280",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_table_that_grew_past_the_stream_begins_a_new_epoch() {
    after_restoring(
        "DELETE FROM battery.b7 WHERE seq > 280; \
         INSERT INTO battery.b7 SELECT n, now(), 0, n, 1.5, 'other' FROM generate_series(281, 310) n; \
         UPDATE hub.batteries SET last_seq = 310, relayed_seq = 280",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_in_the_table_is_no_restored_table() {
    let servers = Servers::start();
    servers.battery("b7");
    servers.store("b7", 300);
    let relay = start(&servers).await;
    servers.stream_equals_table("b7").await;
    relay.stop().await;

    servers.sql("DELETE FROM battery.b7");
    let relay = start(&servers).await;
    let rows = servers.store("b7", 3);
    relay.stored.send(vec![rows]).await.unwrap();
    testing::eventually(PATIENCE, || async {
        let frames = servers.frames("b7").await;
        match frames.last() {
            Some(last) if (last.epoch, last.first_seq, last.last_seq()) == (1, 301, 303) => Ok(()),
            other => Err(format!("the last frame is {other:?}")),
        }
    })
    .await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_on_a_battery_s_subject_holds_up_nothing() {
    let servers = Servers::start();
    servers.battery("b7");
    // A sweep that is faster than the rows would see the message before them, and refuse none.
    let relay = start_sweeping(&servers, PATIENCE * 2).await;
    let rows = servers.store("b7", 10);
    relay.stored.send(vec![rows]).await.unwrap();
    servers.stream_equals_table("b7").await;
    all_marked(&servers).await;

    let client = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let jetstream = jetstream::new(client);
    let subject = subjects::rows_of(&"b7".parse().unwrap());
    let sent = jetstream.publish(subject, "no frame".into()).await.unwrap();
    sent.await.unwrap();

    let rows = servers.store("b7", 10);
    relay.stored.send(vec![rows]).await.unwrap();
    servers.stream_equals_table("b7").await;
    assert_eq!(relay.parts.metric("datahub_relay_refusals_total"), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_read_stops_neither_its_neighbours_nor_the_hub() {
    let servers = Servers::start();
    for name in ["bad", "good"] {
        servers.battery(name);
        servers.store(name, 20);
    }
    servers.sql("ALTER TABLE battery.bad RENAME TO away");
    let relay = start(&servers).await;
    servers.stream_equals_table("good").await;
    let unreadable = |wanted: i64| {
        let parts = &relay.parts;
        testing::eventually(PATIENCE, move || async move {
            match parts.metric("datahub_relay_unreadable_tables") {
                found if found == wanted => Ok(()),
                found => Err(format!("{found} tables are unreadable")),
            }
        })
    };
    unreadable(1).await;
    assert_eq!(relay.parts.readiness.problems().get("relay"), None);
    servers.sql("ALTER TABLE battery.away RENAME TO bad");
    servers.stream_equals_table("bad").await;
    unreadable(0).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_their_batteries_and_the_oldest_age_are_shown_until_the_bus_has_them() {
    let mut servers = Servers::start();
    for name in ["late", "later", "gone"] {
        servers.battery(name);
    }
    let running = start(&servers).await;
    servers.nats.server.kill();
    servers.store_as("late", 7, "now() - interval '90 seconds'", "'x'");
    servers.store("later", 5);
    // A table that cannot be read hides no age of the others.
    servers.store("gone", 3);
    servers.sql("DROP TABLE battery.gone");
    let shows = |rows, batteries, oldest: std::ops::Range<i64>| {
        let seen = [
            "datahub_rows_not_relayed",
            "datahub_batteries_not_relayed",
            "datahub_relay_oldest_seconds",
        ]
        .map(|name| running.parts.metric(name));
        async move {
            if seen[..2] == [rows, batteries] && oldest.contains(&seen[2]) {
                return Ok(());
            }
            Err(format!("{seen:?}"))
        }
    };
    testing::eventually(PATIENCE, || shows(15, 3, 90..3600)).await;
    servers.sql("DELETE FROM hub.batteries WHERE name = 'gone'");
    servers.nats.server.start_again().unwrap();
    testing::eventually(PATIENCE, || shows(0, 0, 0..1)).await;
    running.stop().await;
}
