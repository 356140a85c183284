//! A trial of twins: batteries are uploaded and estimated while a fault strikes; then every estimate
//! in the tables and the last state are those of a run that nothing interrupted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rovi_common::{
    local::Signal,
    registration::{Register, Reply},
    rows::Columns,
    subjects,
    testing::eventually,
};
use rovicli::{
    simulation::{self, Plan, Simulation},
    upload_client::{Target, UploadClient},
};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

mod corrections;

use crate::{
    Stack,
    estimates::{self, Uninterrupted},
    fault::Fault,
    hub::HubProcess,
    trial::{PATIENCE, Seen},
    twin::TwinProcess,
};

const BATTERIES: usize = 6;
const ROWS: usize = 1_500;
/// Rows that are uploaded at once.
const BATCH: usize = 25;
/// Rows of each battery before the estimators are registered, and before the fault strikes.
const FIRST: usize = 400;
/// Owners of partitions are given up after so long; a frozen twin stands still for longer.
const TIMEOUT: Duration = Duration::from_secs(2);
const SETTINGS: [(&str, &str); 5] = [
    ("CHECKPOINT_INTERVAL", "100ms"),
    ("PRIORITY_TIMEOUT", "2s"),
    ("BUS__PARTITIONS", "4"),
    ("HEARTBEAT_INTERVAL", "1s"),
    ("LOG_FORMAT", "text"),
];
const HUB_SETTINGS: [(&str, &str); 4] = [
    ("RELAY__SWEEP_INTERVAL", "200ms"),
    ("BUS__PARTITIONS", "4"),
    ("LOG_FORMAT", "text"),
    ("POOL_SIZE", "6"),
];
/// Points of the twin at which it is killed, and up to which passing: so many are sure to come where
/// rows come at a [`PACE`], however long the frames may be in which rows and estimates travel.
const KILL_POINTS: [(&str, u64); 7] = [
    ("twin.before_publish", 20),
    ("twin.after_publish", 20),
    ("twin.before_checkpoint", 10),
    ("twin.after_checkpoint", 10),
    ("twin.before_acknowledgement", 10),
    ("twin.after_acknowledgement", 10),
    ("twin.catching_up", 3),
];
/// How often a batch of each battery comes where a twin is to meet its point: each is then a frame,
/// and has a checkpoint, of its own.
const PACE: Duration = Duration::from_millis(100);

/// What is running.
struct TwinTrial {
    stack: Stack,
    hub: HubProcess,
    twins: Vec<TwinProcess>,
    rng: ChaCha8Rng,
    gate: watch::Sender<usize>,
    uploads: JoinSet<Result<()>>,
    document: String,
}

/// Runs a trial with a fault of twins and judges it.
///
/// # Errors
/// What did not hold.
pub async fn run(fault: Fault, seed: u64) -> Result<Seen> {
    let points = points(fault, seed);
    let twins = if fault == Fault::TwinKilled { 1 } else { 2 };
    let (hub, twin) = match fault {
        Fault::HubKilledCorrecting => (points.as_str(), ""),
        _ => ("", points.as_str()),
    };
    let mut trial = TwinTrial::start((twins, hub), seed).await?;
    trial.upload();
    trial.register().await?;
    // A twin that is armed meets its fault while it catches up or follows.
    trial.start_twins(twin).await?;
    if points.is_empty() {
        trial.under_way().await;
    }
    trial.strike(fault).await?;
    let found = trial.judge().await?;
    let is_armed = points.contains("kill");
    ensure!(
        !is_armed || found.deaths == 1,
        "nobody died once at {points}, but {} times",
        found.deaths
    );
    Ok(found)
}

