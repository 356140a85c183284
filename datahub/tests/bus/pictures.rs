//! A hub that keeps pictures instead of publishing.

use std::{fs, path::Path, time::Duration};

use datahub::config::Settings;
use futures_util::StreamExt;
use rovi_common::{sink::Sink, testing::eventually};
use serde_json::json;

use crate::{
    hub::Hub,
    support::{PATIENCE, Servers},
};

fn to(folder: &Path) -> impl FnOnce(&mut Settings) {
    let out = Some(folder.to_owned());
    move |settings| {
        settings.sink = Sink::Png;
        settings.out = out;
    }
}

async fn upload(hub: &Hub, name: &str, times: std::ops::Range<i32>) {
    let row = |n| json!({"test_time": n, "voltage": 3.0 + 0.01 * f64::from(n), "note": "x"});
    let rows: Vec<_> = times.map(row).collect();
    let url = hub.url(&format!("/db/upload/{name}"));
    let sent = reqwest::Client::new().post(url).json(&rows).send().await;
    assert_eq!(sent.unwrap().text().await.unwrap(), rows.len().to_string());
}

/// Waits for a picture that differs from the one before.
async fn picture(file: &Path, before: &[u8]) -> Vec<u8> {
    eventually(PATIENCE, async || match fs::read(file) {
        Ok(bytes) if bytes != before => Ok(bytes),
        Ok(_) => Err("it stays as it was".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_kept_nothing_is_published_and_rows_are_relayed_by_the_next_hub() {
    let servers = Servers::start();
    let client = async_nats::connect(servers.nats.server.url())
        .await
        .unwrap();
    let mut heard = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(&servers, to(folder.path())).await;

    upload(&hub, "b7", 0..40).await;
    let file = folder.path().join("history_b7.png");
    let first = picture(&file, b"").await;
    assert!(first.starts_with(b"\x89PNG\r\n\x1a\n"));
    upload(&hub, "b7", 40..80).await;
    let second = picture(&file, &first).await;
    assert!(second.starts_with(b"\x89PNG\r\n\x1a\n"));
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing lies beside the picture");

    let url = hub.url("/db/b7?confirm=b7");
    let deleted = reqwest::Client::new().delete(url).send().await.unwrap();
    assert!(deleted.status().is_success(), "{deleted:?}");
    upload(&hub, "b8", 0..40).await;
    picture(&folder.path().join("history_b8.png"), b"").await;
    eventually(PATIENCE, async || {
        if file.exists() {
            return Err("the picture of a deleted battery stays");
        }
        Ok(())
    })
    .await;
    hub.stop().await;
    let anything = tokio::time::timeout(Duration::ZERO, heard.next()).await;
    assert!(anything.is_err(), "{anything:?}");
    assert!(servers.frames("b8").await.is_empty());

    let hub = Hub::start(&servers).await;
    let frames = servers.stream_equals_table("b8").await;
    assert_eq!(frames.last().unwrap().last_seq(), 40);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_pictures_is_ready_without_nats_and_a_battery_it_cannot_draw_stops_no_other() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    // No file can take its place.
    fs::create_dir_all(folder.path().join("history_b7.png/x")).unwrap();
    let settings = to(folder.path());
    let hub = Hub::start_with(&servers, |all| {
        settings(all);
        all.nats_url = "nats://127.0.0.1:9".parse().unwrap();
    })
    .await;
    upload(&hub, "b7", 0..10).await;
    upload(&hub, "b8", 0..10).await;
    picture(&folder.path().join("history_b8.png"), b"").await;
    fs::remove_dir_all(folder.path().join("history_b7.png")).unwrap();
    picture(&folder.path().join("history_b7.png"), b"").await;
    let metrics = reqwest::get(hub.url("/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("datahub_rows_relayed_total 0"),
        "what is not relayed is told, too: {metrics}"
    );
    hub.stop().await;
}
