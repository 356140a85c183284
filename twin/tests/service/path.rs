//! The path of a row through the twin, and what bad input costs.

use rovi_common::{
    frame::RowFrame,
    rows::{Column, Columns},
};

use crate::{
    bus::Bus,
    rows::{DOCUMENT, Row, drive, frame, frames, uninterrupted},
    twin::{Twin, assert_same_state, settings},
};

#[tokio::test]
async fn a_row_becomes_an_estimate_and_a_status_and_is_acknowledged() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let waiting = twin.status("b7", |_| true).await;
    assert_eq!(waiting["is_ready"], false);
    assert!(waiting.get("latest_time").is_none(), "{waiting}");

    let rows = frames("b7", &drive(300), 1, 7);
    bus.publish(&rows).await;
    let status = twin.reached("b7", 300).await;
    let expected = uninterrupted(&rows);
    assert_same_state(&status, &expected);
    assert_eq!(status["is_ready"], true);
    assert_eq!(status["latest_time"], 300.0);
    assert_eq!(
        (&status["rows"], &status["steps"]),
        (&300.into(), &299.into())
    );
    assert_eq!(
        (&status["revision"], &status["rows_behind"]),
        (&1.into(), &0.into())
    );

    assert!(twin.stop(), "the service ends cleanly");
    assert_eq!(bus.estimates().await, expected.estimates);
    bus.all_acknowledged().await;
}

#[tokio::test]
async fn frames_of_batteries_without_estimators_are_acknowledged_at_once() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("rows").await;
    bus.publish(&frames("idle", &drive(100), 1, 10)).await;
    bus.all_acknowledged().await;
    assert_eq!(twin.get("/online/status").await, serde_json::json!({}));
}

#[tokio::test]
async fn rows_without_numbers_are_counted_by_reason_and_the_rest_goes_on() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let nan = f64::NAN;
    let rows: [Row; 6] = [
        [1.0, -1.0, 3.7, 25.0],
        [2.0, -1.0, nan, 25.0],
        [nan, -1.0, 3.7, 25.0],
        [3.0, f64::INFINITY, 3.7, 25.0],
        [2.5, -1.0, 3.7, nan],
        [4.0, -1.0, 3.7, 25.0],
    ];
    let mut with_nulls = frame("b7", (1, 1), 7, &[[5.0, -1.0, 3.7, 25.0]]);
    let mut columns = with_nulls.columns.clone().into_vec();
    columns[2].1 = Column::Null(1);
    with_nulls.columns = Columns::new(columns).unwrap();
    let mut with_text = frame("b7", (1, 1), 8, &[[6.0, -1.0, 3.7, 25.0]]);
    let mut columns = with_text.columns.clone().into_vec();
    columns[1].1 = Column::Text(vec![Some("idle".to_owned())]);
    with_text.columns = Columns::new(columns).unwrap();

    bus.publish(&[frame("b7", (1, 1), 1, &rows), with_nulls, with_text])
        .await;
    let status = twin.reached("b7", 8).await;
    let skipped = serde_json::json!({
        "not_finite_voltage": 1,
        "not_finite_test_time": 1,
        "not_finite_current": 1,
        "missing_voltage": 1,
        "not_numeric_current": 1,
    });
    assert_eq!(status["skipped"], skipped);
    // The row that came late is used in its place.
    assert_eq!(status["steps"], 2);
    let metrics = twin.text("/metrics").await;
    let line = "twin_rows_skipped_total{reason=\"not_finite_voltage\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_new_segment_starts_and_keeps_the_belief() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let rows = drive(40);
    let frames = [
        frame("b7", (1, 1), 1, &rows[..20]),
        frame("b7", (1, 2), 21, &rows[..20]),
    ];
    bus.publish(&frames).await;
    let status = twin.reached("b7", 40).await;
    assert_eq!(
        (&status["steps"], &status["skipped"]),
        (&38.into(), &serde_json::json!({}))
    );
    assert_same_state(&status, &uninterrupted(&frames));
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_costs_only_itself() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let rows = frames("b7", &drive(60), 1, 20);
    bus.publish(&rows[..1]).await;
    twin.reached("b7", 20).await;
    let newer = RowFrame {
        v: 9,
        ..rows[1].clone()
    };
    let subject = "rovi.rows.b7";
    for bytes in ["no msgpack".into(), newer.encode()] {
        bus.jetstream
            .publish(subject, bytes)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    bus.publish(&rows[1..]).await;
    let status = twin.reached("b7", 60).await;
    assert_same_state(&status, &uninterrupted(&rows));
    let metrics = twin.text("/metrics").await;
    assert!(metrics.contains("twin_bad_frames_total 2"), "{metrics}");
}

#[tokio::test]
async fn a_new_epoch_starts_over() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(50), 1, 20)).await;
    twin.reached("b7", 50).await;
    let again = [frame("b7", (2, 1), 1, &drive(30))];
    bus.publish(&again).await;
    let status = twin.status("b7", |status| status["epoch"] == 2).await;
    assert_eq!(status["seq"], 30);
    assert_same_state(&status, &uninterrupted(&again));
}
