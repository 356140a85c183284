//! The settings of the service `twin`.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use rovi_common::{
    auth::AuthSettings,
    config::ServiceUrl,
    cors::CorsSettings,
    rights::seed::Seed,
    sink::{self, Sink},
    streams::BusSettings,
    telemetry::LogFormat,
    tls::TlsSettings,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::alerts::Reach;

/// Start of the environment variables of this service.
pub const ENV_PREFIX: &str = "ROVI_TWIN_";

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Allows `listen` beyond loopback without TLS, or without authentication: then anybody may do
    /// everything.
    pub insecure_listen: bool,
    /// Who has to say who they are.
    pub auth: AuthSettings,
    /// Which pages of other origins may ask.
    pub cors: CorsSettings,
    /// The certificate that clients are shown, and whose certificates count.
    pub tls: TlsSettings,
    /// The bus.
    pub nats_url: ServiceUrl,
    /// File with the seed by which the twin proves to NATS who it is; none where NATS asks nobody.
    pub nats_seed_file: Option<PathBuf>,
    /// Whether this twin estimates (`nats`), or only draws what others say: `png` keeps the newest
    /// picture of each battery in the folder `out`.
    pub sink: Sink,
    /// Folder of the pictures, for `sink = "png"`.
    pub out: Option<PathBuf>,
    /// The hub, for rows that the bus no longer holds.
    pub hub_url: Url,
    /// How streams and buckets are made where they are missing; must equal the hub's.
    pub bus: BusSettings,
    /// How often the state of each estimator is saved and its frames acknowledged. Too long: more
    /// rows are estimated again after a crash; it must stay well below a minute, after which
    /// frames come again. Too short: the bus is kept busy with checkpoints.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// How long a twin may be silent before others take its partitions, in whole seconds. Too short:
    /// a busy machine is taken for a dead one, and work moves to and fro; too long: batteries wait
    /// for so long after a crash.
    #[serde(with = "humantime_serde")]
    pub priority_timeout: Duration,
    /// How far `test_time` may fall within a segment for a row to count as `late` and not as
    /// `late_beyond_horizon`; the hub begins a new segment beyond its own.
    #[serde(with = "humantime_serde")]
    pub horizon: Duration,
    /// Frames that may wait for one estimator. Beyond that it reads them from the stream by
    /// itself. Too few: bursts take that detour; too many: memory, up to 512 KiB a frame.
    pub mailbox_frames: NonZeroUsize,
    /// Estimators that may read past rows at the same time. More of them use more memory.
    pub concurrent_catch_ups: NonZeroUsize,
    /// How Python estimators are run.
    pub python: rovi_python::Settings,
    /// Python estimators that may run at the same time in this twin, each in a process with up to
    /// `python.limits.memory_bytes`; others wait and say so.
    pub python_estimators: NonZeroUsize,
    /// How long the hub may take to answer.
    #[serde(with = "humantime_serde")]
    pub hub_timeout: Duration,
    /// How often the twin says on the bus that it lives. Too low keeps the bus busy, too high shows
    /// its end late.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// Live sockets and event streams.
    pub live: LiveSettings,
    /// Alerts.
    pub alerts: AlertSettings,
    /// Backtests.
    pub backtest: BacktestSettings,
    /// How long a stop may take before tasks are left behind.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// What is logged, in the form of `tracing`: `info`, `twin=debug` …
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Alerts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// The file with the secret by which webhooks are signed; without it no rule may have one.
    pub webhook_secret_file: Option<PathBuf>,
    /// Inner addresses that webhooks may go to: networks, addresses, and names of hosts. Whoever may
    /// make rules can reach those from here. Without authentication and on loopback, this machine is
    /// allowed by itself.
    pub webhook_allow: Vec<String>,
}

/// Backtests: candidates over stored history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BacktestSettings {
    /// How many may run in this twin at the same time; each takes up to two cores. Others are
    /// refused with 503.
    pub jobs: NonZeroUsize,
    /// How many are kept on the bus, of all batteries and twins; the oldest that ended go first.
    pub kept: NonZeroUsize,
}

impl Default for BacktestSettings {
    fn default() -> Self {
        Self {
            jobs: count(2),
            kept: count(64),
        }
    }
}

