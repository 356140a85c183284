//! The settings of the Data Hub, parsed once and handed in.
//!
//! Read from a TOML file, `ROVI_HUB_<KEY>`, `DATABASE_URL` and `NATS_URL`, and flags.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use rovi_common::{
    auth::AuthSettings,
    config::ServiceUrl,
    cors::CorsSettings,
    frame::MAX_ROW_BYTES,
    rights::seed::Seed,
    sink::{self, Sink},
    streams::BusSettings,
    telemetry::LogFormat,
    tls::TlsSettings,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    cycles::CycleSettings, relay::RelaySettings, retention::RetentionSettings,
    sessions::SessionSettings, upload::bodies,
};

/// Port of the hub.
pub const DEFAULT_PORT: u16 = 8000;
const DEFAULT_DATABASE_URL: &str = "postgres://localhost/rovi";
const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_TWIN_URL: &str = "http://127.0.0.1:8001";
/// The longest name of a column: PostgreSQL's limit of an identifier, in bytes.
pub const MAX_COLUMN_NAME_BYTES: usize = 63;
const GROUPS_NEED: &str =
    "group_rows, group_bytes and group_tables must be 1 or more, group_wait 1 min or less";
/// PostgreSQL cannot keep more fixed-width columns in one page.
const MOST_COLUMNS: usize = 800;

