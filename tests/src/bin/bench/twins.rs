//! Ten thousand batteries with an estimator each: memory, restarts and takeovers.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{HeaderMap, jetstream};
use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use rovi_common::{
    clock,
    frame::{FRAME_VERSION, RowFrame, SEQ_HEADER},
    local::Signal,
    registration::{Registration, Standing},
    rows::{Column, Columns},
    streams::{self, BusSettings, PRIORITY_TIMEOUT},
    subjects,
    testing::eventually,
};
use serde_json::{Value, json};
use system_tests::{Stack, twin::TwinProcess};

use crate::summary::{Summary, median};

const PATIENCE: Duration = Duration::from_mins(5);
const AT_ONCE: usize = 64;
/// Times each question is asked; the median counts.
const ASKED: usize = 5;
/// Rounds of one row each before memory is looked at.
const ROUNDS: i64 = 5;

/// A bus without a hub: the fleet's rows and registrations are put on it as the hub does.
struct Fleet {
    stack: Stack,
    bus: jetstream::Context,
    batteries: usize,
    next: i64,
}

/// Measures `twin_bytes_per_battery`, `restart_10k_s`, `restart_10k_killed_s` and `takeover_s`.
pub(crate) async fn fleet(
    summary: &mut Summary,
    (batteries, seconds): (usize, u64),
) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(batteries).await?;
    let mut twin = fleet.twin(0);
    twin.start("");
    owns(&twin, BusSettings::default().partitions).await;
    let base = resident_bytes(&twin)?;
    fleet.register().await?;
    for _ in 0..ROUNDS {
        fleet.round().await?;
    }
    fleet.all_current(&twin).await;
    let each = (resident_bytes(&twin)? - base) / batteries as f64;
    let about = format!("{batteries} batteries, each with a filter of 4 states");
    summary.add("twin_bytes_per_battery", each, "bytes", &about);
    fleet.asked(&twin, summary).await?;
    fleet.hold(&twin, summary, seconds).await?;
    fleet.restarts(&mut twin, summary).await?;
    fleet.takeovers(twin, summary).await
}

impl Fleet {
    async fn start(batteries: usize) -> anyhow::Result<Self> {
        let stack = Stack::servers();
        let nats = streams::connect(&stack.nats.server.url().parse()?, "bench").await?;
        let bus = jetstream::new(nats);
        let settings = BusSettings::default();
        bus.get_or_create_stream(streams::rows_stream(&settings, "bench"))
            .await?;
        streams::ensure_estimates(&bus, &settings).await?;
        streams::bucket(&bus, subjects::ESTIMATORS_BUCKET, &settings).await?;
        Ok(Self {
            stack,
            bus,
            batteries,
            next: 1,
        })
    }

    fn twin(&self, number: usize) -> TwinProcess {
        TwinProcess::new(&self.stack, number, "http://127.0.0.1:9", &[])
    }

