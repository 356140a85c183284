//! Hubs of a trial: any number on one database, each armed with faults of its own.

use std::{path::PathBuf, process::Command, time::Duration};

use rovi_common::{
    local::{self, ServerProcess, Signal},
    rights::Party,
    testing::eventually,
};

use crate::{Stack, binary};

const PATIENCE: Duration = Duration::from_mins(1);

/// One hub, which can be killed and started again on the same port.
#[derive(Debug)]
pub struct HubProcess {
    process: Option<ServerProcess>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
    /// The most memory that one of its processes took, in KiB.
    peak_kib: i64,
    /// How often it died by itself: at a fault point.
    pub deaths: usize,
}

impl HubProcess {
    /// Prepares a hub on the servers of `stack` without starting it.
    pub fn new(stack: &Stack, number: usize, settings: &[(&str, &str)]) -> Self {
        let mut environment = vec![
            ("DATABASE_URL".to_owned(), stack.database_url().to_owned()),
            ("NATS_URL".to_owned(), stack.nats.server.url()),
            stack.nats_seed(&Party::Hub),
        ];
        let settings = settings.iter();
        environment.extend(settings.map(|(key, value)| {
            let key = format!("ROVI_HUB_{key}");
            (key, (*value).to_owned())
        }));
        Self {
            process: None,
            environment,
            folder: stack.folder().to_owned(),
            log: stack.folder().join(format!("hub-{number}.log")),
            port: local::free_port().expect("a port is free"),
            peak_kib: 0,
            deaths: 0,
        }
    }

    /// Starts it with fault points armed as `ROVI_FAULTS` says; none if empty.
    pub fn start(&mut self, faults: &str) {
        self.note_memory();
        let mut command = Command::new(binary("datahub"));
        command
            .current_dir(&self.folder)
            .envs(self.environment.iter().cloned())
            .env("ROVI_FAULTS", faults)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let process = ServerProcess::spawn("datahub", command, &self.log);
        self.process = Some(process.expect("the hub was built"));
    }

    /// Prepares a task of the same binary with the same settings.
    pub fn task(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("datahub"));
        command
            .current_dir(&self.folder)
            .envs(self.environment.iter().cloned())
            .args(args);
        command
    }

    /// Starts it again, without faults, if it died; tells whether it did.
    pub fn revive(&mut self) -> bool {
        let died = self.process.as_mut().is_some_and(|p| p.ended().is_some());
        if died {
            self.deaths += 1;
            self.start("");
        }
        self.note_memory();
        died
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.note_memory();
        self.process = None;
    }

    /// Stops it by SIGTERM; tells whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.note_memory();
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

    /// Returns its URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the URL of uploads, without a slash at its end.
    pub fn upload_url(&self) -> String {
        format!("ws://127.0.0.1:{}/db/upload", self.port)
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually(PATIENCE, || says_ready(self.url(), self.log())).await;
    }

    /// Waits until it is ready, and starts it again where it dies meanwhile: a fault point may be
    /// passed after the last row was acknowledged.
    pub async fn revived(&mut self) {
        eventually(PATIENCE, || {
            self.revive();
            says_ready(self.url(), self.log())
        })
        .await;
    }

    /// Returns a counter or gauge, named with its labels.
    pub async fn metric(&self, name: &str) -> Option<i64> {
        let answer = reqwest::get(format!("{}/metrics", self.url())).await.ok()?;
        let text = answer.text().await.ok()?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Returns the most memory that it ever took, in KiB.
    pub fn peak_kib(&mut self) -> i64 {
        self.note_memory();
        self.peak_kib
    }

    /// Returns the end of its log.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| {
            process.failed(String::new()).to_string()
        })
    }

    fn note_memory(&mut self) {
        let Some(process) = &self.process else {
            return;
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        self.peak_kib = self.peak_kib.max(peak.unwrap_or_default());
    }
}

/// Returns what the hub at `url`, whose log is `log`, says or lacks where it is not ready.
async fn says_ready(url: String, log: String) -> Result<(), String> {
    let answer = reqwest::get(format!("{url}/ready")).await;
    let answer = answer.map_err(|error| format!("{error}; {log}"))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(answer.text().await.unwrap_or_default() + &log)
}
