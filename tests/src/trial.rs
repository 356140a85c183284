//! A trial: servers, hubs and uploaders, one fault in the midst of it, and the verdict.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rovi_common::{
    local::{Signal, signal_children},
    testing::eventually,
};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use crate::{
    Stack,
    database::Database,
    hub::HubProcess,
    uploader::{Acknowledged, Upload},
    verdict,
};

/// How long anything may take to come right after a fault.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Most memory of a hub, in KiB, with the queues below full.
const MOST_KIB: i64 = 600 << 10;
/// Settings of the hubs: small queues, so that their bounds are met, and a quick sweep.
const SETTINGS: [(&str, &str); 5] = [
    ("QUEUE_BYTES", "67108864"),
    ("BATTERY_QUEUE_BYTES", "16777216"),
    ("RELAY__SWEEP_INTERVAL", "200ms"),
    ("LOG_FORMAT", "text"),
    ("POOL_SIZE", "6"),
];
/// Uploads after which a hub that was to die has passed any point often enough.
const MOST_UPLOADS: usize = 20;
/// Where uploaders stop until the fault has struck, of all their rows.
const GATE: f64 = 0.4;

/// How much is uploaded.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Uploaders, each with a session of its own.
    pub uploaders: usize,
    /// Batteries that they share.
    pub batteries: usize,
    /// Rows of each.
    pub rows: i64,
    /// Most rows of a frame.
    pub frame_rows: i64,
    /// Most rows without acknowledgement.
    pub window: i64,
}

impl Load {
    /// What one hub takes easily.
    pub const LIGHT: Self = Self {
        uploaders: 4,
        batteries: 3,
        rows: 1_000,
        frame_rows: 40,
        window: 200,
    };
    /// Far more at once than a hub stores.
    pub const HEAVY: Self = Self {
        uploaders: 12,
        batteries: 4,
        rows: 40_000,
        frame_rows: 4_000,
        window: 200_000,
    };
}

/// What is running.
#[derive(Debug)]
pub struct Trial {
    /// The servers.
    pub stack: Stack,
    /// The hubs.
    pub hubs: Vec<HubProcess>,
    /// For what a fault draws.
    pub rng: ChaCha8Rng,
    load: Load,
    gate: watch::Sender<i64>,
    acknowledged: Arc<AtomicI64>,
    running: JoinSet<Acknowledged>,
    logs: Vec<Acknowledged>,
}

/// What was seen in a trial in which nothing was lost.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Rows in tables.
    pub rows: usize,
    /// Connections of all uploaders.
    pub connections: usize,
    /// Hubs that died at a fault point.
    pub deaths: usize,
    /// The most memory of a hub, in KiB.
    pub peak_kib: i64,
}

/// Has PostgreSQL take 3 ms for each flush of its log: groups are then committed ahead of it.
fn slow_commits(stack: &Stack) {
    let mut database = Database::open(stack.database_url());
    database.run("ALTER SYSTEM SET commit_delay = 3000");
    database.run("ALTER SYSTEM SET commit_siblings = 0");
    database.run("SELECT pg_reload_conf()");
}

impl Trial {
    /// Starts servers and hubs, the first of them with fault points armed.
    pub async fn start(hubs: usize, load: Load, seed: u64, faults: &str) -> Self {
        let stack = Stack::servers();
        // Points are armed by how often they are passed, which slow commits change.
        if seed % 2 == 1 && faults.is_empty() {
            slow_commits(&stack);
        }
        let mut hubs: Vec<HubProcess> = (0..hubs)
            .map(|number| HubProcess::new(&stack, number, &SETTINGS))
            .collect();
        for (hub, faults) in hubs
            .iter_mut()
            .zip(std::iter::once(faults).chain(std::iter::repeat("")))
        {
            hub.start(faults);
        }
        for hub in &hubs {
            hub.ready().await;
        }
        #[expect(clippy::cast_precision_loss, reason = "row numbers are small")]
        #[expect(clippy::cast_possible_truncation, reason = "a share of a small number")]
        let gate = (load.rows as f64 * GATE) as i64;
        Self {
            stack,
            hubs,
            rng: ChaCha8Rng::seed_from_u64(seed),
            load,
            gate: watch::Sender::new(gate),
            acknowledged: Arc::default(),
            running: JoinSet::new(),
            logs: Vec::new(),
        }
    }

    /// Starts the uploaders, over all hubs.
    pub fn upload(&mut self) {
        let urls: Vec<String> = self.hubs.iter().map(HubProcess::upload_url).collect();
        self.upload_by(&urls);
    }

    /// Starts the uploaders; each takes another one of `urls` after a failure.
    pub fn upload_by(&mut self, urls: &[String]) {
        for number in 0..self.load.uploaders {
            let upload = Upload {
                battery: self.battery(number % self.load.batteries.max(1)),
                session: Uuid::from_u128(self.rng.random()),
                rows: self.load.rows,
                frame_rows: 1..=self.load.frame_rows,
                window: self.load.window,
                hubs: urls.to_vec(),
                seed: self.rng.random(),
            };
            let (gate, progress) = (self.gate.subscribe(), Arc::clone(&self.acknowledged));
            self.running.spawn(upload.run(gate, progress));
        }
    }

    /// Returns the name of a battery by its number.
    pub fn battery(&self, number: usize) -> String {
        format!("b{number}")
    }