/// The settings of the Data Hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Allows `listen` beyond loopback without TLS, or without authentication: then anybody may write.
    pub insecure_listen: bool,
    /// Who has to say who they are.
    pub auth: AuthSettings,
    /// Which pages of other origins may ask.
    pub cors: CorsSettings,
    /// The certificate that clients are shown, and whose certificates count.
    pub tls: TlsSettings,
    /// PostgreSQL, the truth.
    pub database_url: ServiceUrl,
    /// NATS, the news.
    pub nats_url: ServiceUrl,
    /// File with the seed by which the hub proves to NATS who it is; none where NATS asks nobody.
    pub nats_seed_file: Option<PathBuf>,
    /// Where news go: `png` keeps the newest picture of each battery in the folder `out`, and
    /// leaves the bus alone.
    pub sink: Sink,
    /// Folder of the pictures, for `sink = "png"`.
    pub out: Option<PathBuf>,
    /// The twin, to which `/online/*` and its like are forwarded.
    pub twin_url: Url,
    /// How log lines look.
    pub log_format: LogFormat,
    /// `tracing`'s filter. `debug` writes a line a commit, which shows at high rates.
    pub log_filter: String,
    /// Threads that serve HTTP and decode rows. Too few leave cores unused, too many only cost
    /// memory. 0 takes one a core.
    pub http_workers: usize,
    /// Threads with a connection each that write rows. Too few leave PostgreSQL waiting, too many
    /// only contend for the disk and the processors.
    pub writers: usize,
    /// Connections for queries and sessions. Too few make requests wait for each other, too many
    /// exhaust `max_connections` of PostgreSQL.
    pub pool_size: u32,
    /// Most bytes of one WebSocket frame. Too high costs memory for each socket, too low refuses
    /// batches.
    pub frame_bytes: usize,
    /// Most bytes of all WebSocket frames of 64 KiB or more while they come; sockets wait in the
    /// midst of one until there is room. Too high costs memory, too low has clients on slow lines
    /// wait for each other.
    pub frames_bytes: u32,
    /// Most bytes of the body of one `POST`. Too high costs memory for each request.
    pub body_bytes: usize,
    /// Most rows of the body of one `POST`. Too high lets a small body of empty cells hold a writer
    /// for longer than anybody waits, too low refuses long columns.
    pub body_rows: usize,
    /// Most bytes of the bodies of all `POST`s at once: half as they come, half as they are decoded.
    /// Too high costs memory, too low refuses some where many come together.
    pub bodies_bytes: u32,
    /// How long a `POST` waits for its rows to be durable. Too low sends clients away that need
    /// not go, too high keeps them in the dark while a table is locked.
    #[serde(with = "humantime_serde")]
    pub post_timeout: Duration,
    /// Most rows of one frame. Too high lets one frame hold a writer for long.
    pub rows_per_frame: usize,
    /// Most bytes of one row, at most 256 KiB so that it fits a frame on the bus.
    pub row_bytes: usize,
    /// Most columns of a table, at most 800: PostgreSQL keeps a row's fixed part in one page.
    pub columns: usize,
    /// Most rows of a connection that are not stored yet. Too high makes resuming slow, too low
    /// makes uploaders wait for each commit.
    pub window_rows: usize,
    /// Most bytes of decoded rows of one battery that wait to be stored. Too high lets a battery
    /// whose table is locked take the memory, too low makes its uploaders stutter.
    pub battery_queue_bytes: u32,
    /// Most bytes of decoded rows of all batteries that wait to be stored: the memory that an
    /// absent PostgreSQL may cost. Half of it is for batteries that are set aside, so that the
    /// others keep theirs.
    pub queue_bytes: u32,
    /// Frames that wait for one writer. Too low makes groups small, too high makes stopping slow.
    pub queue_frames: usize,
    /// Rows after which a group is committed without waiting for more. Too high makes rows wait,
    /// too low makes a disk flush for few rows.
    pub group_rows: usize,
    /// Bytes of decoded rows after which a group is committed.
    pub group_bytes: usize,
    /// Tables of one group: each takes locks, of which PostgreSQL has 64 a connection by default.
    pub group_tables: usize,
    /// How long rows of a fleet may wait for later rows of their batteries, to be written with them.
    /// Too high delays acknowledgements, too low makes every row a statement of its own. Rows of few
    /// batteries never wait; with 0 none do.
    #[serde(with = "humantime_serde")]
    pub group_wait: Duration,
    /// How long a group waits for a lock before the battery that holds it up is set aside. Too
    /// high makes its neighbours wait, too low sets batteries aside for nothing.
    #[serde(with = "humantime_serde")]
    pub lock_timeout: Duration,
    /// A fall of `test_time` by more than this, in seconds, begins a new segment. Too low takes
    /// late rows for new tests, too high joins tests.
    pub segment_horizon_s: f64,
    /// How often a socket is pinged.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Silence after which a socket is closed. Too low cuts clients that send rarely and answer
    /// no pings, too high keeps dead sockets.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Exports that run at once; each holds some pages of rows in memory, and a battdat file on
    /// the disk. Too many take the pool's connections, too few refuse people.
    pub exports: usize,
    /// Files of rows (HDF5) that are taken in at once; each lies on the disk, in TMPDIR, and is read
    /// by a process that takes up to 1 GiB. Too many fill disk and memory, too few refuse people.
    pub files: usize,
    /// Most bytes of such a file. Too high fills the disk, too low sends people to `rovicli stream`.
    pub file_bytes: u64,
    /// How often the hub says on the bus that it lives. Too low keeps the bus busy, too high
    /// shows its end late.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// How much the bus keeps.
    pub bus: BusSettings,
    /// How stored rows get to the bus.
    pub relay: RelaySettings,
    /// Which rows stay.
    pub retention: RetentionSettings,
    /// How long upload sessions are known.
    pub sessions: SessionSettings,
    /// How cycles are kept up to date.
    pub cycles: CycleSettings,
    /// How long a stop waits for rows to be stored and sockets to close. Too low cuts uploads
    /// that would have been acknowledged, too high keeps an orchestrator waiting.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let url = "the default URLs are constants of valid form";
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            insecure_listen: false,
            auth: AuthSettings::default(),
            cors: CorsSettings::default(),
            tls: TlsSettings::default(),
            database_url: DEFAULT_DATABASE_URL.parse().expect(url),
            nats_url: DEFAULT_NATS_URL.parse().expect(url),
            nats_seed_file: None,
            sink: Sink::default(),
            out: None,
            twin_url: DEFAULT_TWIN_URL.parse().expect(url),
            log_format: LogFormat::default(),
            log_filter: "info".to_owned(),
            http_workers: 0,
            writers: 4,
            pool_size: 8,
            frame_bytes: 4 << 20,
            body_bytes: 64 << 20,
            body_rows: 4 << 20,
            bodies_bytes: 512 << 20,
            frames_bytes: 256 << 20,
            post_timeout: Duration::from_secs(30),
            rows_per_frame: 65_536,
            row_bytes: MAX_ROW_BYTES,
            columns: MOST_COLUMNS,
            window_rows: 262_144,
            battery_queue_bytes: 64 << 20,
            queue_bytes: 512 << 20,
            queue_frames: 16_384,
            group_rows: 10_000,
            group_bytes: 16 << 20,
            group_tables: 208,
            group_wait: Duration::from_millis(2500),
            lock_timeout: Duration::from_millis(200),
            segment_horizon_s: 3600.0,
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_mins(5),
            exports: 4,
            files: 2,
            file_bytes: 1 << 30,
            heartbeat_interval: Duration::from_secs(5),
            bus: BusSettings::default(),
            relay: RelaySettings::default(),
            retention: RetentionSettings::default(),
            sessions: SessionSettings::default(),
            cycles: CycleSettings::default(),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Reads what this service proves itself to NATS by.
    ///
    /// # Errors
    /// The file cannot be used; the text names setting and file.
    pub fn nats_seed(&self) -> Result<Option<Seed>, String> {
        Seed::read_optional("nats_seed_file", self.nats_seed_file.as_deref())
    }

    fn has_usable_groups(&self) -> bool {
        let smallest = self.group_rows.min(self.group_bytes).min(self.group_tables);
        smallest >= 1 && self.group_wait <= Duration::from_mins(1)
    }

    fn security_problems(&self) -> Vec<String> {
        let listening = (self.listen, self.insecure_listen);
        let listening = self.tls.check_listen(&self.auth, listening);
        let mut problems = self.auth.problems();
        problems.extend(self.tls.problems());
        problems.extend(listening.err());
        problems.extend(self.cors.problems());
        problems.extend(self.nats_seed().err());
        problems
    }

    /// Tells everything that is wrong with the settings, before anything is opened.
    ///
    /// # Errors
    /// One line for each problem.
    pub fn check(&self) -> Result<(), String> {
        let mut problems = self.security_problems();
        problems.extend(sink::problem(self.sink, self.out.as_deref()).map(str::to_owned));
        let mut need = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        need(
            1 <= self.writers && self.writers <= 64,
            "writers must be 1 to 64",
        );
        need(self.pool_size >= 2, "pool_size must be 2 or more");
        let columns = (1..=MOST_COLUMNS).contains(&self.columns);
        need(columns, "columns must be 1 to 800");
        need(
            1 <= self.row_bytes && self.row_bytes <= MAX_ROW_BYTES,
            "row_bytes must be 1 to 262144",
        );
        need(
            self.frame_bytes >= self.row_bytes && self.frames_bytes as usize >= self.frame_bytes,
            "frame_bytes must be row_bytes or more, and frames_bytes frame_bytes or more",
        );
        let rows = self.rows_per_frame.min(self.body_rows);
        need(rows >= 1, "rows_per_frame and body_rows must be 1 or more");
        need(
            self.window_rows >= self.rows_per_frame,
            "window_rows must be rows_per_frame or more",
        );
        need(self.queue_frames >= 1, "queue_frames must be 1 or more");
        need(
            self.battery_queue_bytes >= 1 && self.queue_bytes / 2 >= self.battery_queue_bytes,
            "queue_bytes must be twice battery_queue_bytes or more",
        );
        need(self.has_usable_groups(), GROUPS_NEED);
        need(
            self.lock_timeout >= Duration::from_millis(1),
            "lock_timeout must be 1 ms or more",
        );
        need(
            self.segment_horizon_s >= 0.0,
            "segment_horizon_s must be 0 or more",
        );
        let exports = (1..=1000).contains(&self.exports);
        need(exports, "exports must be 1 to 1000");
        let files = (1..=100).contains(&self.files) && self.file_bytes >= 1;
        need(files, "files must be 1 to 100, and file_bytes 1 or more");
        need(bodies::is_usable(self), bodies::NEEDS);
        need(self.relay.is_usable(), RelaySettings::NEEDS);
        need(self.retention.is_usable(), RetentionSettings::NEEDS);
        need(self.sessions.is_usable(), SessionSettings::NEEDS);
        need(self.cycles.is_usable(), CycleSettings::NEEDS);
        need(
            !self.ping_interval.is_zero() && !self.heartbeat_interval.is_zero(),
            "ping_interval and heartbeat_interval must be above 0",
        );
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_usable() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn all_problems_are_told_together() {
        let settings = Settings {
            writers: 0,
            columns: 801,
            ..Settings::default()
        };
        let problems = settings.check().unwrap_err();
        assert!(problems.contains("writers") && problems.contains("columns"));
    }
}
