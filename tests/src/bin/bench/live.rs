//! Telling everyone at once: how much later a change is known to one of many, and what an idle
//! socket costs.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
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
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
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

/// Measures `ws_p99_vs_idle_p50` and `ws_idle_socket_kib`.
pub(crate) async fn everyone(stack: &Stack, summary: &mut Summary) -> anyhow::Result<()> {
    let nats = streams::connect(&stack.nats.server.url().parse()?, "bench").await?;
    let bus = jetstream::new(nats);
    let idle = idle_latency(stack, &bus).await?;
    summary.add("ws_idle_p50_ms", idle, "ms", "one battery, one socket");

    for battery in 0..BATTERIES {
        publish(&bus, &name(battery), 1).await?;
    }
    eventually(PATIENCE, || async {
        let (_, mut snapshot) = open(stack, "?fields=seq")
            .await
            .map_err(|e| e.to_string())?;
        let known = snapshot.remove(0).matches("battery:many").count();
        (known >= BATTERIES)
            .then_some(())
            .ok_or_else(|| format!("{known} batteries"))
    })
    .await;
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

    let (tell, mut told) = mpsc::unbounded_channel();
    let mut listeners = JoinSet::new();
    for socket in sockets {
        // Those of all batteries are load.
        let counts = listeners.len() < BATTERIES;
        listeners.spawn(listen(socket, counts.then(|| tell.clone())));
    }
    drop(tell);
    let mut latencies = Vec::new();
    let expected = usize::try_from(ROUNDS)? * BATTERIES;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / 100);
    for seq in 2..2 + ROUNDS {
        // A row a second of each, spread over the second.
        for group in 0..100 {
            tick.tick().await;
            let share = (group..BATTERIES).step_by(100);
            let names: Vec<String> = share.map(name).collect();
            let sent = join_all(names.iter().map(|name| publish(&bus, name, seq)));
            sent.await.into_iter().collect::<anyhow::Result<()>>()?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while latencies.len() < expected && Instant::now() < deadline {
        match tokio::time::timeout(Duration::from_secs(5), told.recv()).await {
            Ok(Some(latency)) => latencies.push(latency),
            _ => break,
        }
    }
    ensure!(
        latencies.len() >= expected * 9 / 10,
        "{} of {expected} came",
        latencies.len()
    );
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    summary.add(
        "ws_p50_ms",
        at(0.5),
        "ms",
        "1,000 batteries, 1,000 + 50 sockets",
    );
    summary.add(
        "ws_p99_ms",
        at(0.99),
        "ms",
        "1,000 batteries, 1,000 + 50 sockets",
    );
    summary.add(
        "ws_p99_vs_idle_p50",
        at(0.99) / idle,
        "times",
        "one battery, one socket",
    );
    listeners.shutdown().await;
    Ok(())
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
        let is_known = snapshot.iter().any(|text| text.contains("lone"));
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
async fn open(stack: &Stack, query: &str) -> anyhow::Result<(Socket, Vec<String>)> {
    let url = format!("{}/ws{query}", stack.twin_url().replace("http", "ws"));
    let (mut socket, _) = connect_async(url).await?;
    let snapshot = hear(&mut socket).await.context("no snapshot came")?;
    Ok((socket, vec![snapshot]))
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
async fn listen(mut socket: Socket, tell: Option<mpsc::UnboundedSender<f64>>) {
    while let Some(text) = hear(&mut socket).await {
        if let (Some(tell), Some(latency)) = (&tell, latency(&text))
            && tell.send(latency).is_err()
        {
            return;
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
