//! A whole hub on a test's servers.

use std::net::SocketAddr;

use datahub::{config::Settings, service::Service};
use rovi_common::{lifecycle::Lifecycle, testing::eventually};
use serde_json::Value;
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
        Self::start_with(servers, |_| ()).await
    }

    pub(crate) async fn start_with(servers: &Servers, change: impl FnOnce(&mut Settings)) -> Self {
        let hub = Self::start_unready(servers, change).await;
        hub.ready("").await;
        hub
    }

    /// Starts a hub that need not become ready.
    pub(crate) async fn start_unready(
        servers: &Servers,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            database_url: servers.postgres.server.url().parse().unwrap(),
            nats_url: servers.nats.server.url().parse().unwrap(),
            // Nothing listens there.
            twin_url: "http://127.0.0.1:9".parse().unwrap(),
            http_workers: 1,
            ..Settings::default()
        };
        change(&mut settings);
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

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn socket_url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Stores rows with these times; both voltages and notes are there, too.
    pub(crate) async fn upload(&self, battery: &str, times: std::ops::Range<i32>) {
        let row = |n| serde_json::json!({"test_time": n, "voltage": 3.5, "note": "x"});
        let rows: Vec<Value> = times.map(row).collect();
        let url = self.url(&format!("/db/upload/{battery}"));
        let answer = reqwest::Client::new().post(url).json(&rows).send();
        let text = answer.await.unwrap().text().await.unwrap();
        assert_eq!(text, rows.len().to_string());
    }

    /// Sends a request without a body; returns status and JSON.
    pub(crate) async fn ask(&self, method: reqwest::Method, path: &str) -> (u16, Value) {
        let request = reqwest::Client::new().request(method, self.url(path));
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub(crate) async fn stop(mut self) {
        self.lifecycle.stop();
        assert!(self.running.join_next().await.unwrap().unwrap());
    }
}
