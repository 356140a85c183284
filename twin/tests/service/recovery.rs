//! Restarts, crashes, late registrations, gaps and wiped buses: the state is that of a run that was
//! never interrupted.

use std::sync::atomic::Ordering;

use rovi_common::{registration::Registration, streams, testing};
use twin::config::Settings;

use crate::{
    bus::Bus,
    hub::HubOfRows,
    rows::{DOCUMENT, drive, frames, uninterrupted},
    twin::{PATIENCE, Twin, assert_same_state, settings},
};

#[tokio::test]
async fn a_restart_goes_on_bit_for_bit_and_needs_no_new_rows() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let rows = frames("b7", &drive(900), 1, 30);
    let twin = Twin::start(settings(&bus));
    bus.publish(&rows[..10]).await;
    twin.reached("b7", 300).await;
    assert!(twin.stop());

    bus.publish(&rows[10..20]).await;
    let twin = Twin::start(settings(&bus));
    let status = twin.reached("b7", 600).await;
    assert_same_state(&status, &uninterrupted(&rows[..20]));
    bus.publish(&rows[20..]).await;
    let status = twin.reached("b7", 900).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert_eq!(status["rows"], 900);
    assert!(twin.stop());
    assert_eq!(bus.estimates().await, expected.estimates);
}

#[tokio::test]
async fn a_crash_at_any_point_leaves_the_estimates_of_a_run_never_interrupted() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let rows = frames("b7", &drive(3000), 1, 25);
    let mut sent = 0;
    for stop_at in [7, 23, 60, 61, 110] {
        let twin = Twin::start(settings(&bus));
        bus.publish(&rows[sent..stop_at]).await;
        sent = stop_at;
        let some = i64::try_from(stop_at).unwrap() * 25 - 100;
        twin.status("b7", |status| status["seq"].as_i64() >= Some(some))
            .await;
        twin.kill();
    }
    bus.publish(&rows[sent..]).await;
    let twin = Twin::start(settings(&bus));
    let status = twin.reached("b7", 3000).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.estimates().await, expected.estimates);
}

#[tokio::test]
async fn an_estimator_registered_after_the_data_reads_it_from_the_stream() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    let rows = frames("b7", &drive(2000), 1, 100);
    bus.publish(&rows).await;
    bus.all_acknowledged().await;
    bus.register("b7", 5, DOCUMENT).await;
    let status = twin.reached("b7", 2000).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.estimates().await, expected.estimates);
}

#[tokio::test]
async fn a_newer_revision_starts_anew_from_its_valid_from() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let rows = frames("b7", &drive(400), 1, 50);
    bus.publish(&rows).await;
    twin.reached("b7", 400).await;
    let mut registration = Registration {
        battery: "b7".parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision: 2,
        definition: DOCUMENT.into(),
        valid_from: 101.0,
        required_time: 0.0,
        files: Vec::new(),
        deleted: false,
        changed: 0,
        standing: rovi_common::registration::Standing::default(),
    };
    bus.put(&registration).await;
    let status = twin
        .status("b7", |status| {
            status["revision"] == 2 && status["seq"] == 400
        })
        .await;
    assert_eq!(
        status["skipped"],
        serde_json::json!({"before_valid_from": 100})
    );
    assert_eq!(status["steps"], 299);

    registration.deleted = true;
    registration.revision = 3;
    bus.put(&registration).await;
    testing::eventually(PATIENCE, async || match twin.get("/online/status").await {
        all if all == serde_json::json!({}) => Ok(()),
        all => Err(all),
    })
    .await;
}

#[tokio::test]
async fn rows_gone_from_the_stream_are_fetched_from_the_hub() {
    let bus = Bus::start().await;
    let all = drive(1000);
    let rows = frames("b7", &all, 1, 50);
    bus.publish(&rows).await;
    bus.forget_rows(13).await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let status = twin
        .status("b7", |status| status.get("last_error").is_some())
        .await;
    let error = status["last_error"].as_str().unwrap();
    assert!(
        error.contains("the rows 1 to 600 are no longer on the bus"),
        "{error}"
    );
    assert!(twin.stop());

    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    let status = twin.reached("b7", 1000).await;
    assert_same_state(&status, &uninterrupted(&rows));
    assert_eq!(*hub.asked.lock().unwrap(), ["1..600"]);
}

#[tokio::test]
async fn rows_that_retention_removed_are_no_gap_and_the_status_tells_of_them() {
    let bus = Bus::start().await;
    let all = drive(1000);
    bus.publish(&frames("b7", &all, 1, 50)).await;
    bus.forget_rows(13).await;
    // The stream begins after row 600, the hub at row 301.
    let hub = HubOfRows::start(frames("b7", &all[300..], 301, 1));
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    let status = twin.reached("b7", 1000).await;
    assert_same_state(&status, &uninterrupted(&frames("b7", &all[300..], 301, 50)));
    assert_eq!(status["skipped"], serde_json::json!({"gone": 300}));
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("300 rows were gone"), "{warnings}");
}

#[tokio::test]
async fn a_battery_of_which_the_bus_holds_nothing_is_read_from_the_hub() {
    let bus = Bus::start().await;
    let all = drive(20_000);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    let status = twin.reached("b7", 20_000).await;
    assert_same_state(&status, &uninterrupted(&frames("b7", &all, 1, 256)));
}

