//! Rows that are corrected and deleted, while the hub dies in the midst of it or a twin as it goes
//! back before them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use reqwest::RequestBuilder;
use serde_json::json;

use super::{BATTERIES, FIRST, TwinTrial, name};
use crate::{fault::Fault, trial::PATIENCE, twin::TwinProcess};

const POINTS_OF_HUB: [&str; 2] = ["hub.correct.before_commit", "hub.correct.committed"];
const POINTS_OF_TWIN: [&str; 2] = [
    "twin.generation.before_checkpoint",
    "twin.generation.after_checkpoint",
];
/// Up to which passing a point kills.
const MOST_PASSINGS: u64 = 4;
/// Rounds of corrections that are always made.
const ROUNDS: usize = 4;
/// Rounds after which anybody has passed any point often enough.
const MOST_ROUNDS: usize = 60;
/// Rows up to here are corrected, the others before the fault are deleted.
const CORRECTED: usize = FIRST / 2;

/// Tells at which point hub or twin are killed.
pub(super) fn points(fault: Fault, seed: u64) -> String {
    let [first, second] = match fault {
        Fault::HubKilledCorrecting => POINTS_OF_HUB,
        _ => POINTS_OF_TWIN,
    };
    let point = if seed.is_multiple_of(2) {
        first
    } else {
        second
    };
    format!("{point}=kill@{}", 1 + seed / 2 % MOST_PASSINGS)
}

impl TwinTrial {
    /// Corrects and deletes rows of all batteries, again and again until somebody died of it.
    pub(super) async fn correct(&mut self) -> Result<()> {
        self.under_way().await;
        for round in 0..MOST_ROUNDS {
            for number in 0..BATTERIES {
                self.correct_one(number).await?;
            }
            let pause = self.rng.random_range(0..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.revive();
            if round >= ROUNDS && self.deaths() > 0 {
                break;
            }
        }
        Ok(())
    }

    async fn correct_one(&mut self, number: usize) -> Result<()> {
        let (battery, http) = (name(number), self.stack.http().clone());
        let url = format!("{}/db/{battery}/rows", self.hub.url());
        let corrected = self.rng.random_range(1..=CORRECTED);
        let cells = json!({"voltage": self.rng.random_range(3.6..3.9)});
        self.insist(&http.put(format!("{url}/{corrected}")).json(&cells))
            .await?;
        let first = self.rng.random_range(CORRECTED + 1..FIRST);
        let last = FIRST.min(first + self.rng.random_range(0..5));
        let query = format!("seq={first}..{last}&confirm={battery}");
        self.insist(&http.delete(format!("{url}?{query}"))).await
    }

    /// Sends a request until it is answered, starting again whoever died of it.
    async fn insist(&mut self, request: &RequestBuilder) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = request.try_clone().context("its body is no stream")?;
            let problem = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let status = answer.status();
                    let problem = format!("{status}: {}", answer.text().await.unwrap_or_default());
                    ensure!(status.is_server_error(), "{problem}");
                    problem
                }
                Err(error) => error.to_string(),
            };
            ensure!(Instant::now() < deadline, "{problem}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.revive();
        }
    }

    /// Starts again whoever died.
    pub(super) fn revive(&mut self) {
        self.hub.revive();
        self.twins.iter_mut().for_each(TwinProcess::revive);
    }

    /// Returns how often hub and twins died by themselves.
    pub(super) fn deaths(&self) -> usize {
        let of_twins: usize = self.twins.iter().map(|twin| twin.deaths).sum();
        self.hub.deaths + of_twins
    }
}