fn points(fault: Fault, seed: u64) -> String {
    let place = usize::try_from(seed % KILL_POINTS.len() as u64).unwrap_or_default();
    let (point, most) = KILL_POINTS.get(place).copied().unwrap_or(KILL_POINTS[0]);
    match fault {
        Fault::TwinKilled | Fault::TwinTakenOver => format!("{point}=kill@{}", 1 + seed / 7 % most),
        Fault::CheckpointAnswerLost => {
            let lost = |passing: u64| format!("twin.after_checkpoint=fail@{passing}");
            [2, 3, 5 + seed % 20, 30].map(lost).join(",")
        }
        Fault::HubKilledCorrecting | Fault::TwinKilledGoingBack => corrections::points(fault, seed),
        _ => String::new(),
    }
}

impl TwinTrial {
    /// Starts everything but the twins; the hub is armed.
    async fn start((twins, faults): (usize, &str), seed: u64) -> Result<Self> {
        let stack = Stack::servers();
        let mut hub = HubProcess::new(&stack, 0, &HUB_SETTINGS);
        hub.start(faults);
        hub.ready().await;
        let twins =
            (0..twins).map(|number| TwinProcess::new(&stack, number, &hub.url(), &SETTINGS));
        let plan = Plan::default();
        Ok(Self {
            twins: twins.collect(),
            document: simulation::estimator_document(&plan).to_string(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            gate: watch::Sender::new(FIRST),
            uploads: JoinSet::new(),
            stack,
            hub,
        })
    }

    /// Starts the twins; one that is armed has partitions before another comes, or it might get none
    /// and never meet its fault.
    async fn start_twins(&mut self, points: &str) -> Result<()> {
        let (first, others) = self.twins.split_at_mut(1);
        for twin in first {
            twin.start(points);
        }
        if !points.is_empty() {
            let nats = async_nats::connect(self.stack.nats.server.url()).await?;
            let jetstream = async_nats::jetstream::new(nats);
            eventually(PATIENCE, || async {
                let bucket = jetstream.get_key_value(subjects::SHARES_BUCKET).await;
                let bucket = bucket.map_err(|error| error.to_string())?;
                let keys = bucket.keys().await.map_err(|error| error.to_string())?;
                let claims = keys.count().await;
                (claims > 0).then_some(()).ok_or("no claims".to_owned())
            })
            .await;
        }
        for twin in others {
            twin.start("");
        }
        Ok(())
    }

    /// Uploads every battery up to the gate.
    fn upload(&mut self) {
        for number in 0..BATTERIES {
            let target = Target {
                hub: self.hub.url().parse().expect("the hub's URL is one"),
                battery: name(number).parse().expect("this is a name"),
                session: Uuid::from_u128(self.rng.random()),
                new_segment: true,
                token: None,
                trust: rovi_common::tls::Trust::default(),
            };
            let plan = Plan {
                rows: ROWS,
                seed: self.rng.random(),
                ..Plan::default()
            };
            self.uploads
                .spawn(upload(target, plan, self.gate.subscribe()));
        }
    }

    /// Registers an estimator of each battery once it has rows.
    async fn register(&mut self) -> Result<()> {
        let all = |sum: i64| usize::try_from(sum).is_ok_and(|sum| sum >= BATTERIES * FIRST);
        let mut database = self.stack.database();
        eventually(PATIENCE, || {
            let sum = "SELECT coalesce(sum(last_seq), 0)::bigint AS value FROM hub.batteries";
            let sum = database.number(sum);
            async move { all(sum).then_some(()).ok_or(format!("{sum} rows")) }
        })
        .await;
        let nats = async_nats::connect(self.stack.nats.server.url()).await?;
        for number in 0..BATTERIES {
            let request = Register {
                battery: name(number).parse()?,
                estimator: "default".parse()?,
                definition: self.document.clone(),
                valid_from: 0.0,
                required_time: 0.0,
                files: Vec::new(),
            };
            let body = serde_json::to_vec(&request)?;
            let reply = nats.request(subjects::REGISTER, body.into()).await?;
            let reply: Reply = serde_json::from_slice(&reply.payload)?;
            ensure!(matches!(reply, Reply::Done(_)), "{reply:?}");
        }
        Ok(())
    }

    /// Waits until some estimates of each battery are stored.
    async fn under_way(&self) {
        let mut database = self.stack.database();
        eventually(PATIENCE, || {
            let tables = "SELECT count(*) AS value FROM pg_tables WHERE schemaname = 'estimates'";
            let tables = database.number(tables);
            let is_under_way = usize::try_from(tables).is_ok_and(|tables| tables == BATTERIES);
            let logs = self.logs();
            async move {
                is_under_way
                    .then_some(())
                    .ok_or(format!("{tables} tables {logs}"))
            }
        })
        .await;
    }

    /// Lets the fault strike while the rest is uploaded.
    async fn strike(&mut self, fault: Fault) -> Result<()> {
        if matches!(fault, Fault::TwinKilled | Fault::TwinTakenOver) {
            // They meet their points by themselves.
            for rows in (FIRST..ROWS).step_by(BATCH) {
                self.gate.send_replace(rows);
                tokio::time::sleep(PACE).await;
            }
            self.gate.send_replace(ROWS);
            return Ok(());
        }
        self.gate.send_replace(usize::midpoint(FIRST, ROWS));
        match fault {
            Fault::TwinFrozen => self.freeze().await?,
            Fault::TwinsRolling => self.restart_in_turn().await?,
            Fault::TwinsNatsWiped => {
                self.stack.nats.server.wipe()?;
                self.stack.nats.server.start_again()?;
            }
            Fault::TwinsHubAway => {
                self.hub.kill();
                let first = self.twins.first_mut().context("a trial has a twin")?;
                first.kill();
                first.start("");
                tokio::time::sleep(TIMEOUT).await;
                self.hub.start("");
            }
            Fault::HubKilledCorrecting | Fault::TwinKilledGoingBack => self.correct().await?,
            // The others meet their points by themselves.
            _ => {}
        }
        self.gate.send_replace(ROWS);
        Ok(())
    }

    /// Freezes the twin that works on a battery until another one has taken it over; then it goes on.
    async fn freeze(&mut self) -> Result<()> {
        let mut shares = Vec::new();
        for twin in &self.twins {
            shares.push(twin.metric("twin_partitions").await.unwrap_or_default());
        }
        ensure!(
            shares.iter().all(|share| *share > 0),
            "one has nothing: {shares:?}"
        );
        let (frozen, other) = self.twins.split_at_mut(1);
        let (frozen, other) = (frozen.first_mut(), other.first());
        let (frozen, other) = frozen.zip(other).context("there are two twins")?;
        frozen.signal(Signal::STOP);
        self.gate.send_replace(ROWS);
        eventually(PATIENCE, || async {
            match other.metric("twin_partitions").await {
                Some(4) => Ok(()),
                owned => Err(format!("{owned:?} partitions")),
            }
        })
        .await;
        // The other may or may not have gone beyond where the frozen one stood.
        if self.rng.random() {
            let all = "/online/status?limit=1&where=estimated_seq = ";
            eventually(PATIENCE, || async {
                let page = other.get(&format!("{all}{ROWS}")).await?;
                let is_done = page.get("total") == Some(&BATTERIES.into());
                is_done.then_some(()).ok_or_else(|| page.to_string())
            })
            .await;
        }
        frozen.signal(Signal::CONT);
        eventually(PATIENCE, || async {
            match frozen.metric("twin_partitions").await {
                Some(2) => Ok(()),
                owned => Err(format!("{owned:?} partitions after it went on")),
            }
        })
        .await;
        Ok(())
    }

    /// Stops each twin in its turn and starts it again.
    async fn restart_in_turn(&mut self) -> Result<()> {
        for twin in &mut self.twins {
            ensure!(twin.stop(), "a twin did not end well; {}", twin.log());
            let pause = self.rng.random_range(10..300);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            twin.start("");
            twin.ready().await;
        }
        Ok(())
    }

    /// Compares everything with runs of the same rows that nothing interrupted.
    async fn judge(mut self) -> Result<Seen> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(ended) = self.uploads.join_next().await {
            ended.context("an upload panicked")??;
        }
        let mut rows = 0;
        for number in 0..BATTERIES {
            let battery = name(number);
            self.caught_up(&battery, deadline).await?;
            let frames = self.export(&battery, "rows").await?;
            let expected = estimates::uninterrupted(&self.document, &frames)?;
            self.stored(&battery, &expected, deadline).await?;
            self.shown(&battery, &expected, deadline).await?;
            rows += ROWS;
        }
        Ok(Seen {
            rows,
            connections: self.twins.len(),
            deaths: self.deaths(),
            peak_kib: self.hub.peak_kib(),
        })
    }

