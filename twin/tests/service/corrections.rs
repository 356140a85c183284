//! Rows that come late, are corrected or deleted: the state and the newest estimates are those of
//! rows that were right and in order from the beginning.

use rovi_common::frame::RowFrame;
use serde_json::Value;
use twin::config::Settings;

use crate::{
    bus::Bus,
    hub::HubOfRows,
    rows::{DOCUMENT, Estimates, Row, drive, frame, frames, uninterrupted},
    twin::{Twin, assert_same_state, settings},
};

fn at(bus: &Bus, hub: &HubOfRows) -> Settings {
    Settings {
        hub_url: hub.url.clone(),
        ..settings(bus)
    }
}

/// Waits until the estimator has heeded a correction and is live at a row.
async fn heeded(twin: &Twin, revision: i64, seq: i64) -> Value {
    twin.status("b7", |status| {
        status["corrections"] == revision && status["seq"] == seq && status["phase"] == "live"
    })
    .await
}

/// Frames that leave out what was deleted.
fn without(rows: &[Row], gone: std::ops::RangeInclusive<usize>) -> Vec<RowFrame> {
    let (first, last) = (*gone.start(), *gone.end());
    let behind = i64::try_from(last + 1).unwrap();
    let mut all = frames("b7", &rows[..first - 1], 1, 50);
    all.extend(frames("b7", &rows[last..], behind, 50));
    all
}

/// Estimates by `test_time`: of the same rows under other numbers.
fn by_time(estimates: &Estimates) -> Vec<Vec<(&String, &u64)>> {
    let mut all: Vec<_> = estimates.values().collect();
    all.sort_by(|a, b| f64::from_bits(a["test_time"]).total_cmp(&f64::from_bits(b["test_time"])));
    all.into_iter().map(|bits| bits.iter().collect()).collect()
}

#[tokio::test]
async fn a_corrected_row_makes_the_estimator_go_back_and_live_equals_replay() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut all = drive(1200);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    let twin = Twin::start(at(&bus, &hub));
    let rows = frames("b7", &all, 1, 50);
    for part in rows[..20].chunks(5) {
        bus.publish(part).await;
        let last = part.last().unwrap().last_seq();
        twin.reached("b7", last).await;
        bus.all_acknowledged().await;
    }
    let before = twin.reached("b7", 1000).await;
    assert_eq!(before["generation"], 1);

    all[699][2] += 0.05;
    hub.correct(700, Some(frame("b7", (1, 1), 700, &all[699..700])));
    bus.correct("b7", &[(700, 700)]).await;
    let status = heeded(&twin, 1, 1000).await;
    let expected = uninterrupted(&frames("b7", &all[..1000], 1, 50));
    assert_same_state(&status, &expected);
    assert!(status["generation"].as_i64() > Some(1), "{status}");
    let anew = &status["recomputation"];
    assert_eq!(
        (&anew["reason"], &anew["is_done"]),
        (&"corrected_rows".into(), &true.into())
    );
    let from = anew["from_seq"].as_i64().unwrap();
    assert!(
        (2..=700).contains(&from),
        "it went back to a checkpoint, not to the start: {anew}"
    );
    assert_eq!(anew["to_seq"], 1000);

    // What comes after is of the new generation, whatever becomes of the twin.
    assert!(twin.stop());
    bus.publish(&rows[20..]).await;
    let twin = Twin::start(at(&bus, &hub));
    let again = twin.reached("b7", 1200).await;
    assert_eq!(again["generation"], status["generation"]);
    let expected = uninterrupted(&frames("b7", &all, 1, 50));
    assert_same_state(&again, &expected);
    assert!(twin.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}

#[tokio::test]
async fn deleted_rows_are_a_known_gap_and_their_estimates_go() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let all = drive(600);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    let twin = Twin::start(at(&bus, &hub));
    bus.publish(&frames("b7", &all, 1, 50)).await;
    twin.reached("b7", 600).await;

    for seq in 201..=230 {
        hub.correct(seq, None);
    }
    bus.correct("b7", &[(201, 230)]).await;
    let status = heeded(&twin, 1, 600).await;
    let expected = uninterrupted(&without(&all, 201..=230));
    assert_same_state(&status, &expected);
    assert_eq!(
        (&status["rows"], &status["skipped"]),
        (&570.into(), &serde_json::json!({}))
    );
    assert!(twin.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}