    /// Waits until a part of the rows before the gate is acknowledged.
    pub async fn under_way(&self) {
        let rows = self.load.rows * i64::try_from(self.load.uploaders).unwrap_or(1) / 10;
        let mut database = self.stack.database();
        eventually(PATIENCE, || {
            let begun =
                database.number("SELECT count(*) AS value FROM hub.batteries WHERE last_seq > 0");
            let acknowledged = self.acknowledged.load(Ordering::Relaxed);
            let all = usize::try_from(begun).is_ok_and(|begun| begun >= self.load.batteries);
            let is_under_way = all && acknowledged >= rows;
            let state = format!("{acknowledged} of {rows} rows, {begun} batteries");
            async move { is_under_way.then_some(()).ok_or(state) }
        })
        .await;
    }

    /// Lets the uploaders go on to their ends.
    pub fn open_gate(&self) {
        self.gate.send_replace(i64::MAX);
    }

    /// Waits until all uploaders are done and the stream has all rows, starting hubs that died
    /// again meanwhile; then judges.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn finish(mut self) -> Result<Seen> {
        self.open_gate();
        self.all_acknowledged().await?;
        for hub in &mut self.hubs {
            hub.revived().await;
        }
        self.judge().await
    }

    /// Waits until every uploader is done.
    ///
    /// # Errors
    /// They do not end, or one found a contradiction.
    pub async fn uploaded(&mut self) -> Result<()> {
        self.open_gate();
        self.all_acknowledged().await
    }

    /// Uploads again and again until a hub died: how often it passes a point depends on how many
    /// rows it could gather, and so on the machine.
    ///
    /// # Errors
    /// As [`Trial::uploaded`].
    pub async fn until_a_hub_died(&mut self) -> Result<()> {
        for _ in 0..MOST_UPLOADS {
            self.uploaded().await?;
            if self.hubs.iter().any(|hub| hub.deaths > 0) {
                break;
            }
            self.upload();
        }
        Ok(())
    }

    /// Returns the address of the first hub.
    pub fn first_hub(&self) -> SocketAddr {
        self.hubs.first().expect("a trial has a hub").address()
    }

    /// Waits until the first hub has set a battery aside.
    pub async fn one_is_parked(&self) {
        let hub = self.hubs.first().expect("a trial has a hub");
        eventually(PATIENCE, || async {
            match hub.metric("datahub_batteries_parked").await {
                Some(1..) => Ok(()),
                other => Err(format!("{other:?} parked; {}", hub.log())),
            }
        })
        .await;
    }

    /// Sends a signal to all processes of PostgreSQL.
    pub fn signal_postgres(&mut self, signal: Signal) {
        if let Some(process) = self.stack.postgres.server.process() {
            signal_children(process.id(), signal);
            process.signal(signal);
        }
    }

    /// Sends a signal to NATS.
    pub fn signal_nats(&mut self, signal: Signal) {
        if let Some(process) = self.stack.nats.server.process() {
            process.signal(signal);
        }
    }

    async fn all_acknowledged(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.running.is_empty() {
            for hub in &mut self.hubs {
                hub.revive();
            }
            let next = tokio::time::timeout(Duration::from_millis(50), self.running.join_next());
            if let Ok(Some(log)) = next.await {
                self.logs
                    .push(log.context("an uploader found a contradiction")?);
            }
            ensure!(
                Instant::now() < deadline,
                "{} uploads do not end; {}",
                self.running.len(),
                self.logs_of_hubs()
            );
        }
        Ok(())
    }

    /// Waits until every stored row of a battery is marked as relayed.
    async fn relayed(&mut self, battery: &str) -> Result<()> {
        let behind = format!(
            "SELECT last_seq - relayed_seq AS value FROM hub.batteries WHERE name = '{battery}'"
        );
        let mut database = self.stack.database();
        let deadline = Instant::now() + PATIENCE;
        while database.number(&behind) != 0 {
            for hub in &mut self.hubs {
                hub.revive();
            }
            ensure!(
                Instant::now() < deadline,
                "{battery} is not relayed; {}",
                self.logs_of_hubs()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Compares everything with everything.
    async fn judge(&mut self) -> Result<Seen> {
        let mut database = self.stack.database();
        let mut rows = 0;
        for number in 0..self.load.batteries {
            let battery = self.battery(number);
            let logs: Vec<&Acknowledged> = self
                .logs
                .iter()
                .filter(|log| log.battery == battery)
                .collect();
            let table = verdict::table_holds_what_was_acknowledged(&mut database, &battery, &logs)?;
            rows += table.len();
            self.relayed(&battery).await?;
            verdict::stream_equals_table(&self.stack.nats.server.url(), &battery, &table).await?;
        }
        let deadlocks = database.number(
            "SELECT deadlocks AS value FROM pg_stat_database WHERE datname = current_database()",
        );
        ensure!(deadlocks == 0, "PostgreSQL broke {deadlocks} deadlocks");
        let peaks = self.hubs.iter_mut().map(HubProcess::peak_kib);
        let peak_kib = peaks.max().unwrap_or_default();
        ensure!(peak_kib < MOST_KIB, "a hub took {peak_kib} KiB");
        Ok(Seen {
            rows,
            connections: self.logs.iter().map(|log| log.connections).sum(),
            deaths: self.hubs.iter().map(|hub| hub.deaths).sum(),
            peak_kib,
        })
    }

    /// Returns the ends of the hubs' logs.
    pub fn logs_of_hubs(&self) -> String {
        self.hubs.iter().map(HubProcess::log).collect()
    }
}
