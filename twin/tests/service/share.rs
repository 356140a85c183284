//! Several twins on one bus: each has its share, and the numbers are those of one.

use std::{collections::BTreeMap, time::Instant};

use async_nats::jetstream::consumer::pull;
use futures_util::StreamExt;
use rovi_common::{
    streams::{self, BusSettings},
    subjects, testing,
};
use twin::config::Settings;

use crate::{
    bus::Bus,
    rows::{DOCUMENT, Row, drive, frames, uninterrupted},
    twin::{PATIENCE, Twin, assert_same_state, settings},
};

const BATTERIES: usize = 12;

fn names() -> Vec<String> {
    (0..BATTERIES).map(|n| format!("b{n}")).collect()
}

async fn registered() -> Bus {
    let bus = Bus::start().await;
    for (name, revision) in names().iter().zip(1..) {
        bus.register(name, revision, DOCUMENT).await;
    }
    bus
}

async fn publish(bus: &Bus, rows: &[Row], first_seq: i64) {
    for name in names() {
        bus.publish(&frames(&name, rows, first_seq, 10)).await;
    }
}

async fn owned(twin: &Twin) -> Option<u32> {
    let metrics = twin.text("/metrics").await;
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("twin_partitions "));
    count?.parse().ok()
}

/// Waits until each twin owns so many partitions.
async fn shares(twins: &[(&Twin, u32)]) {
    testing::eventually(PATIENCE, async || {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for (twin, share) in twins {
            found.push(owned(twin).await);
            expected.push(Some(*share));
        }
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

/// Waits until two twins share the partitions, whoever has one more.
async fn both_work(first: &Twin, second: &Twin) {
    testing::eventually(PATIENCE, async || {
        let both = [owned(first).await, owned(second).await];
        match both {
            [Some(2), Some(1)] | [Some(1), Some(2)] => Ok(()),
            _ => Err(format!("{both:?}")),
        }
    })
    .await;
}

async fn all_reach(twin: &Twin, rows: &[Row]) {
    let expected = uninterrupted(&frames("b0", rows, 1, 10));
    for name in names() {
        let last = i64::try_from(rows.len()).unwrap();
        assert_same_state(&twin.reached(&name, last).await, &expected);
    }
}

#[tokio::test]
async fn a_twin_that_joins_gets_its_share_and_one_that_leaves_gives_it_up_at_once() {
    let bus = registered().await;
    let rows = drive(300);
    let first = Twin::start(settings(&bus));
    shares(&[(&first, 3)]).await;
    publish(&bus, &rows[..100], 1).await;
    all_reach(&first, &rows[..100]).await;

    let second = Twin::start(settings(&bus));
    shares(&[(&first, 2), (&second, 1)]).await;
    let third = Twin::start(settings(&bus));
    shares(&[(&first, 1), (&second, 1), (&third, 1)]).await;
    publish(&bus, &rows[100..200], 101).await;
    // Any of them answers for all batteries.
    for twin in [&first, &second, &third] {
        all_reach(twin, &rows[..200]).await;
    }

    let stopped = Instant::now();
    assert!(first.stop());
    assert!(second.stop());
    shares(&[(&third, 3)]).await;
    let timeout = streams::PRIORITY_TIMEOUT;
    assert!(stopped.elapsed() < timeout, "the shares were handed over");
    publish(&bus, &rows[200..], 201).await;
    all_reach(&third, &rows).await;
    assert!(third.stop());
    bus.all_acknowledged().await;
}

#[tokio::test]
async fn a_killed_twins_batteries_go_on_at_another_with_the_same_numbers() {
    let bus = registered().await;
    let rows = drive(200);
    let (first, second) = (Twin::start(settings(&bus)), Twin::start(settings(&bus)));
    both_work(&first, &second).await;
    publish(&bus, &rows[..100], 1).await;
    all_reach(&second, &rows[..100]).await;
    first.kill();
    publish(&bus, &rows[100..], 101).await;
    all_reach(&second, &rows).await;
    shares(&[(&second, 3)]).await;
    assert!(second.stop());
}

#[tokio::test]
async fn whoever_is_asked_tells_the_numbers_of_all_batteries_each_time() {
    let bus = registered().await;
    let rows = drive(50);
    let (first, second) = (Twin::start(settings(&bus)), Twin::start(settings(&bus)));
    both_work(&first, &second).await;
    publish(&bus, &rows, 1).await;
    for twin in [&first, &second] {
        all_reach(twin, &rows).await;
    }
    for _ in 0..25 {
        for twin in [&first, &second] {
            let all = twin.get("/online/status").await;
            let shown = all.as_object().unwrap();
            assert!(shown.values().all(|one| one["seq"] == 50), "{all}");
        }
    }
}

#[tokio::test]
async fn only_the_twin_that_owns_a_battery_works_on_it() {
    let bus = registered().await;
    let rows = drive(100);
    let (first, second) = (Twin::start(settings(&bus)), Twin::start(settings(&bus)));
    both_work(&first, &second).await;
    publish(&bus, &rows, 1).await;
    all_reach(&first, &rows).await;
    let mut dealt_with = 0;
    for twin in [&first, &second] {
        let metrics = twin.text("/metrics").await;
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix("twin_rows_total "));
        dealt_with += count.unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(dealt_with, BATTERIES * rows.len());
}

#[tokio::test]
async fn the_partition_of_a_battery_is_the_one_that_the_server_computes() {
    let bus = Bus::start().await;
    let rows = drive(1);
    for n in 0..40 {
        bus.publish(&frames(&format!("cell_{n}-x"), &rows, 1, 1))
            .await;
    }
    let stream = bus
        .jetstream
        .get_stream(subjects::ROWS_STREAM)
        .await
        .unwrap();
    let consumer = stream
        .create_consumer(pull::Config::default())
        .await
        .unwrap();
    let messages = consumer.messages().await.unwrap().take(40);
    let seen: BTreeMap<String, u32> = messages
        .map(|message| {
            let message = message.unwrap();
            let (partition, battery) = subjects::parse_stored_rows(&message.subject).unwrap();
            assert_eq!(subjects::partition_of(&battery, 3), partition, "{battery}");
            (battery.to_string(), partition)
        })
        .collect()
        .await;
    let used: std::collections::BTreeSet<u32> = seen.values().copied().collect();
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn a_number_of_partitions_other_than_the_streams_is_told() {
    let bus = Bus::start().await;
    let twin = Twin::start(Settings {
        bus: BusSettings {
            partitions: 2,
            ..bus.settings.clone()
        },
        ..settings(&bus)
    });
    testing::eventually(PATIENCE, async || {
        let problem = twin
            .readiness
            .problems()
            .get("rows")
            .cloned()
            .unwrap_or_default();
        if problem.contains("bus.partitions is 2") && problem.contains("set it to 3") {
            Ok(())
        } else {
            Err(problem)
        }
    })
    .await;
}