/// Live sockets (`/ws`) and event streams (`/events`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveSettings {
    /// How many may be open. Each costs some 30 KiB.
    pub sockets: usize,
    /// How often each is pinged.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Silence after which a socket is closed. Too low cuts clients that answer pings late, too
    /// high keeps dead sockets.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a client may leave messages unread; meanwhile it costs nobody else anything.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// Rows that a client which comes back gets again; one that missed more starts anew.
    pub replay_rows: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            sockets: 4096,
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_mins(1),
            patience: Duration::from_secs(30),
            replay_rows: 100_000,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            insecure_listen: false,
            auth: AuthSettings::default(),
            cors: CorsSettings::default(),
            tls: TlsSettings::default(),
            nats_url: url("nats://127.0.0.1:4222"),
            nats_seed_file: None,
            sink: Sink::default(),
            out: None,
            hub_url: url("http://127.0.0.1:8000"),
            bus: BusSettings::default(),
            checkpoint_interval: Duration::from_secs(2),
            priority_timeout: rovi_common::streams::PRIORITY_TIMEOUT,
            horizon: Duration::from_hours(1),
            mailbox_frames: count(64),
            concurrent_catch_ups: count(8),
            python: rovi_python::Settings::default(),
            python_estimators: count(32),
            hub_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(5),
            live: LiveSettings::default(),
            alerts: AlertSettings::default(),
            backtest: BacktestSettings::default(),
            stop_timeout: Duration::from_secs(15),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
        }
    }
}

impl Settings {
    /// Returns where webhooks may go.
    ///
    /// # Errors
    /// `alerts.webhook_allow` cannot be read.
    pub fn webhook_reach(&self) -> Result<Reach, String> {
        let is_for_own_users = !self.auth.required && self.listen.ip().is_loopback();
        Reach::of(&self.alerts.webhook_allow, is_for_own_users)
    }

    /// Reads what this service proves itself to NATS by.
    ///
    /// # Errors
    /// The file cannot be used; the text names setting and file.
    pub fn nats_seed(&self) -> Result<Option<Seed>, String> {
        Seed::read_optional("nats_seed_file", self.nats_seed_file.as_deref())
    }

    /// Checks what single fields cannot tell.
    ///
    /// # Errors
    /// All problems at once, each naming its setting.
    pub fn check(&self) -> Result<(), String> {
        let mut problems = self.auth.problems();
        problems.extend(self.tls.problems());
        problems.extend(self.cors.problems());
        let listening = (self.listen, self.insecure_listen);
        if let Err(problem) = self.tls.check_listen(&self.auth, listening) {
            problems.push(format!("listen: {problem}"));
        }
        problems.extend(self.nats_seed().err());
        problems.extend(sink::problem(self.sink, self.out.as_deref()).map(str::to_owned));
        problems.extend(self.webhook_reach().err());
        if self.bus.partitions == 0 {
            problems.push("bus.partitions: must be 1 or more".to_owned());
        }
        let longest = rovi_common::streams::ACK_WAIT / 4;
        if self.checkpoint_interval.is_zero() || self.checkpoint_interval > longest {
            problems.push(format!(
                "checkpoint_interval: must lie above 0 and be at most {longest:?}"
            ));
        }
        let (shortest, timeout) = (Duration::from_secs(1), self.priority_timeout);
        if timeout < shortest || timeout.subsec_nanos() != 0 {
            problems.push("priority_timeout: must be whole seconds, 1 s or more".to_owned());
        }
        for (name, time) in [
            ("heartbeat_interval", self.heartbeat_interval),
            ("live.ping_interval", self.live.ping_interval),
            ("live.patience", self.live.patience),
        ] {
            if time.is_zero() {
                problems.push(format!("{name}: must lie above 0"));
            }
        }
        if self.live.idle_timeout <= self.live.ping_interval {
            problems.push("live.idle_timeout: must lie above live.ping_interval".to_owned());
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems.join("; "))
    }
}

fn url<T: FromStr<Err = url::ParseError>>(text: &str) -> T {
    text.parse().expect("defaults are valid URLs")
}

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fit_for_use() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn the_sample_file_gives_the_defaults() {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/twin.toml");
        let args = rovi_common::config::ServiceArgs {
            config: Some(sample.into()),
            nats_url: Some(Settings::default().nats_url.expose().to_owned()),
            ..Default::default()
        };
        let loaded = rovi_common::config::load::<Settings>("ROVI_SAMPLE_", &args, &args).unwrap();
        let read = serde_json::to_value(&loaded.settings).unwrap();
        assert_eq!(read, serde_json::to_value(Settings::default()).unwrap());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let settings = Settings {
            listen: "0.0.0.0:8001".parse().unwrap(),
            checkpoint_interval: Duration::from_mins(2),
            ..Settings::default()
        };
        let problems = settings.check().unwrap_err();
        assert!(problems.contains("listen:"), "{problems}");
        assert!(problems.contains("checkpoint_interval:"), "{problems}");
    }
}
