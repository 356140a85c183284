//! Telling everyone at once: how much later a change is known to one of many, and what an idle
//! socket costs.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use async_nats::{HeaderMap, jetstream};
use futures_util::{StreamExt, future::join_all};
use rovi_common::{
    clock,
    frame::{FRAME_VERSION, RowFrame, SEQ_HEADER},
    rows::{Column, Columns},
    streams, subjects,
    testing::eventually,
};
use system_tests::Stack;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::summary::{Summary, median};

/// Batteries with one row a second and one socket each.
const BATTERIES: usize = 1000;
/// Sockets of all of them besides.
const OF_ALL: usize = 50;
/// Rows of each battery that count.
const ROUNDS: i64 = 10;
/// Rows of the lone battery before.
const IDLE_ROWS: i64 = 100;
const PATIENCE: Duration = Duration::from_mins(2);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Latencies in milliseconds, from all listeners.
type Latencies = Arc<Mutex<Vec<f64>>>;

/// Measures `ws_p99_vs_idle_p50` and `ws_idle_socket_kib`.
pub(crate) async fn everyone(stack: &Stack, summary: &mut Summary) -> anyhow::Result<()> {
    let nats = streams::connect(&stack.nats.server.url().parse()?, "bench").await?;
    let bus = jetstream::new(nats);
    let idle = idle_latency(stack, &bus).await?;
    summary.add("ws_idle_p50_ms", idle, "ms", "one battery, one socket");
    make_known(stack, &bus).await?;
    let sockets = open_all(stack, summary).await?;
    let latencies = latencies_of_all(&bus, sockets).await?;
    let at = |percent: usize| {
        let place = latencies.len() * percent / 100;
        latencies.get(place).copied().unwrap_or(f64::NAN)
    };
    let peer = "1,000 batteries, 1,000 + 50 sockets";
    summary.add("ws_p50_ms", at(50), "ms", peer);
    summary.add("ws_p99_ms", at(99), "ms", peer);
    let ratio = at(99) / idle;
    summary.add(
        "ws_p99_vs_idle_p50",
        ratio,
        "times",
        "one battery, one socket",
    );
    Ok(())
}

/// Sends a first row of every battery and waits until a snapshot has them all.
async fn make_known(stack: &Stack, bus: &jetstream::Context) -> anyhow::Result<()> {
    for battery in 0..BATTERIES {
        publish(bus, &name(battery), 1).await?;
    }
    eventually(PATIENCE, || async {
        let (_, snapshot) = open(stack, "?fields=seq")
            .await
            .map_err(|e| e.to_string())?;
        let known = snapshot.matches("battery:many").count();
        (known >= BATTERIES)
            .then_some(())
            .ok_or_else(|| format!("{known} batteries"))
    })
    .await;
    Ok(())
}

/// Opens the sockets of one battery each, which are weighed, then those of all.
async fn open_all(stack: &Stack, summary: &mut Summary) -> anyhow::Result<Vec<Socket>> {
    let before = resident_kib(stack)?;
    let mut sockets = Vec::new();
    for battery in 0..BATTERIES {
        let query = format!("?battery={}&fields=sent", name(battery));
        sockets.push(open(stack, &query).await?.0);
    }
    let each = (resident_kib(stack)? - before) / BATTERIES as f64;
    summary.add(
        "ws_idle_socket_kib",
        each,
        "KiB",
        "1,000 sockets of one battery each",
    );
    for _ in 0..OF_ALL {
        sockets.push(open(stack, "?fields=sent").await?.0);
    }
    Ok(sockets)
}