#[tokio::test]
async fn rows_corrected_before_the_twin_comes_to_them_are_read_as_they_are_now() {
    let bus = Bus::start().await;
    let mut all = drive(500);
    let rows = frames("b7", &all, 1, 50);
    bus.publish(&rows).await;
    for row in [4_usize, 311, 500] {
        all[row - 1][1] *= 0.5;
    }
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    bus.correct("b7", &[(4, 4), (311, 311), (500, 500)]).await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(at(&bus, &hub));
    let status = heeded(&twin, 3, 500).await;
    let expected = uninterrupted(&frames("b7", &all, 1, 50));
    assert_same_state(&status, &expected);
    assert_eq!(
        status.get("recomputation"),
        None,
        "nothing had to be done twice"
    );
    assert!(twin.stop());
    assert_eq!(bus.estimates().await, expected.estimates);
}

#[tokio::test]
async fn a_twin_that_was_down_meanwhile_heeds_corrections_at_its_start() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut all = drive(800);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    let rows = frames("b7", &all, 1, 50);
    let twin = Twin::start(at(&bus, &hub));
    bus.publish(&rows[..12]).await;
    twin.reached("b7", 600).await;
    assert!(twin.stop());

    all[2][2] -= 0.01;
    hub.correct(3, Some(frame("b7", (1, 1), 3, &all[2..3])));
    bus.correct("b7", &[(3, 3)]).await;
    bus.publish(&rows[12..]).await;
    let twin = Twin::start(at(&bus, &hub));
    let status = heeded(&twin, 1, 800).await;
    let expected = uninterrupted(&frames("b7", &all, 1, 50));
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}

#[tokio::test]
async fn late_rows_within_the_horizon_are_put_in_their_place() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let sorted = drive(1500);
    let mut all = sorted.clone();
    // One after another, near and far, and one that is too late for anybody.
    for (place, to) in [(100, 104), (200, 700), (640, 710), (1100, 1490)] {
        let moved = all.remove(place);
        all.insert(to, moved);
    }
    let twin = Twin::start(settings(&bus));
    for part in frames("b7", &all, 1, 50).chunks(3) {
        bus.publish(part).await;
        let last = part.last().unwrap().last_seq();
        twin.reached("b7", last).await;
    }
    let status = twin.reached("b7", 1500).await;
    let expected = uninterrupted(&frames("b7", &sorted, 1, 50));
    assert_same_state(&status, &expected);
    assert_eq!(
        (&status["steps"], &status["skipped"]),
        (&1499.into(), &serde_json::json!({}))
    );
    assert_eq!(status["recomputation"]["reason"], "late_rows");
    assert!(twin.stop());
    let found = bus.newest_estimates().await;
    assert_eq!(by_time(&found), by_time(&expected.estimates));
}

#[tokio::test]
async fn rows_later_than_the_horizon_are_counted_and_the_status_says_so() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut all = drive(300);
    let moved = all.remove(10);
    all.insert(250, moved);
    let twin = Twin::start(Settings {
        horizon: std::time::Duration::from_secs(100),
        ..settings(&bus)
    });
    bus.publish(&frames("b7", &all, 1, 50)).await;
    let status = twin.reached("b7", 300).await;
    assert_eq!(
        status["skipped"],
        serde_json::json!({"late_beyond_horizon": 1})
    );
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("1 rows came later than 100 s"),
        "{warnings}"
    );
}

#[tokio::test]
async fn a_twin_killed_at_any_moment_of_going_back_leaves_the_same() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut all = drive(3000);
    let hub = HubOfRows::start(frames("b7", &all, 1, 1));
    let twin = Twin::start(at(&bus, &hub));
    bus.publish(&frames("b7", &all, 1, 100)).await;
    twin.reached("b7", 3000).await;
    twin.kill();

    let mut ranges = Vec::new();
    for (seq, killed_at) in [
        (2500, 0),
        (1500, 1600),
        (700, 2000),
        (1800, 1801),
        (41, 2999),
    ] {
        let place = usize::try_from(seq - 1).unwrap();
        all[place][2] += 0.01;
        hub.correct(seq, Some(frame("b7", (1, 1), seq, &all[place..=place])));
        ranges.push((seq, seq));
        bus.correct("b7", &ranges).await;
        let twin = Twin::start(at(&bus, &hub));
        let revision = i64::try_from(ranges.len()).unwrap();
        twin.status("b7", |status| {
            status["corrections"] == revision && status["seq"].as_i64() >= Some(killed_at)
        })
        .await;
        twin.kill();
    }
    let twin = Twin::start(at(&bus, &hub));
    let status = heeded(&twin, 5, 3000).await;
    let expected = uninterrupted(&frames("b7", &all, 1, 100));
    assert_same_state(&status, &expected);
    assert!(twin.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}
