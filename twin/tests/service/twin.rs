//! The service under test, in a runtime of its own that can be killed.

use std::{sync::mpsc, thread::JoinHandle, time::Duration};

use rovi_common::{http::Readiness, lifecycle::Lifecycle, testing};
use serde_json::Value;
use tokio::sync::oneshot;
use twin::{config::Settings, service::Service};

use crate::{bus::Bus, rows::Uninterrupted};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Twin {
    pub(crate) url: String,
    pub(crate) readiness: Readiness,
    lifecycle: Lifecycle,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Option<bool>>>,
}

pub(crate) fn settings(bus: &Bus) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        nats_url: bus.nats.server.url().parse().unwrap(),
        hub_url: "http://127.0.0.1:1".parse().unwrap(),
        bus: bus.settings.clone(),
        checkpoint_interval: Duration::from_millis(200),
        priority_timeout: Duration::from_secs(2),
        hub_timeout: Duration::from_secs(2),
        python: rovi_python::Settings {
            launcher: Some(env!("CARGO_BIN_EXE_twin").into()),
            // No test may depend on how busy the machine is.
            limits: rovi_python::Limits {
                start_timeout: Duration::from_mins(2),
                batch_timeout: Duration::from_mins(2),
                ..rovi_python::Limits::default()
            },
            ..rovi_python::Settings::default()
        },
        ..Settings::default()
    }
}

impl Twin {
    pub(crate) fn start(settings: Settings) -> Self {
        let (tell, told) = mpsc::channel();
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let ended = runtime.block_on(async {
                let service = Service::from_config(settings).await.unwrap();
                let url = format!("http://{}", service.address().unwrap());
                tell.send((url, service.lifecycle(), service.readiness()))
                    .unwrap();
                tokio::select! {
                    ended = service.run() => Some(ended.unwrap()),
                    _ = killed => None,
                }
            });
            runtime.shutdown_background();
            ended
        });
        let (url, lifecycle, readiness) = told.recv().unwrap();
        Self {
            url,
            readiness,
            lifecycle,
            kill: Some(kill),
            thread: Some(thread),
        }
    }

    /// Stops the service as SIGTERM does; tells whether it ended cleanly.
    pub(crate) fn stop(mut self) -> bool {
        self.lifecycle.stop();
        self.join() == Some(true)
    }

    /// Ends everything at once: no last checkpoint, no acknowledgement.
    pub(crate) fn kill(mut self) {
        self.kill.take().unwrap().send(()).unwrap();
        self.join();
    }

    fn join(&mut self) -> Option<bool> {
        self.thread.take().and_then(|thread| thread.join().unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        answer.text().await.unwrap()
    }

    /// Waits until a part of the service is ready.
    pub(crate) async fn ready(&self, part: &str) {
        testing::eventually(PATIENCE, async || {
            match self.readiness.problems().get(part) {
                None => Ok(()),
                Some(problem) => Err(problem.clone()),
            }
        })
        .await;
    }

    /// Waits until the default estimator of a battery satisfies a condition.
    pub(crate) async fn status(&self, battery: &str, condition: impl Fn(&Value) -> bool) -> Value {
        testing::eventually(PATIENCE, async || {
            let all = self.get("/online/status").await;
            match all.get(battery) {
                Some(status) if condition(status) => Ok(status.clone()),
                _ => Err(format!("{all}")),
            }
        })
        .await
    }

    /// Waits until the default estimator has dealt with a row and takes rows as they come.
    pub(crate) async fn reached(&self, battery: &str, seq: i64) -> Value {
        self.status(battery, |status| {
            status["seq"] == seq && status["phase"] == "live"
        })
        .await
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        self.lifecycle.stop();
        if let Some(thread) = self.thread.take() {
            let _outcome = thread.join();
        }
    }
}

/// Asserts that a status equals, bit for bit, that of a run never interrupted.
pub(crate) fn assert_same_state(status: &Value, expected: &Uninterrupted) {
    let numbers = |value: &Value| -> Vec<u64> {
        let items = value.as_array().unwrap().iter();
        items.map(|item| item.as_f64().unwrap().to_bits()).collect()
    };
    let bits =
        |values: &[f64]| -> Vec<u64> { values.iter().map(|value| value.to_bits()).collect() };
    assert_eq!(numbers(&status["mean"]), bits(&expected.mean), "{status}");
    let rows = status["covariance"].as_array().unwrap().iter();
    let covariance: Vec<u64> = rows.flat_map(numbers).collect();
    assert_eq!(covariance, bits(&expected.covariance), "{status}");
}
