//! One row a frame: speed beside `pgbench`, and how long an acknowledgement takes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{SinkExt, StreamExt};
use system_tests::Stack;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};
use uuid::Uuid;

use crate::{
    peer,
    socket::{self, single_row},
    summary::{Summary, median, percentile},
};

/// Frames of one row from a client that never reads.
const ROWS: usize = 300_000;
const PAIRS: usize = 3;
const PEER_SECONDS: usize = 10;
/// How long acknowledgements are measured.
const PACED_SECONDS: usize = 10;
/// Rows that are sent evenly leave in so many portions a second.
const TICKS_PER_S: usize = 1000;
/// The injected time of a commit, in microseconds.
const SLOW_COMMIT_US: usize = 3000;

/// Measures `ingest_single_vs_pgbench32`; returns half of the hub's rows a second.
pub(crate) async fn beside_pgbench(
    stack: &mut Stack,
    summary: &mut Summary,
) -> anyhow::Result<usize> {
    stack.start_hub_without_bus().await;
    let (mut speeds, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut half = 0;
    for pair in 0..PAIRS {
        let battery = format!("singles-{pair}");
        peer::checkpoint(stack)?;
        let took = upload(stack, &battery).await?;
        let speed = ROWS as f64 / took.as_secs_f64();
        half = ROWS * 500 / usize::try_from(took.as_millis())?;
        peer::checkpoint(stack)?;
        let (tps, _times) = peer::single_rows(stack, &battery, 32, PEER_SECONDS)?;
        speeds.push(speed);
        peers.push(tps);
        ratios.push(speed / tps);
    }
    stack.stop_hub();
    let peer = format!("pgbench, 32 clients: {:.0} rows/s", median(peers));
    let speed = median(speeds);
    summary.add(
        "ingest_single_rows_per_s",
        speed,
        "rows/s",
        "the origin: 56 rows/s",
    );
    summary.add(
        "ingest_single_vs_pgbench32",
        median(ratios),
        "of pgbench",
        &peer,
    );
    Ok(half)
}

/// Sends rows without ever reading; returns the time until the close is answered.
async fn upload(stack: &Stack, battery: &str) -> anyhow::Result<Duration> {
    let messages: Vec<Message> = (0..ROWS).map(single_row).collect::<Result<_, _>>()?;
    let hub = stack.hub_url().replacen("http", "ws", 1);
    let begun = Instant::now();
    let (mut socket, _response) = connect_async(format!("{hub}/db/upload/{battery}")).await?;
    for message in messages {
        socket.feed(message).await?;
    }
    socket.close(None).await?;
    while let Some(Ok(_ping_or_close)) = socket.next().await {}
    let took = begun.elapsed();
    let stored = stack.database().dense_rows(battery);
    ensure!(
        usize::try_from(stored)? == ROWS,
        "{stored} of {ROWS} rows are stored"
    );
    Ok(took)
}

/// Measures acknowledgements at `rows_per_s` against commits of one `pgbench` client, on the bare
/// disk and with 3 ms injected into every commit.
pub(crate) async fn acknowledgements(
    stack: &mut Stack,
    summary: &mut Summary,
    rows_per_s: usize,
) -> anyhow::Result<()> {
    for (delay_us, suffix) in [(SLOW_COMMIT_US, ""), (0, "_bare")] {
        // PostgreSQL then sleeps so long before each flush of its log, whoever commits.
        slow_commits(stack, delay_us)?;
        stack.start_hub_without_bus().await;
        let battery = format!("paced{suffix}");
        let ours = paced(stack, &battery, rows_per_s).await?;
        stack.stop_hub();
        let (_tps, commits) = peer::single_rows(stack, &battery, 1, PEER_SECONDS)?;
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let (ack, commit) = (percentile(&ours, share), percentile(&commits, share));
            let peer = format!(
                "{ack:.2} ms at {rows_per_s} rows/s; commit of one pgbench client: {commit:.2} ms"
            );
            let name = format!("ack_{name}_vs_commit{suffix}");
            summary.add(&name, ack / commit, "of a commit", &peer);
        }
    }
    slow_commits(stack, 0)
}

fn slow_commits(stack: &Stack, delay_us: usize) -> anyhow::Result<()> {
    peer::psql(
        stack,
        &format!("ALTER SYSTEM SET commit_delay = {delay_us}"),
    )?;
    peer::psql(stack, "ALTER SYSTEM SET commit_siblings = 0")?;
    peer::psql(stack, "SELECT pg_reload_conf()").map(drop)
}

/// Sends rows at an even pace; returns the milliseconds from when each was due until it was
/// known to be durable.
async fn paced(stack: &Stack, battery: &str, rows_per_s: usize) -> anyhow::Result<Vec<f64>> {
    let per_tick = rows_per_s / TICKS_PER_S;
    let ticks = PACED_SECONDS * TICKS_PER_S;
    let frames: Vec<Message> = (0..per_tick).map(single_row).collect::<Result<_, _>>()?;
    let socket = socket::connect(stack, battery, Uuid::new_v4()).await?;
    let (mut sink, mut stream) = socket.split();
    // The table is made by the first rows, which do not count.
    for frame in &frames {
        sink.send(frame.clone()).await?;
    }
    socket::until_stored(&mut stream, i64::try_from(per_tick)?).await?;

    let (due, mut waiting) = mpsc::channel::<(Instant, i64)>(ticks);
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let (mut times, mut open) = (Vec::with_capacity(ticks), VecDeque::new());
        while times.len() < ticks {
            let Some(message) = stream.next().await else {
                break;
            };
            let Some(stored) = socket::stored(&message?)? else {
                continue;
            };
            let now = Instant::now();
            while let Ok(sent) = waiting.try_recv() {
                open.push_back(sent);
            }
            while let Some((due, _)) = open.pop_front_if(|(_, end)| *end <= stored) {
                times.push((now - due).as_secs_f64() * 1000.0);
            }
        }
        anyhow::Ok(times)
    });
    let mut clock = interval(Duration::from_secs(1) / u32::try_from(TICKS_PER_S)?);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for tick in 1..=ticks {
        let at = clock.tick().await.into_std();
        due.try_send((at, i64::try_from(per_tick * (tick + 1))?))?;
        for frame in &frames {
            sink.feed(frame.clone()).await?;
        }
        sink.flush().await?;
    }
    let times = listening
        .join_next()
        .await
        .unwrap_or(Ok(Ok(Vec::new())))??;
    ensure!(
        times.len() == ticks,
        "{} of {ticks} ticks were acknowledged",
        times.len()
    );
    Ok(times)
}