/// Sends a row a second of each battery, spread over the second; returns the sorted latencies.
async fn latencies_of_all(
    bus: &jetstream::Context,
    sockets: Vec<Socket>,
) -> anyhow::Result<Vec<f64>> {
    let latencies = Latencies::default();
    let mut listeners = JoinSet::new();
    for socket in sockets {
        // Those of all batteries are load.
        let counts = listeners.len() < BATTERIES;
        listeners.spawn(listen(socket, counts.then(|| Arc::clone(&latencies))));
    }
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for seq in 2..2 + ROUNDS {
        for group in 0..100 {
            tick.tick().await;
            let names: Vec<String> = (group..BATTERIES).step_by(100).map(name).collect();
            let sent = join_all(names.iter().map(|name| publish(bus, name, seq))).await;
            sent.into_iter().collect::<anyhow::Result<()>>()?;
        }
    }
    let expected = usize::try_from(ROUNDS)? * BATTERIES * 9 / 10;
    let taken = || {
        latencies
            .lock()
            .map_or_else(|_| Vec::new(), |all| all.clone())
    };
    eventually(PATIENCE, || async {
        let count = taken().len();
        (count >= expected)
            .then_some(())
            .ok_or_else(|| format!("{count} of {expected} came"))
    })
    .await;
    listeners.shutdown().await;
    let mut latencies = taken();
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

fn name(battery: usize) -> String {
    format!("many-{battery}")
}

async fn idle_latency(stack: &Stack, bus: &jetstream::Context) -> anyhow::Result<f64> {
    publish(bus, "lone", 1).await?;
    let mut socket = eventually(PATIENCE, || async {
        let (socket, snapshot) = open(stack, "?fields=sent")
            .await
            .map_err(|e| e.to_string())?;
        let is_known = snapshot.contains("lone");
        is_known
            .then_some(socket)
            .ok_or_else(|| "not known yet".to_owned())
    })
    .await;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut latencies = Vec::new();
    for seq in 2..2 + IDLE_ROWS {
        tick.tick().await;
        publish(bus, "lone", seq).await?;
        let text = hear(&mut socket).await.context("the socket ended")?;
        latencies.push(latency(&text).context("no time in the message")?);
    }
    Ok(median(latencies))
}

/// Puts a row on the bus that tells when it was sent, as the hub relays it.
async fn publish(bus: &jetstream::Context, battery: &str, seq: i64) -> anyhow::Result<()> {
    let now = clock::now_us();
    let frame = RowFrame {
        v: FRAME_VERSION,
        battery: battery.parse()?,
        epoch: 1,
        segment: 1,
        first_seq: seq,
        received: vec![now],
        columns: Columns::new(vec![
            ("sent".to_owned(), Column::Int(vec![Some(now)])),
            ("voltage".to_owned(), Column::Float(vec![Some(3.7)])),
        ])?,
    };
    let mut headers = HeaderMap::new();
    headers.insert(SEQ_HEADER, frame.seq_header());
    let subject = subjects::rows_of(&frame.battery);
    bus.publish_with_headers(subject, headers, frame.encode())
        .await?
        .await?;
    Ok(())
}

/// Opens a live socket; returns it with its snapshot.
async fn open(stack: &Stack, query: &str) -> anyhow::Result<(Socket, String)> {
    let url = format!("{}/ws{query}", stack.twin_url().replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await?;
    let snapshot = hear(&mut socket).await.context("no snapshot came")?;
    Ok((socket, snapshot))
}

async fn hear(socket: &mut Socket) -> Option<String> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return Some(text.to_string()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// Reads a socket, and tells the latency of each message.
async fn listen(mut socket: Socket, latencies: Option<Latencies>) {
    while let Some(text) = hear(&mut socket).await {
        if let (Some(latencies), Some(latency)) = (&latencies, latency(&text))
            && let Ok(mut latencies) = latencies.lock()
        {
            latencies.push(latency);
        }
    }
}

/// Returns the milliseconds since the row of a message was sent.
fn latency(text: &str) -> Option<f64> {
    let (_, rest) = text.split_once("\"sent\":")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let sent: i64 = digits.parse().ok()?;
    Some((clock::now_us() - sent) as f64 / 1000.0)
}

/// Returns the memory of the twin, in KiB.
fn resident_kib(stack: &Stack) -> anyhow::Result<f64> {
    let address = stack.twin_url().replace("http://", "");
    for process in fs::read_dir("/proc")? {
        let folder = process?.path();
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if !command.contains("/twin\0") || !command.contains(&address) {
            continue;
        }
        let status = fs::read_to_string(folder.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        return kib.context("the memory of the twin cannot be read");
    }
    anyhow::bail!("the twin at {address} is not found")
}
