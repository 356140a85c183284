//! Corrections while estimators rest, or while their battery changes hands.

use crate::{
    bus::Bus,
    http::with_hub,
    interactions::{History, at, beliefs, estimator, heeded, register_both},
    rows::{DOCUMENT, drive, frames, uninterrupted},
    shadows::post,
    twin::{Twin, assert_same_state},
};

#[tokio::test]
async fn a_correction_while_a_shadow_is_paused_is_heeded_by_each_when_it_runs() {
    let bus = Bus::start().await;
    let all = drive(1500);
    let mut history = History::new(&all);
    let twin = Twin::start(at(&bus, &history.hub));
    twin.ready("nats").await;
    let test = async {
        register_both(&twin).await;
        bus.publish(&frames("b7", &all, 1, 50)).await;
        for name in ["default", "second"] {
            estimator(&twin, name, |shown| shown["seq"] == 1500).await;
        }
        assert_eq!(post(&twin, "/online/b7/second/pause").await.0, 200);
        let paused = estimator(&twin, "second", |shown| shown["phase"] == "paused").await;

        history.correct(&bus, 700).await;
        history.delete(&bus, 900, 910).await;
        let expected = uninterrupted(&history.frames());
        let champion = heeded(&twin, "default", &history).await;
        assert_same_state(&champion, &expected);
        let still = estimator(&twin, "second", |shown| shown["phase"] == "paused").await;
        assert_eq!(
            (&still["corrections"], &still["mean"]),
            (&0.into(), &paused["mean"])
        );

        assert_eq!(post(&twin, "/online/b7/second/resume").await.0, 200);
        let resumed = heeded(&twin, "second", &history).await;
        assert_same_state(&resumed, &expected);
        assert!(twin.stop());
        for name in ["default", "second"] {
            let found = bus.newest_estimates_of(name).await;
            assert_eq!(beliefs(found), beliefs(expected.estimates.clone()));
        }
    };
    with_hub(&bus, Box::pin(test)).await;
}

#[tokio::test]
async fn a_battery_that_changes_twin_while_going_back_ends_with_the_same_numbers() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let all = drive(3000);
    let mut history = History::new(&all);
    let mut owner = Twin::start(at(&bus, &history.hub));
    bus.publish(&frames("b7", &all, 1, 100)).await;
    owner.reached("b7", 3000).await;
    for seq in [2, 1500, 2900] {
        let heir = Twin::start(at(&bus, &history.hub));
        heir.ready("rows").await;
        history.correct(&bus, seq).await;
        history.delete(&bus, seq + 10, seq + 12).await;
        assert!(owner.stop());
        owner = heir;
    }
    let expected = uninterrupted(&history.frames());
    let status = heeded(&owner, "default", &history).await;
    assert_same_state(&status, &expected);
    assert!(owner.stop());
    assert_eq!(bus.newest_estimates().await, expected.estimates);
}
