//! What authentication and TLS cost: the same work on a stack with both, in turn with one without.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rovi_common::testing::eventually;
use system_tests::Stack;
use tokio::task::JoinSet;

use crate::{
    ingest::upload,
    path::register,
    peer,
    rows::frames,
    summary::{Summary, median},
};

/// Rows of each upload.
const ROWS: usize = 1_000_000;
/// Alternating pairs; the median counts.
const PAIRS: usize = 5;
/// Batteries whose states are asked for.
const BATTERIES: usize = 20;
/// Connections that ask.
const READERS: usize = 8;
/// How long they ask.
const ASK_FOR: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);

/// Measures `ingest_tls_auth_vs_plain` and `status_tls_auth_vs_plain`.
pub(crate) async fn beside_plain(summary: &mut Summary) -> anyhow::Result<()> {
    let mut plain = Stack::servers();
    let mut secure = Stack::servers();
    secure.encrypt();
    secure.ask_everybody();
    for stack in [&mut plain, &mut secure] {
        stack.start_hub_without_bus().await;
    }
    let mut ingest = Pairs::default();
    for pair in 0..PAIRS {
        let battery = format!("secure-{pair}");
        let mut speeds = [0.0; 2];
        for (stack, speed) in [&plain, &secure].into_iter().zip(&mut speeds) {
            peer::checkpoint(stack)?;
            let frames = frames(ROWS).collect();
            *speed = ROWS as f64 / upload(stack, &battery, frames).await?;
        }
        ingest.push(speeds);
    }
    ingest.add(summary, "ingest", "rows/s");
    for stack in [&mut plain, &mut secure] {
        stack.stop_hub();
        stack.start_hub();
        stack.start_twin();
        stack.ready().await;
        know_batteries(stack).await?;
    }
    let mut status = Pairs::default();
    for _ in 0..PAIRS {
        status.push([asked(&plain).await?, asked(&secure).await?]);
    }
    status.add(summary, "status", "requests/s");
    Ok(())
}

/// Speeds without and with authentication and TLS.
#[derive(Default)]
struct Pairs {
    plain: Vec<f64>,
    secure: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pairs {
    fn push(&mut self, [plain, secure]: [f64; 2]) {
        self.plain.push(plain);
        self.secure.push(secure);
        self.ratios.push(secure / plain);
    }

    fn add(self, summary: &mut Summary, name: &str, unit: &str) {
        let peer = format!("without: {:.0} {unit}", median(self.plain));
        summary.add(
            &format!("{name}_tls_auth"),
            median(self.secure),
            unit,
            &peer,
        );
        let ratio = median(self.ratios);
        summary.add(
            &format!("{name}_tls_auth_vs_plain"),
            ratio,
            "of without",
            &peer,
        );
    }
}

/// Registers batteries with an estimator each and waits until the twin tells of all.
async fn know_batteries(stack: &Stack) -> anyhow::Result<()> {
    for battery in 0..BATTERIES {
        register(stack, &format!("b{battery}")).await?;
    }
    eventually(PATIENCE, || async {
        let url = format!("{}/online/status", stack.twin_url());
        let answer = stack.http().get(url).send().await;
        let text = async { answer?.text().await }.await;
        let text = text.map_err(|error: reqwest::Error| error.to_string())?;
        let known = (0..BATTERIES).all(|number| text.contains(&format!("\"b{number}\"")));
        known.then_some(()).ok_or(text)
    })
    .await;
    Ok(())
}

/// Asks the twin for all states over some connections that stay open; returns answers a second.
async fn asked(stack: &Stack) -> anyhow::Result<f64> {
    let url = format!("{}/online/status", stack.twin_url());
    let begun = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (http, url) = (stack.http().clone(), url.clone());
        readers.spawn(async move {
            let mut answers = 0_usize;
            while begun.elapsed() < ASK_FOR {
                http.get(&url)
                    .send()
                    .await?
                    .error_for_status()?
                    .bytes()
                    .await?;
                answers += 1;
            }
            Ok::<usize, reqwest::Error>(answers)
        });
    }
    let mut answers = 0;
    while let Some(asked) = readers.join_next().await {
        answers += asked??;
    }
    ensure!(answers > 0, "nothing was answered");
    Ok(answers as f64 / begun.elapsed().as_secs_f64())
}