    async fn register(&self) -> anyhow::Result<()> {
        let bucket = self.bus.get_key_value(subjects::ESTIMATORS_BUCKET).await?;
        let definition = document().to_string();
        let puts = (0..self.batteries).map(|number| {
            let (bucket, definition) = (&bucket, &definition);
            async move {
                let registration = Registration {
                    battery: name(number).parse()?,
                    estimator: "default".parse()?,
                    revision: i64::try_from(number)? + 1,
                    definition: definition.as_str().into(),
                    valid_from: 0.0,
                    required_time: 0.0,
                    files: Vec::new(),
                    deleted: false,
                    changed: 0,
                    standing: Standing::default(),
                };
                let key = subjects::estimator_key(&registration.battery, &registration.estimator);
                bucket
                    .put(key, serde_json::to_vec(&registration)?.into())
                    .await?;
                anyhow::Ok(())
            }
        });
        stream::iter(puts)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Puts a row of every battery on the bus.
    async fn round(&mut self) -> anyhow::Result<()> {
        let seq = self.next;
        self.next += 1;
        let sent = (0..self.batteries).map(|number| publish(&self.bus, number, seq));
        stream::iter(sent)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Waits until every estimator is live and has dealt with its battery's last row.
    async fn all_current(&self, twin: &TwinProcess) {
        let query = format!(
            "/online/status?where=phase = live and estimated_seq = {}&fields=seq&limit=1",
            self.next - 1
        );
        eventually(PATIENCE, || async {
            let page = twin.get(&query).await?;
            let total = page.get("total").and_then(Value::as_u64);
            let running = twin.metric("twin_estimators_live").await;
            let is_all = |count: Option<u64>| count == u64::try_from(self.batteries).ok();
            let here = running.and_then(|running| u64::try_from(running).ok());
            if is_all(total) && is_all(here) {
                Ok(())
            } else {
                Err(format!(
                    "{total:?} are current, {running:?} run; {}",
                    twin.log()
                ))
            }
        })
        .await;
    }

    /// Asks for a page found by two clauses, and for the states of all.
    async fn asked(&self, twin: &TwinProcess, summary: &mut Summary) -> anyhow::Result<()> {
        let page = "/online/status?where=soh < 2 and voltage > 0&sort=-soh&limit=100";
        for (name, path) in [
            ("status_page_ms", page),
            ("status_all_ms", "/online/status"),
        ] {
            let mut times = Vec::new();
            for _ in 0..ASKED {
                let begun = Instant::now();
                twin.get(path).await.map_err(anyhow::Error::msg)?;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            let about = format!("{} batteries", self.batteries);
            summary.add(name, median(times), "ms", &about);
        }
        Ok(())
    }

    /// Puts a row a second of every battery on the bus, spread over the second; then measures until
    /// all are current.
    async fn hold(
        &mut self,
        twin: &TwinProcess,
        summary: &mut Summary,
        seconds: u64,
    ) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for _ in 0..seconds {
            let seq = self.next;
            self.next += 1;
            for part in 0..100 {
                tick.tick().await;
                let numbers = (part..self.batteries).step_by(100);
                let sent = numbers.map(|number| publish(&self.bus, number, seq));
                join_all(sent)
                    .await
                    .into_iter()
                    .collect::<anyhow::Result<()>>()?;
            }
        }
        let begun = Instant::now();
        self.all_current(twin).await;
        let about = format!("{} rows/s for {seconds} s", self.batteries);
        let lag = begun.elapsed().as_secs_f64();
        summary.add("twin_hold_lag_s", lag, "s until all are current", &about);
        Ok(())
    }

    async fn restarts(&self, twin: &mut TwinProcess, summary: &mut Summary) -> anyhow::Result<()> {
        ensure!(twin.stop(), "the twin did not end well");
        let begun = Instant::now();
        twin.start("");
        self.all_current(twin).await;
        let about = format!("{} batteries, after SIGTERM", self.batteries);
        summary.add("restart_10k_s", begun.elapsed().as_secs_f64(), "s", &about);
        twin.kill();
        let begun = Instant::now();
        twin.start("");
        self.all_current(twin).await;
        let about = format!("{} batteries, after SIGKILL", self.batteries);
        let took = begun.elapsed().as_secs_f64();
        summary.add("restart_10k_killed_s", took, "s", &about);
        Ok(())
    }

    /// Two twins: one ends, and the longest pause of a battery is taken, less that of its rows.
    async fn takeovers(
        &mut self,
        mut first: TwinProcess,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let mut second = self.twin(1);
        second.start("");
        half(&second).await;
        let timeout = PRIORITY_TIMEOUT.as_secs_f64();
        let killed = self.takeover(&mut first, Signal::KILL).await?;
        let about = format!("priority_timeout: {timeout} s");
        summary.add("takeover_s", killed, "s after SIGKILL", &about);
        first.kill();
        first.start("");
        half(&first).await;
        let stopped = self.takeover(&mut second, Signal::TERM).await?;
        summary.add(
            "takeover_clean_s",
            stopped,
            "s after the end of a clean stop",
            "-",
        );
        drop(first);
        Ok(())
    }

    /// Ends a twin while rows of one battery in each partition come; returns how long after its end
    /// an estimate of each came again.
    async fn takeover(&mut self, twin: &mut TwinProcess, signal: Signal) -> anyhow::Result<f64> {
        let watched = one_of_each_partition(self.batteries);
        let stream = self.bus.get_stream(subjects::ESTIMATES_STREAM).await?;
        let consumer = stream
            .create_consumer(jetstream::consumer::pull::OrderedConfig {
                deliver_policy: jetstream::consumer::DeliverPolicy::New,
                ..Default::default()
            })
            .await?;
        let mut estimates = consumer.messages().await?;
        let mut ended = Instant::now();
        if signal == Signal::TERM {
            ensure!(twin.stop(), "the twin did not end well");
            ended = Instant::now();
        } else {
            twin.kill();
        }
        let mut missing: Vec<String> = watched
            .iter()
            .map(|number| format!("rovi.estimates.{}.default", name(*number)))
            .collect();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !missing.is_empty() {
            tokio::select! {
                _ = tick.tick() => {
                    let seq = self.next;
                    self.next += 1;
                    let sent = watched.iter().map(|number| publish(&self.bus, *number, seq));
                    join_all(sent).await.into_iter().collect::<anyhow::Result<()>>()?;
                }
                message = estimates.next() => {
                    let message = message.context("the estimates end")??;
                    missing.retain(|subject| *subject != message.subject.as_str());
                }
            }
            ensure!(ended.elapsed() < PATIENCE, "{missing:?} get no estimates");
        }
        Ok(ended.elapsed().as_secs_f64())
    }
}

/// Waits until a twin owns half of the partitions.
async fn half(twin: &TwinProcess) {
    owns(twin, BusSettings::default().partitions / 2).await;
}

async fn owns(twin: &TwinProcess, partitions: u32) {
    let expected = i64::from(partitions);
    eventually(PATIENCE, || async {
        match twin.metric("twin_partitions").await {
            Some(owned) if owned == expected => Ok(()),
            owned => Err(format!("{owned:?} partitions")),
        }
    })
    .await;
}

fn one_of_each_partition(batteries: usize) -> Vec<usize> {
    let partitions = BusSettings::default().partitions;
    let mut seen = std::collections::BTreeSet::new();
    let is_first = |number: &usize| {
        let battery = name(*number).parse();
        battery.is_ok_and(|battery| seen.insert(subjects::partition_of(&battery, partitions)))
    };
    (0..batteries).filter(is_first).collect()
}

/// A filter with 4 states: charge, hysteresis, capacity and resistance.
pub(crate) fn document() -> Value {
    let diagonal = |variance: f64| json!([[variance, 0.0], [0.0, variance]]);
    json!({
        "kind": "joint",
        "asoh": {
            "updatable": ["q_t", "r0"],
            "q_t": {"updatable": ["base_values"], "base_values": 10.0},
            "ocv": {"ocv_ref": {"base_values":
                [2.9, 3.2, 3.3, 3.38, 3.45, 3.54, 3.66, 3.79, 3.93, 4.08, 4.2]}},
            "r0": {"updatable": ["base_values"], "base_values": 0.02},
            "h0": {"base_values": 0.01},
        },
        "initial_transients": {"soc": 0.5},
        "covariance_transient": diagonal(1e-4),
        "covariance_asoh": diagonal(1e-6),
        "transient_process_noise": diagonal(1e-10),
        "asoh_process_noise": diagonal(1e-14),
        "sensor_noise": 1e-6,
    })
}

fn name(number: usize) -> String {
    format!("fleet-{number}")
}

/// Puts a row on the bus as the hub relays it.
async fn publish(bus: &jetstream::Context, number: usize, seq: i64) -> anyhow::Result<()> {
    let float = |value: f64| Column::Float(vec![Some(value)]);
    let time = seq as f64;
    let columns = [
        ("test_time", float(time)),
        ("current", float(-1.0 - 0.5 * (time * 0.1).sin())),
        ("voltage", float(3.7 - 1e-4 * time)),
        ("temperature", float(25.0)),
    ];
    let columns = columns.map(|(name, column)| (name.to_owned(), column));
    let frame = RowFrame {
        v: FRAME_VERSION,
        battery: name(number).parse()?,
        epoch: 1,
        segment: 1,
        first_seq: seq,
        received: vec![clock::now_us()],
        columns: Columns::new(columns.into())?,
    };
    let mut headers = HeaderMap::new();
    headers.insert(SEQ_HEADER, frame.seq_header());
    let subject = subjects::rows_of(&frame.battery);
    let sent = bus.publish_with_headers(subject, headers, frame.encode());
    sent.await?.await?;
    Ok(())
}

fn resident_bytes(twin: &TwinProcess) -> anyhow::Result<f64> {
    let id = twin.id().context("the twin does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    Ok(kib.context("the memory cannot be read")? * 1024.0)
}
