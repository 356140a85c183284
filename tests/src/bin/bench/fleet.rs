//! Ten thousand batteries: one row into each table, and ten thousand sockets held.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use system_tests::Stack;
use tokio::{
    sync::Barrier,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    peer,
    processor::{Machine, Parts},
    socket::{self, Socket, WaitingSocket, single_row},
    summary::{Summary, median, percentile},
};

/// Sockets that are opened at once.
const OPENING: usize = 64;
/// Rounds of one row into each table; the median counts.
const ROUNDS: usize = 15;
/// How long the hub rests between the making of tables and the measurement.
const SETTLING: Duration = Duration::from_secs(5);

/// Opens a socket for each battery.
async fn open(stack: &Stack, batteries: usize) -> anyhow::Result<Vec<Socket>> {
    let opening = stream::iter(0..batteries)
        .map(|number| async move { socket::connect(stack, &name(number), Uuid::new_v4()).await });
    opening.buffered(OPENING).try_collect().await
}

fn name(number: usize) -> String {
    format!("fleet-{number}")
}

/// Measures `fleet_vs_pipeline`: one row into each of the tables.
pub(crate) async fn one_row_each(
    stack: &mut Stack,
    summary: &mut Summary,
    batteries: usize,
) -> anyhow::Result<()> {
    stack.start_hub_without_bus().await;
    let sockets = open(stack, batteries).await?.into_iter();
    let mut sockets: Vec<_> = sockets
        .map(socket::waiting)
        .collect::<anyhow::Result<_>>()?;
    let (mut speeds, mut begun_at) = (Vec::new(), None);
    for round in 0..=ROUNDS + 1 {
        match round {
            1 => peer::settle(stack)?,
            2 => begun_at = Some((Machine::now()?, Parts::now(stack)?)),
            _ => {}
        }
        let row = single_row(round)?;
        let begun = Instant::now();
        tokio::task::block_in_place(|| one_row(&mut sockets, &row, round + 1))?;
        let speed = batteries as f64 / begun.elapsed().as_secs_f64();
        println!("  round {round}: {speed:.0} rows/s");
        speeds.push(speed);
    }
    if let Some((machine, parts)) = begun_at {
        let busy = Machine::now()?.busy_since(&machine);
        let rows = (ROUNDS * batteries) as f64;
        Parts::now(stack)?.print_since(&parts, busy, rows);
    }
    drop(sockets);
    stack.stop_hub();
    // The first round made the tables; in the second all pages are new to the log, as in the one in
    // which the pipeline prepares.
    let speed = median(speeds.split_off(2));
    let names: Vec<String> = (0..batteries).map(name).collect();
    peer::settle(stack)?;
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

/// Sends a row over each socket, then waits until all are durable. Two threads that wait for one
/// socket after another: what the generator takes of the machine, the hub does not have.
fn one_row(sockets: &mut [WaitingSocket], row: &Message, stored: usize) -> anyhow::Result<()> {
    let stored = i64::try_from(stored)?;
    let (some, others) = sockets.split_at_mut(sockets.len() / 2);
    let send_and_wait = |sockets: &mut [WaitingSocket]| {
        for socket in sockets.iter_mut() {
            socket.send(row.clone())?;
        }
        for socket in sockets {
            while socket::stored(&socket.read()?)?.is_none_or(|position| position < stored) {}
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let sending = scope.spawn(|| send_and_wait(some));
        send_and_wait(others)?;
        sending
            .join()
            .map_err(|_panic| anyhow!("a sender panicked"))?
    })
}

/// Measures `fleet10k_idle_share`: each socket sends a row a second, whatever was acknowledged.
pub(crate) async fn held(
    stack: &mut Stack,
    summary: &mut Summary,
    (batteries, seconds): (usize, u64),
) -> anyhow::Result<()> {
    stack.start_hub();
    stack.hub_ready().await;
    let rows: Vec<Message> = (1..=usize::try_from(seconds)?)
        .map(single_row)
        .collect::<anyhow::Result<_>>()?;
    let rows: Arc<[Message]> = rows.into();
    let mut sockets = Vec::new();
    for (number, mut socket) in open(stack, batteries).await?.into_iter().enumerate() {
        // The first row makes the table and does not count.
        socket.send(single_row(0)?).await?;
        sockets.push((number, socket));
    }
    let begin = Arc::new(OnceLock::new());
    let ready = Arc::new(Barrier::new(batteries + 1));
    let mut tasks = JoinSet::new();
    for (number, mut socket) in sockets {
        let (begin, ready, rows) = (Arc::clone(&begin), Arc::clone(&ready), Arc::clone(&rows));
        // Spread evenly over the second.
        let offset = Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(batteries)?;
        tasks.spawn(async move {
            socket::until_stored(&mut socket, 1).await?;
            ready.wait().await;
            let first = *begin.get_or_init(|| Instant::now() + SETTLING) + offset;
            let times = hold(&mut socket, &rows, first).await?;
            anyhow::Ok((times, socket))
        });
    }
    ready.wait().await;
    let first = *begin.get_or_init(|| Instant::now() + SETTLING) + Duration::from_secs(1);
    sleep_until(first).await;
    let before = (Machine::now()?, Parts::now(stack)?);
    sleep_until(first + Duration::from_secs(seconds)).await;
    let after = (Machine::now()?, Parts::now(stack)?);
    let (mut times, mut sockets) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let (mut own, socket) = ended??;
        times.append(&mut own);
        sockets.push(socket);
    }
    drop(sockets);
    stack.stop_hub();
    let busy = after.0.busy_since(&before.0);
    after.1.print_since(&before.1, busy, times.len() as f64);
    let idle = after.0.idle_since(&before.0);
    let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
    let about = format!(
        "{batteries} sockets, {} rows in {seconds} s, durable after {p50:.1} ms, 99 % within {p99:.1} ms",
        times.len()
    );
    summary.add("fleet10k_idle_share", idle, "of all cores", &about);
    Ok(())
}

/// Sends each row when it is due, a second after `begin` and so on; returns after how many
/// milliseconds each was acknowledged. One row was stored before.
async fn hold(socket: &mut Socket, rows: &[Message], begin: Instant) -> anyhow::Result<Vec<f64>> {
    let due = |row: usize| begin + Duration::from_secs(row as u64 + 1);
    let mut times = Vec::with_capacity(rows.len());
    let mut sent = 0;
    let pause = sleep_until(due(sent));
    tokio::pin!(pause);
    while times.len() < rows.len() {
        tokio::select! {
            () = &mut pause, if sent < rows.len() => {
                let row = rows.get(sent).context("a row that is due")?;
                socket.send(row.clone()).await?;
                sent += 1;
                pause.as_mut().reset(due(sent));
            }
            message = socket.next() => {
                let message = message.context("the hub is gone")??;
                let stored = socket::stored(&message)?.unwrap_or_default();
                while i64::try_from(times.len())? + 1 < stored {
                    times.push(due(times.len()).elapsed().as_secs_f64() * 1000.0);
                }
            }
        }
    }
    Ok(times)
}
