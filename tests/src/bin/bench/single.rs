//! One row a frame: speed beside `pgbench`, and how long an acknowledgement takes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use system_tests::Stack;
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_tungstenite::{connect_async, tungstenite::Message};
use uuid::Uuid;

use crate::{
    peer,
    socket::{self, Socket, single_row},
    summary::{Summary, median, percentile},
};

/// Frames of one row from a client that never reads.
const ROWS: usize = 300_000;
/// Alternating pairs of hub and peer; the median counts.
const PAIRS: usize = 3;
const PEER_SECONDS: usize = 10;
/// How long acknowledgements are measured.
const PACED_SECONDS: usize = 10;
/// Rows before them, which make the table and do not count.
const FIRST_ROWS: usize = 1000;
/// How long the evenly sending client sleeps at a time; the system adds some 50 µs.
const NAP: Duration = Duration::from_micros(100);
/// The injected time of a commit, in microseconds.
const SLOW_COMMIT_US: usize = 3000;

/// Measures `ingest_single_vs_pgbench32`; returns half of the hub's rows a second.
pub(crate) async fn beside_pgbench(
    stack: &mut Stack,
    summary: &mut Summary,
) -> anyhow::Result<usize> {
    stack.start_hub_without_bus().await;
    let (mut times, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let battery = format!("singles-{pair}");
        peer::checkpoint(stack)?;
        let took = upload(stack, &battery).await?;
        let speed = ROWS as f64 / took.as_secs_f64();
        peer::checkpoint(stack)?;
        let (tps, _times) = peer::single_rows(stack, &battery, 32, PEER_SECONDS)?;
        times.push(took.as_secs_f64());
        peers.push(tps);
        ratios.push(speed / tps);
    }
    stack.stop_hub();
    let peer = format!("pgbench, 32 clients: {:.0} rows/s", median(peers));
    let took = median(times);
    let speed = ROWS as f64 / took;
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
    Ok(ROWS * 500_000 / usize::try_from(Duration::from_secs_f64(took).as_micros())?)
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
        let mut pairs = Vec::new();
        for pair in 0..PAIRS {
            let battery = format!("paced{suffix}-{pair}");
            stack.start_hub_without_bus().await;
            peer::checkpoint(stack)?;
            let acks = paced(stack, &battery, rows_per_s).await?;
            stack.stop_hub();
            peer::checkpoint(stack)?;
            let (_tps, commits) = peer::single_rows(stack, &battery, 1, PEER_SECONDS)?;
            pairs.push((acks, commits));
        }
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let of = |(acks, commits): &(Vec<f64>, Vec<f64>)| {
                (percentile(acks, share), percentile(commits, share))
            };
            let (acks, commits): (Vec<f64>, Vec<f64>) = pairs.iter().map(of).unzip();
            let ratios: Vec<f64> = acks.iter().zip(&commits).map(|(a, c)| a / c).collect();
            let peer = format!(
                "{:.2} ms at {rows_per_s} rows/s; commit of one pgbench client: {:.2} ms; pairs: {ratios:.2?}",
                median(acks),
                median(commits),
            );
            let name = format!("ack_{name}_vs_commit{suffix}");
            summary.add(&name, median(ratios), "of a commit", &peer);
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

/// When each row is to be sent: one after another, never several at once.
#[derive(Clone, Copy)]
struct Pace {
    begun: Instant,
    rows_per_s: f64,
}

impl Pace {
    fn due(self, row: usize) -> Instant {
        self.begun + Duration::from_secs_f64(row as f64 / self.rows_per_s)
    }

    /// Counts the rows that are due by now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds since the beginning times a speed"
    )]
    fn rows_due(self) -> usize {
        (self.begun.elapsed().as_secs_f64() * self.rows_per_s) as usize
    }
}

/// Sends rows at an even pace; returns the milliseconds from when each was due until it was
/// known to be durable.
async fn paced(stack: &Stack, battery: &str, rows_per_s: usize) -> anyhow::Result<Vec<f64>> {
    let rows = PACED_SECONDS * rows_per_s;
    // Made before, as a cycler has them; later rows have later times.
    let mut frames: Vec<Message> = (0..FIRST_ROWS + rows)
        .map(single_row)
        .collect::<Result<_, _>>()?;
    let paced = frames.split_off(FIRST_ROWS);
    let socket = socket::connect(stack, battery, Uuid::new_v4()).await?;
    let (mut sink, mut stream) = socket.split();
    for frame in frames {
        sink.feed(frame).await?;
    }
    sink.flush().await?;
    socket::until_stored(&mut stream, i64::try_from(FIRST_ROWS)?).await?;

    let pace = Pace {
        begun: Instant::now(),
        rows_per_s: rows_per_s as f64,
    };
    // A thread of its own: timers of an asynchronous runtime are a millisecond coarse.
    let sending = spawn_blocking(move || send_evenly(sink, paced, pace));
    let times = acknowledged(stream, pace, rows).await?;
    sending.await??;
    Ok(times)
}

/// Sends each row when it is due, or as soon after as a sleep of the system ends.
fn send_evenly(
    mut sink: SplitSink<Socket, Message>,
    frames: Vec<Message>,
    pace: Pace,
) -> anyhow::Result<()> {
    let rows = frames.len();
    let mut frames = frames.into_iter();
    let mut sent = 0;
    while sent < rows {
        let now = pace.rows_due().min(rows) - sent;
        Handle::current().block_on(async {
            for frame in frames.by_ref().take(now) {
                sink.feed(frame).await?;
            }
            sink.flush().await
        })?;
        sent += now;
        thread::sleep(NAP);
    }
    Ok(())
}

/// Reads acknowledgements; returns the milliseconds of each row since it was due.
async fn acknowledged(
    mut stream: SplitStream<Socket>,
    pace: Pace,
    rows: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(rows);
    while times.len() < rows {
        let message = stream.next().await.context("the hub is gone")??;
        let Some(stored) = socket::stored(&message)? else {
            continue;
        };
        let now = Instant::now();
        let stored = usize::try_from(stored)?.saturating_sub(FIRST_ROWS);
        times.extend((times.len()..stored).map(|row| (now - pace.due(row)).as_secs_f64() * 1e3));
    }
    Ok(times)
}
