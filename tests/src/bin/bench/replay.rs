//! Estimators over stored history, rows read from the table included.

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use rovi_common::{
    rows::{Column, Columns},
    testing::eventually,
};
use serde_json::{Value, json};
use system_tests::{Stack, binary};

use crate::{
    ingest,
    rows::frames,
    summary::{Summary, median},
    twins,
};

const ROWS: usize = 1_000_000;
/// Of this many runs the median counts.
const RUNS: usize = 3;
const PATIENCE: Duration = Duration::from_mins(10);

/// Measures `replay_vs_ukf4`, one estimator over the rows, and `backtest_vs_ukf4`, with a champion
/// beside it.
pub(crate) async fn history(stack: &Stack, summary: &mut Summary) -> anyhow::Result<()> {
    ingest::upload(stack, "history", cycling().collect()).await?;
    let ukf4 = ukf4_steps_per_s()?;
    let mut measure = async |name: &str, sides: &str| {
        let mut speeds = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            speeds.push(rows_per_s(stack).await?);
        }
        let speed = median(speeds);
        let peer = format!("{speed:.0} rows/s, {sides}; one core alone: {ukf4:.0} steps/s");
        summary.add(name, speed / ukf4, "of the filter alone", &peer);
        anyhow::Ok(())
    };
    measure("replay_vs_ukf4", "one estimator").await?;
    register_champion(stack).await?;
    measure("backtest_vs_ukf4", "candidate and champion").await
}

/// The rows of the other measurements, with current and voltage of a cell that is charged and
/// discharged by turns around half charge, as in `ukf_speed`.
fn cycling() -> impl Iterator<Item = Columns> {
    frames(ROWS).map(|batch| {
        let times: Vec<f64> = match batch.get("test_time") {
            Some(Column::Float(times)) => times.iter().flatten().copied().collect(),
            _ => Vec::new(),
        };
        let current = |time: &f64| if time % 1800.0 < 900.0 { 2.0 } else { -2.0 };
        let column = |value: &dyn Fn(f64) -> f64| {
            let values = times.iter().map(|time| Some(value(current(time))));
            Column::Float(values.collect())
        };
        let columns = batch.into_vec().into_iter().map(|(name, cells)| {
            let cells = match name.as_str() {
                "current" => column(&|current| current),
                "voltage" => column(&|current| 3.55 + 0.02 * current),
                _ => cells,
            };
            (name, cells)
        });
        Columns::new(columns.collect()).expect("the columns are of one length")
    })
}

fn ukf4_steps_per_s() -> anyhow::Result<f64> {
    let output = Command::new(binary("examples/ukf_speed")).output()?;
    let speeds: Value = serde_json::from_slice(&output.stdout)?;
    let speed = field(&speeds, "ukf4_steps_per_s").as_f64();
    speed.context("examples/ukf_speed tells no speed")
}

/// A filter with 4 states, as `ukf_speed` has it, that tells of every thousandth row.
fn document() -> String {
    let mut document = twins::document();
    if let Some(keys) = document.as_object_mut() {
        keys.insert("every".to_owned(), json!(1000));
    }
    document.to_string()
}

/// Runs a backtest; returns the rows a second from its start to its last row.
async fn rows_per_s(stack: &Stack) -> anyhow::Result<f64> {
    let url = format!("{}/online/history/backtest", stack.hub_url());
    let document = document();
    let sent = stack.http().post(&url).form(&[("definition", &document)]);
    let answer = sent.send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    let started: Value = answer.json().await?;
    let id = field(&started, "id")
        .as_str()
        .context("a backtest without a name")?;
    let shown = async || -> anyhow::Result<Value> {
        let answer = stack.http().get(format!("{url}/{id}")).send().await?;
        Ok(answer.json().await?)
    };
    let ended = eventually(PATIENCE, async || match shown().await {
        Ok(shown) if field(&shown, "state") != "running" => Ok(shown),
        Ok(shown) => Err(shown.to_string()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    ensure!(field(&ended, "state") == "done", "{ended}");
    ensure!(field(&ended, "rows_done") == ROWS, "{ended}");
    field(&ended, "rows_per_s")
        .as_f64()
        .context("no speed was told")
}

async fn register_champion(stack: &Stack) -> anyhow::Result<()> {
    let hub = stack.hub_url();
    let document = document();
    let form = [("name", "history"), ("definition", document.as_str())];
    let sent = stack.http().post(format!("{hub}/online/register"));
    let answer = sent.form(&form).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    eventually(PATIENCE, async || {
        let answer = stack.http().get(format!("{hub}/online/status")).send();
        let status: Value = match answer.await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(error) => return Err(error.to_string()),
        };
        if field(field(&status, "history"), "seq") == ROWS {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    Ok(())
}

/// A field of an object; null where it is missing.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}
