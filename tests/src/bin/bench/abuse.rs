//! What good clients notice of 10,000 wrong logins a second from the same address.
//!
//! The generator runs on the same machine and takes its share of the cores; it asks over few connections
//! that stay open, many requests behind each other, so that it is the service that is measured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use system_tests::Stack;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::summary::{Summary, median, percentile};

const ADMIN: &str = "the-canary-token-of-the-admin-in-its-file";
const SERVICE: &str = "the-canary-token-of-the-services-in-its-file";
const LOGINS_PER_S: u64 = 10_000;
const CONNECTIONS: u64 = 20;
const TICK: Duration = Duration::from_millis(10);
/// Requests behind each other, each tick and connection.
const BURST: u64 = LOGINS_PER_S / 100 / CONNECTIONS;
const REQUESTS: usize = 2_000;
const ROUNDS: usize = 3;

/// Measures a row's way into its table by `POST`, alone and beside wrong logins.
pub(crate) async fn good_beside_bad(stack: &mut Stack, summary: &mut Summary) -> Result<()> {
    for (setting, name, token) in [
        ("AUTH__SERVICE_TOKEN_FILE", "service.token", SERVICE),
        ("AUTH__ADMIN_TOKEN_FILE", "admin.token", ADMIN),
    ] {
        let file = stack.folder().join(name);
        std::fs::write(&file, token)?;
        stack.set(setting, &file.display().to_string());
    }
    stack.set("AUTH__REQUIRED", "true");
    stack.start_hub();
    stack.hub_ready().await;
    good(stack).await?;
    let (mut idle, mut attacked, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.push(good(stack).await?);
        let answered = Arc::new(AtomicU64::new(0));
        let mut attackers = attack(&stack.hub_url(), &answered).await?;
        let (since, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        attacked.push(good(stack).await?);
        let count = answered.load(Ordering::Relaxed) - before;
        refused.push(count as f64 / since.elapsed().as_secs_f64());
        attackers.shutdown().await;
    }
    let (idle, attacked) = (median(idle), median(attacked));
    let rate = median(refused);
    ensure!(rate > 0.0, "no login was refused");
    summary.add(
        "bad_logins_per_s",
        rate,
        "refused/s",
        "generator on the same cores",
    );
    summary.add("good_p99_idle_ms", idle, "ms", "one row by POST, stored");
    summary.add(
        "good_p99_abuse_ms",
        attacked,
        "ms",
        "the same beside bad logins",
    );
    summary.add("abuse_p99_vs_idle", attacked / idle, "ratio", "at most 2");
    Ok(())
}

/// Returns the p99 of good requests, one after another, in milliseconds.
async fn good(stack: &Stack) -> Result<f64> {
    let url = format!("{}/db/upload/good", stack.hub_url());
    let row = json!({"test_time": 1.0, "voltage": 3.5});
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let since = Instant::now();
        let request = stack.http().post(&url).bearer_auth(ADMIN).json(&row);
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        took.push(since.elapsed().as_secs_f64() * 1e3);
    }
    Ok(percentile(&took, 0.99))
}

/// Begins to show wrong credentials, until what is returned ends.
async fn attack(hub: &str, answered: &Arc<AtomicU64>) -> Result<JoinSet<()>> {
    let address = hub.trim_start_matches("http://").to_owned();
    let wrong = format!("rovi_{}_{}", "0".repeat(16), "0".repeat(64));
    let request = format!(
        "GET /auth/me HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {wrong}\r\n\r\n"
    );
    let burst = request.repeat(usize::try_from(BURST)?);
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (mut read, mut write) = TcpStream::connect(&address).await?.into_split();
        let (burst, answered) = (burst.clone(), Arc::clone(answered));
        attackers.spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            while write.write_all(burst.as_bytes()).await.is_ok() {
                ticks.tick().await;
            }
        });
        attackers.spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read @ 1..) = read.read(&mut bytes).await {
                let heads = bytes.get(..read).unwrap_or_default();
                let heads = heads.windows(9).filter(|nine| *nine == b"HTTP/1.1 ");
                answered.fetch_add(heads.count() as u64, Ordering::Relaxed);
            }
        });
    }
    Ok(attackers)
}
