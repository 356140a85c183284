//! Ten thousand batteries: one row into each table, and ten thousand sockets held.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use system_tests::Stack;
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    peer,
    socket::{self, Socket, single_row},
    summary::{Summary, median, percentile},
};

/// Batteries, each with a socket and a table of its own.
const BATTERIES: usize = 10_000;
/// Sockets that are opened at once.
const OPENING: usize = 64;
/// Rounds of one row into each table; the median counts.
const ROUNDS: usize = 7;

/// Allows this program, and the hub that it starts, as many open files as the system lets it.
pub(crate) fn allow_sockets() -> anyhow::Result<()> {
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum;
    let needed = 2 * BATTERIES as u64;
    ensure!(
        most.is_none_or(|most| most >= needed),
        "{most:?} open files are allowed, {needed} are needed: raise the hard limit (ulimit -Hn)"
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    Ok(())
}

/// Opens a socket for each battery.
async fn open(stack: &Stack) -> anyhow::Result<Vec<Socket>> {
    let opening = stream::iter(0..BATTERIES)
        .map(|number| async move { socket::connect(stack, &name(number), Uuid::new_v4()).await });
    opening.buffered(OPENING).try_collect().await
}

fn name(number: usize) -> String {
    format!("fleet-{number}")
}

/// Measures `fleet_vs_pipeline`: one row into each of the tables.
pub(crate) async fn one_row_each(stack: &mut Stack, summary: &mut Summary) -> anyhow::Result<()> {
    stack.start_hub_without_bus().await;
    let sockets = open(stack).await?;
    let barrier = Arc::new(Barrier::new(BATTERIES + 1));
    let mut tasks = JoinSet::new();
    for mut socket in sockets {
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            for round in 0..=ROUNDS {
                barrier.wait().await;
                socket.send(single_row(round)?).await?;
                socket::until_stored(&mut socket, i64::try_from(round + 1)?).await?;
                barrier.wait().await;
            }
            anyhow::Ok(socket)
        });
    }
    let mut speeds = Vec::new();
    for round in 0..=ROUNDS {
        peer::checkpoint(stack)?;
        barrier.wait().await;
        let begun = Instant::now();
        barrier.wait().await;
        let speed = BATTERIES as f64 / begun.elapsed().as_secs_f64();
        println!("  round {round}: {speed:.0} rows/s");
        speeds.push(speed);
    }
    while let Some(ended) = tasks.join_next().await {
        drop(ended??);
    }
    stack.stop_hub();
    // The first round made the tables.
    let speed = median(speeds.split_off(1));
    let names: Vec<String> = (0..BATTERIES).map(name).collect();
    let pipeline = peer::pipeline(stack, &names, ROUNDS)?;
    let peer = format!("libpq pipeline, prepared: {pipeline:.0} rows/s");
    summary.add("fleet_rows_per_s", speed, "rows/s", &peer);
    summary.add(
        "fleet_vs_pipeline",
        speed / pipeline,
        "of the pipeline",
        &peer,
    );
    Ok(())
}

/// Measures `fleet10k_idle_share`: each socket sends a row a second and waits until it is durable.
pub(crate) async fn held(
    stack: &mut Stack,
    summary: &mut Summary,
    seconds: u64,
) -> anyhow::Result<()> {
    stack.start_hub();
    stack.hub_ready().await;
    let sockets = open(stack).await?;
    let late: Arc<Mutex<Vec<f64>>> = Arc::default();
    let begin = Instant::now() + Duration::from_secs(2);
    let mut tasks = JoinSet::new();
    for (number, mut socket) in sockets.into_iter().enumerate() {
        let late = Arc::clone(&late);
        // Spread evenly over the second.
        let first =
            begin + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(BATTERIES)?;
        tasks.spawn(async move {
            // The first rows make the tables and do not count.
            let mut position = 0;
            let warm_up = 20;
            let mut times = Vec::new();
            for second in 0..warm_up + seconds {
                let due = first + Duration::from_secs(second);
                sleep_until(due).await;
                position += 1;
                socket.send(single_row(position)?).await?;
                socket::until_stored(&mut socket, i64::try_from(position)?).await?;
                if second >= warm_up {
                    times.push(due.elapsed().as_secs_f64() * 1000.0);
                }
            }
            late.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&mut times);
            anyhow::Ok(socket)
        });
    }
    sleep_until(begin + Duration::from_secs(20)).await;
    let before = processor_time()?;
    sleep_until(begin + Duration::from_secs(20 + seconds)).await;
    let after = processor_time()?;
    let mut sockets = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        sockets.push(ended??);
    }
    drop(sockets);
    stack.stop_hub();
    let times = std::mem::take(&mut *late.lock().unwrap_or_else(PoisonError::into_inner));
    let idle = (after.idle - before.idle) / (after.all - before.all);
    let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
    let about = format!(
        "{BATTERIES} sockets, {} rows in {seconds} s, durable after {p50:.1} ms, 99 % within {p99:.1} ms",
        times.len()
    );
    summary.add("fleet10k_idle_share", idle, "of all cores", &about);
    Ok(())
}

/// Processor time of the whole machine, in ticks.
struct ProcessorTime {
    idle: f64,
    all: f64,
}

fn processor_time() -> anyhow::Result<ProcessorTime> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    // cpu user nice system idle iowait …
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|tick| tick.parse().ok())
        .collect();
    let idle = ticks.iter().skip(3).take(2).sum();
    Ok(ProcessorTime {
        idle,
        all: ticks.iter().take(8).sum(),
    })
}
