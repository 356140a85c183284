//! Watchers that come back: the rows that they missed, as they are now, or word that those are gone.

use rovi_common::testing::eventually;
use serde_json::{Value, json};
use twin::config::Settings;

use crate::{
    bus::Bus,
    hub::HubOfRows,
    live::{hear_json, hear_until, open},
    rows::{DOCUMENT, drive, frame, frames},
    twin::{PATIENCE, Twin, settings},
};

/// Waits until the twin itself shows a battery for which the condition holds: what it says on the bus
/// it shows a moment later.
async fn shown(twin: &Twin, condition: &str) {
    let url = format!("{}/online/status?where={condition}", twin.url);
    eventually(PATIENCE, || async {
        let page: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        if page["total"] == 1 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_gets_the_rows_that_were_missed_with_their_estimates() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(60), 1, 7)).await;
    shown(&twin, "estimated_seq = 60").await;
    let mut socket = open(&twin, "?battery=b7&since=b7:1:33").await;
    assert_eq!(hear_json(&mut socket).await, json!({}));
    let estimates = bus.estimates().await;
    for seq in 34..=60 {
        let data = hear_json(&mut socket).await["battery:b7:data"].clone();
        assert_eq!(data["seq"], seq);
        let place = usize::try_from(seq - 1).unwrap();
        assert_eq!(data["voltage"].as_f64(), Some(drive(60)[place][2]));
        let charge = data["state_of_charge"].as_f64().map(f64::to_bits);
        assert_eq!(charge, Some(estimates[&(1, seq)]["soc"]), "{data}");
    }
    bus.publish(&frames("b7", &drive(61)[60..], 61, 1)).await;
    hear_until(&mut socket, "b7", |data| data["seq"] == 61).await;
}

#[tokio::test]
async fn who_comes_back_after_a_correction_hears_nothing_of_what_was_before() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut rows = drive(60);
    let hub = HubOfRows::start(frames("b7", &rows, 1, 1));
    let twin = Twin::start(Settings {
        hub_url: hub.url.clone(),
        ..settings(&bus)
    });
    bus.publish(&frames("b7", &rows, 1, 7)).await;
    twin.reached("b7", 60).await;
    rows[19][2] += 0.05;
    hub.correct(20, Some(frame("b7", (1, 1), 20, &rows[19..20])));
    bus.correct("b7", &[(20, 20)]).await;
    shown(
        &twin,
        "estimated_seq = 60 and generation > 1 and phase = live",
    )
    .await;
    // Row 20 stands in the stream as it was.
    let mut socket = open(&twin, "?battery=b7&since=b7:1:15").await;
    assert_eq!(hear_json(&mut socket).await, json!({}));
    let notice = hear_json(&mut socket).await["notice"].clone();
    assert_eq!(notice["type"], "resync", "{notice}");
    assert!(
        notice["reason"].as_str().unwrap().contains("corrected"),
        "{notice}"
    );
    // Of the rows behind it only the estimates were replaced.
    let mut socket = open(&twin, "?battery=b7&since=b7:1:33").await;
    assert_eq!(hear_json(&mut socket).await, json!({}));
    let estimates = bus.newest_estimates().await;
    for seq in 34..=60 {
        let data = hear_json(&mut socket).await["battery:b7:data"].clone();
        assert_eq!(data["seq"], seq);
        let charge = data["state_of_charge"].as_f64().map(f64::to_bits);
        assert_eq!(charge, Some(estimates[&(1, seq)]["soc"]), "{data}");
    }
}

#[tokio::test]
async fn who_missed_more_than_there_is_hears_that_it_begins_anew() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(40), 1, 10)).await;
    shown(&twin, "seq = 40").await;
    bus.forget_rows(3).await;
    for since in ["b7:1:5", "b7:2:5", "b7:1:90"] {
        let mut socket = open(&twin, &format!("?since={since}")).await;
        assert_eq!(hear_json(&mut socket).await, json!({}));
        let notice = hear_json(&mut socket).await;
        assert_eq!(notice["notice"]["type"], "resync", "{since}: {notice}");
        let data = hear_json(&mut socket).await;
        assert_eq!(data["battery:b7:data"]["seq"], 40);
    }
    let mut socket = open(&twin, "?since=b7:1:25").await;
    assert_eq!(hear_json(&mut socket).await, json!({}));
    assert_eq!(hear_json(&mut socket).await["battery:b7:data"]["seq"], 26);
}
