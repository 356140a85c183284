//! The whole hub: from an upload to the bus, and the twin's paths.

use crate::{hub::Hub, support::Servers};

#[tokio::test(flavor = "multi_thread")]
async fn uploaded_rows_are_on_the_bus_whatever_hub_took_them() {
    let servers = Servers::start();
    let hubs = [Hub::start(&servers).await, Hub::start(&servers).await];
    let client = reqwest::Client::new();
    for round in 0..10 {
        for hub in &hubs {
            let row = |n| serde_json::json!({"test_time": n, "voltage": 3.5, "note": "x"});
            let rows: Vec<_> = (0..40).map(|n| row(round * 40 + n)).collect();
            let url = hub.url("/db/upload/b7");
            let answer = client.post(url).json(&rows).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), "40");
        }
    }
    let frames = servers.stream_equals_table("b7").await;
    assert_eq!(frames.last().unwrap().last_seq(), 800);
    for hub in hubs {
        hub.stop().await;
    }
    let marked = "SELECT relayed_seq AS value FROM hub.batteries";
    assert_eq!(servers.number(marked), 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_a_twin_says_so_where_the_twin_should_answer() {
    let servers = Servers::start();
    let hub = Hub::start(&servers).await;
    let answer = reqwest::get(hub.url("/online/status")).await.unwrap();
    assert_eq!(answer.status(), 503);
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("Digital Twin"));
    hub.stop().await;
}
