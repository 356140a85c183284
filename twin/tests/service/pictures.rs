//! A twin that draws what others say.

use std::{fs, path::Path};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use rovi_common::{sink::Sink, subjects, testing::eventually};
use tokio::task::JoinSet;
use twin::{config::Settings, sink::Service};

use crate::{
    bus::Bus,
    rows::{DOCUMENT, drive, frames},
    twin::{PATIENCE, Twin, settings},
};

/// Waits for a picture that differs from the one before.
async fn picture(file: &Path, before: &[u8]) -> Vec<u8> {
    eventually(PATIENCE, async || match fs::read(file) {
        Ok(bytes) if bytes != before => Ok(bytes),
        Ok(_) => Err("it stays as it was".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// Names everything that is written on the bus, with the number of messages that ever were.
async fn written(bus: &Bus) -> Vec<(String, u64)> {
    let streams = bus.jetstream.streams();
    let mut all: Vec<_> = streams
        .map_ok(|info| (info.config.name, info.state.last_sequence))
        .try_collect()
        .await
        .unwrap();
    all.sort();
    all
}

/// Tells what the bus says from now on about batteries and services.
async fn listen(bus: &Bus) -> async_nats::Subscriber {
    let heard = bus.client.subscribe("rovi.>").await.unwrap();
    bus.client.flush().await.unwrap();
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_with_pictures_draws_what_others_say_and_says_nothing_itself() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    let folder = tempfile::tempdir().unwrap();
    let drawing = Service::from_config(Settings {
        sink: Sink::Png,
        out: Some(folder.path().to_owned()),
        ..settings(&bus)
    })
    .await
    .unwrap();
    let ready = format!("http://{}/ready", drawing.address().unwrap());
    let lifecycle = drawing.lifecycle();
    let mut running = JoinSet::new();
    running.spawn(drawing.run());

    bus.publish(&frames("b7", &drive(100), 1, 50)).await;
    twin.reached("b7", 100).await;
    let file = folder.path().join("estimates_b7.png");
    let first = picture(&file, b"").await;
    assert!(first.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(reqwest::get(&ready).await.unwrap().status().is_success());
    assert!(twin.stop());

    // Nobody estimates now; the test says what a twin would.
    let mut heard = listen(&bus).await;
    let before = written(&bus).await;
    bus.publish(&frames("b7", &drive(200)[100..], 101, 50))
        .await;
    let mut told = bus.estimate_frames().await.pop().unwrap();
    told.seq.iter_mut().for_each(|seq| *seq += 100);
    let subject = subjects::estimates_of(&told.battery, &told.estimator);
    let sent = bus.jetstream.publish(subject, told.encode()).await.unwrap();
    sent.await.unwrap();
    let second = picture(&file, &first).await;
    assert!(second.starts_with(b"\x89PNG\r\n\x1a\n"));
    let after = written(&bus).await;
    let added = after
        .iter()
        .zip(&before)
        .filter(|(after, before)| after != before);
    let added: Vec<_> = added
        .map(|(after, before)| (after.0.as_str(), after.1 - before.1))
        .collect();
    assert_eq!(
        added,
        [(subjects::ESTIMATES_STREAM, 1), (subjects::ROWS_STREAM, 2)]
    );
    assert_eq!(after.len(), before.len());
    let mut messages = 0;
    while let Some(Some(_)) = heard.next().now_or_never() {
        messages += 1;
    }
    assert_eq!(messages, 3, "two frames of rows, one of estimates");

    lifecycle.stop();
    assert!(running.join_next().await.unwrap().unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_came_while_only_pictures_were_drawn_are_all_left_to_the_twin() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let folder = tempfile::tempdir().unwrap();
    let drawing = Service::from_config(Settings {
        sink: Sink::Png,
        out: Some(folder.path().to_owned()),
        ..settings(&bus)
    })
    .await
    .unwrap();
    let lifecycle = drawing.lifecycle();
    let mut running = JoinSet::new();
    running.spawn(drawing.run());
    bus.publish(&frames("b7", &drive(100), 1, 50)).await;
    let twin = Twin::start(settings(&bus));
    twin.reached("b7", 100).await;
    picture(&folder.path().join("estimates_b7.png"), b"").await;
    lifecycle.stop();
    assert!(running.join_next().await.unwrap().unwrap().unwrap());
    assert!(twin.stop());
}
