//! Twins of a trial: any number on one bus, each armed with faults of its own.

use std::{path::PathBuf, process::Command, time::Duration};

use rovi_common::{
    local::{self, ServerProcess, Signal},
    rights::Party,
    testing::eventually,
};
use serde_json::Value;

use crate::{Stack, binary};

const PATIENCE: Duration = Duration::from_mins(1);

/// One twin, which can be killed and started again on the same port.
#[derive(Debug)]
pub struct TwinProcess {
    process: Option<ServerProcess>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
    /// How often it died by itself: at a fault point.
    pub deaths: usize,
}

impl TwinProcess {
    /// Prepares a twin on the servers of `stack` without starting it.
    pub fn new(stack: &Stack, number: usize, hub: &str, settings: &[(&str, &str)]) -> Self {
        let mut environment = vec![
            ("NATS_URL".to_owned(), stack.nats.server.url()),
            stack.nats_seed(&Party::Twin),
            ("ROVI_TWIN_HUB_URL".to_owned(), hub.to_owned()),
        ];
        let settings = settings.iter();
        environment.extend(settings.map(|(key, value)| {
            let key = format!("ROVI_TWIN_{key}");
            (key, (*value).to_owned())
        }));
        Self {
            process: None,
            environment,
            folder: stack.folder().to_owned(),
            log: stack.folder().join(format!("twin-{number}.log")),
            port: local::free_port().expect("a port is free"),
            deaths: 0,
        }
    }

    /// Starts it with fault points armed as `ROVI_FAULTS` says; none if empty.
    pub fn start(&mut self, faults: &str) {
        let mut command = Command::new(binary("twin"));
        command
            .current_dir(&self.folder)
            .envs(self.environment.iter().cloned())
            .env("ROVI_FAULTS", faults)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let process = ServerProcess::spawn("twin", command, &self.log);
        self.process = Some(process.expect("the twin was built"));
    }

    /// Starts it again, without faults, if it died.
    pub fn revive(&mut self) {
        if self.process.as_mut().is_some_and(|p| p.ended().is_some()) {
            self.deaths += 1;
            self.start("");
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it by SIGTERM; tells whether it ended well.
    pub fn stop(&mut self) -> bool {
        let process = self.process.take();
        process
            .and_then(|mut process| process.stop(Signal::TERM, PATIENCE))
            .is_some_and(|status| status.success())
    }

    /// Sends a signal, if it runs.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(process) = &mut self.process {
            process.signal(signal);
        }
    }

    /// Returns its process id, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(ServerProcess::id)
    }

    /// Returns its URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually(PATIENCE, || async {
            match self.get("/ready").await {
                Ok(_) => Ok(()),
                Err(problem) => Err(problem + &self.log()),
            }
        })
        .await;
    }

    /// Gets a JSON document from it.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let answer = reqwest::get(format!("{}{path}", self.url())).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
    }

    /// Returns a counter or gauge, named with its labels.
    pub async fn metric(&self, name: &str) -> Option<i64> {
        let answer = reqwest::get(format!("{}/metrics", self.url())).await.ok()?;
        let text = answer.text().await.ok()?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Returns the end of its log.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| {
            process.failed(String::new()).to_string()
        })
    }
}