#[tokio::test]
async fn a_gap_heals_while_a_neighbour_goes_on() {
    let bus = Bus::start().await;
    let all = drive(500);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    bus.register("b7", 1, DOCUMENT).await;
    bus.register("b8", 2, DOCUMENT).await;
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    let rows = frames("b7", &all, 1, 50);
    bus.publish(&rows[..3]).await;
    twin.reached("b7", 150).await;
    bus.publish_bytes(&rows[3], "torn".into()).await;
    bus.publish(&rows[4..]).await;
    bus.publish(&frames("b8", &all, 1, 50)).await;
    let status = twin.reached("b7", 500).await;
    assert_same_state(&status, &uninterrupted(&rows));
    twin.reached("b8", 500).await;
    assert_eq!(hub.asked.lock().unwrap().last().unwrap(), "151..200");
}

#[tokio::test]
async fn a_burst_beyond_the_mailbox_is_read_from_the_stream_in_order() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(Settings {
        mailbox_frames: 1.try_into().unwrap(),
        ..settings(&bus)
    });
    let rows = frames("b7", &drive(6000), 1, 3);
    bus.publish(&rows[..1]).await;
    twin.reached("b7", 3).await;
    bus.publish(&rows[1..]).await;
    let status = twin.reached("b7", 6000).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.estimates().await, expected.estimates);
}

#[tokio::test]
async fn a_bus_that_was_wiped_and_refilled_heals() {
    let mut bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let rows = frames("b7", &drive(1000), 1, 50);
    let hub = HubOfRows::start(frames("b7", &drive(1000), 1, 1));
    let settings = |bus: &Bus| Settings {
        hub_url: hub.url.clone(),
        ..settings(bus)
    };
    let twin = Twin::start(settings(&bus));
    bus.publish(&rows[..10]).await;
    twin.reached("b7", 500).await;

    hub.stored.store(500, Ordering::Relaxed);
    wipe(&mut bus, &twin).await;
    bus.publish(&rows).await;
    let status = twin.reached("b7", 1000).await;
    assert_same_state(&status, &uninterrupted(&rows));
    assert!(twin.stop());

    // The checkpoint was written again, so a restart has nothing to read.
    let twin = Twin::start(settings(&bus));
    let status = twin.reached("b7", 1000).await;
    assert_same_state(&status, &uninterrupted(&rows));
    let metrics = twin.text("/metrics").await;
    assert!(metrics.contains("twin_rows_total 0"), "{metrics}");
}

/// Wipes the bus under a twin that notices it, and makes another life of it.
async fn wipe(bus: &mut Bus, twin: &Twin) {
    bus.nats.server.kill();
    bus.nats.server.wipe().unwrap();
    bus.nats.server.start_again().unwrap();
    testing::eventually(PATIENCE, async || {
        let problems = twin.readiness.problems();
        if problems.contains_key("rows") {
            Ok(())
        } else {
            Err("the wipe is not noticed")
        }
    })
    .await;
    bus.make("second life").await;
    bus.register("b7", 1, DOCUMENT).await;
}

#[tokio::test]
async fn estimates_that_went_with_a_wiped_bus_before_they_were_stored_are_made_again() {
    let mut bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let rows = frames("b7", &drive(600), 1, 50);
    let hub = HubOfRows::start(frames("b7", &drive(600), 1, 1));
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    bus.publish(&rows[..10]).await;
    twin.reached("b7", 500).await;
    hub.stored.store(300, Ordering::Relaxed);
    wipe(&mut bus, &twin).await;
    bus.publish(&rows).await;
    let status = twin.reached("b7", 600).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    let mut found = bus.newest_estimates().await;
    let lost = found.split_off(&(1, 301));
    assert_eq!(lost, expected.estimates.clone().split_off(&(1, 301)));
}

#[tokio::test]
async fn estimators_that_all_catch_up_take_turns() {
    let bus = Bus::start().await;
    let batteries = ["b1", "b2", "b3", "b4", "b5"];
    let all = drive(1500);
    for (battery, revision) in batteries.iter().zip(1..) {
        bus.publish(&frames(battery, &all, 1, 100)).await;
        bus.register(battery, revision, DOCUMENT).await;
    }
    let twin = Twin::start(Settings {
        concurrent_catch_ups: 1.try_into().unwrap(),
        ..settings(&bus)
    });
    let expected = uninterrupted(&frames("b1", &all, 1, 100));
    for battery in batteries {
        assert_same_state(&twin.reached(battery, 1500).await, &expected);
    }
}

#[tokio::test]
async fn a_stream_of_estimates_that_was_deleted_is_made_again_and_lacks_nothing_new() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let rows = frames("b7", &drive(200), 1, 10);
    bus.publish(&rows[..10]).await;
    twin.reached("b7", 100).await;
    bus.jetstream.delete_stream("ROVI_ESTIMATES").await.unwrap();
    bus.publish(&rows[10..]).await;
    twin.reached("b7", 200).await;
    assert!(twin.stop());
    let mut expected = uninterrupted(&rows).estimates;
    let new = expected.split_off(&(1, 101));
    let mut found = bus.estimates().await;
    assert_eq!(found.split_off(&(1, 101)), new);
}

#[tokio::test]
async fn another_twin_goes_on_at_once_after_a_clean_stop() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let rows = frames("b7", &drive(300), 1, 10);
    let first = Twin::start(settings(&bus));
    bus.publish(&rows[..10]).await;
    first.reached("b7", 100).await;
    let second = Twin::start(settings(&bus));
    second.reached("b7", 100).await;
    let stopped = std::time::Instant::now();
    assert!(first.stop());
    bus.publish(&rows[10..]).await;
    let status = second.reached("b7", 300).await;
    assert!(
        stopped.elapsed() < streams::PRIORITY_TIMEOUT,
        "the partition was handed over"
    );
    assert_same_state(&status, &uninterrupted(&rows));
}
