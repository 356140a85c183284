//! The whole hub: from an upload to the bus, and the twin's paths.

use std::net::SocketAddr;

use datahub::{config::Settings, service::Service};
use rovi_common::{lifecycle::Lifecycle, testing::eventually};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, Servers};

/// A running hub.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    lifecycle: Lifecycle,
    running: JoinSet<bool>,
}

impl Hub {
    pub(crate) async fn start(servers: &Servers) -> Self {
        let hub = Self::start_with(servers, servers.nats.server.url()).await;
        hub.ready("").await;
        hub
    }

    /// Starts a hub that looks for NATS at `nats_url`.
    pub(crate) async fn start_with(servers: &Servers, nats_url: String) -> Self {
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            database_url: servers.postgres.server.url().parse().unwrap(),
            nats_url: nats_url.parse().unwrap(),
            // Nothing listens there.
            twin_url: "http://127.0.0.1:9".parse().unwrap(),
            http_workers: 1,
            ..Settings::default()
        };
        let service = Service::from_config(settings).await.unwrap();
        let (address, lifecycle) = (service.address(), service.lifecycle());
        let mut running = JoinSet::new();
        running.spawn(service.run());
        Self {
            address,
            lifecycle,
            running,
        }
    }

    /// Waits until a part is ready; all of them if it is not named.
    pub(crate) async fn ready(&self, part: &str) {
        eventually(PATIENCE, async || {
            let ready = reqwest::get(self.url("/ready")).await.unwrap();
            let is_ready = ready.status().is_success();
            let text = ready.text().await.unwrap();
            if is_ready || !(part.is_empty() || text.contains(part)) {
                return Ok(());
            }
            Err(text)
        })
        .await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn stop(mut self) {
        self.lifecycle.stop();
        assert!(self.running.join_next().await.unwrap().unwrap());
    }
}

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