    /// Waits until every twin shows that the estimator has dealt with all rows.
    async fn caught_up(&mut self, battery: &str, deadline: Instant) -> Result<()> {
        for place in 0..self.twins.len() {
            loop {
                self.revive();
                let twin = self.twins.get(place).context("a trial has twins")?;
                let shown = twin
                    .get(&format!("/online/{battery}"))
                    .await
                    .unwrap_or_default();
                let status = shown.pointer("/estimators/default");
                let is = |name: &str, value: serde_json::Value| {
                    status.and_then(|status| status.get(name)) == Some(&value)
                };
                if is("seq", ROWS.into()) && is("phase", "live".into()) {
                    break;
                }
                ensure!(
                    Instant::now() < deadline,
                    "{battery}: {status:?}; {}",
                    self.logs()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Waits until the estimates in the table are those expected.
    async fn stored(
        &self,
        battery: &str,
        expected: &Uninterrupted,
        deadline: Instant,
    ) -> Result<()> {
        loop {
            // There is no table before the first is stored.
            let stored = self.export(battery, "estimates").await.unwrap_or_default();
            match expected.equals_stored(&stored) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(battery.to_owned()));
                }
                Err(_not_all_yet) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Waits until every twin shows the state expected; one may die until the very end.
    async fn shown(
        &mut self,
        battery: &str,
        expected: &Uninterrupted,
        deadline: Instant,
    ) -> Result<()> {
        for place in 0..self.twins.len() {
            loop {
                self.revive();
                let twin = self.twins.get(place).context("a trial has twins")?;
                let shown = twin
                    .get(&format!("/online/{battery}"))
                    .await
                    .unwrap_or_default();
                let status = shown
                    .pointer("/estimators/default")
                    .unwrap_or(&serde_json::Value::Null);
                match expected.equals_state(status) {
                    Ok(()) => break,
                    Err(error) if Instant::now() >= deadline => {
                        return Err(error.context(battery.to_owned()));
                    }
                    Err(_not_yet) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
        Ok(())
    }

    async fn export(&self, battery: &str, what: &str) -> Result<Vec<rovi_common::frame::RowFrame>> {
        let url = format!(
            "{}/db/{battery}/{what}/export?format=msgpack",
            self.hub.url()
        );
        let answer = reqwest::get(url).await?.error_for_status()?;
        estimates::frames(&answer.bytes().await?)
    }

    fn logs(&self) -> String {
        self.twins.iter().map(TwinProcess::log).collect()
    }
}

fn name(number: usize) -> String {
    format!("cell-{number}")
}

/// Uploads a simulated cell, never beyond what `gate` tells.
async fn upload(target: Target, plan: Plan, mut gate: watch::Receiver<usize>) -> Result<()> {
    let mut client = UploadClient::connect(target, Box::new(|_event| {})).await?;
    let rows: Vec<Columns> = Simulation::new(plan).collect::<Result<_, _>>()?;
    let mut sent = 0;
    for mut rest in rows {
        while rest.rows() > 0 {
            let later = rest.split_off(BATCH.min(rest.rows()));
            gate.wait_for(|gate| *gate > sent).await?;
            sent += rest.rows();
            client.send(rest).await?;
            rest = later;
        }
    }
    let progress = client.finish().await?;
    ensure!(progress.stored == sent as u64, "{progress:?}");
    Ok(())
}
