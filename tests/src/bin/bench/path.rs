//! The whole path: from the socket to the last committed estimate, of one battery and of many.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rovi_common::{rows::Columns, testing::eventually};
use rovicli::simulation::{self, Plan, Simulation};
use system_tests::Stack;

use crate::{
    ingest, peer,
    summary::{Summary, median},
};

const PATIENCE: Duration = Duration::from_mins(5);

/// Batteries that pour at once, and the rows of each.
const FLEET: usize = 1_000;
const FLEET_ROWS: usize = 500;
/// Times the table is copied; the median counts.
const COPIES: usize = 3;

/// Measures `path_rows_per_s`, `path_vs_copy` and `fleet_path_vs_copy`.
pub(crate) async fn rows_to_estimates(
    stack: &Stack,
    summary: &mut Summary,
    rows: usize,
) -> anyhow::Result<()> {
    register(stack, "path").await?;
    let plan = Plan {
        rows,
        ..Plan::default()
    };
    let frames = Simulation::new(plan).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    ingest::upload(stack, "path", frames).await?;
    estimated(stack, "path", rows).await;
    let took = begun.elapsed().as_secs_f64();
    let stored = stack
        .database()
        .number(r#"SELECT count(*) AS value FROM estimates."path""#);
    // The first row only starts the filter.
    ensure!(
        usize::try_from(stored)? + 1 >= rows,
        "{stored} estimates of {rows} rows"
    );
    let speed = rows as f64 / took;
    let peer = "the origin: 19 rows/s with an estimator";
    summary.add("path_rows_per_s", speed, "rows/s", peer);
    let copy = copied(stack, rows)?;
    let peer = format!("\\copy binary: {copy:.0} rows/s");
    summary.add("path_vs_copy", speed / copy, "of \\copy", &peer);
    let speed = fleet(stack).await?;
    summary.add("fleet_path_rows_per_s", speed, "rows/s", "1,000 batteries");
    summary.add("fleet_path_vs_copy", speed / copy, "of \\copy", &peer);
    Ok(())
}

/// Returns the rows a second at which the table of the rows is copied.
fn copied(stack: &Stack, rows: usize) -> anyhow::Result<f64> {
    let file = stack.folder().join("path.copy");
    peer::save(stack, "path", &file)?;
    let mut speeds = Vec::new();
    for _ in 0..COPIES {
        peer::checkpoint(stack)?;
        speeds.push(rows as f64 / peer::load(stack, "path", &file)?);
    }
    Ok(median(speeds))
}

/// Pours rows of many batteries at once; returns the rows a second until all are estimated.
async fn fleet(stack: &Stack) -> anyhow::Result<f64> {
    let name = |number: usize| format!("pour-{number}");
    let plan = Plan {
        rows: FLEET_ROWS,
        ..Plan::default()
    };
    let frames: Vec<Columns> = Simulation::new(plan).collect::<Result<_, _>>()?;
    for number in 0..FLEET {
        register(stack, &name(number)).await?;
    }
    let begun = Instant::now();
    let uploads = (0..FLEET).map(|number| {
        let frames = frames.clone();
        async move { ingest::upload(stack, &name(number), frames).await }
    });
    futures_util::future::try_join_all(uploads).await?;
    for number in 0..FLEET {
        estimated(stack, &name(number), FLEET_ROWS).await;
    }
    Ok((FLEET * FLEET_ROWS) as f64 / begun.elapsed().as_secs_f64())
}

/// Makes a battery known and registers its estimator.
pub(crate) async fn register(stack: &Stack, battery: &str) -> anyhow::Result<()> {
    let hub = stack.hub_url();
    let metadata = serde_json::json!({"name": battery});
    let known = stack
        .http()
        .post(format!("{hub}/db/register"))
        .json(&metadata)
        .send()
        .await?;
    ensure!(known.status().is_success(), "{}", known.text().await?);
    let definition = simulation::estimator_document(&Plan::default()).to_string();
    let form = [("name", battery), ("definition", definition.as_str())];
    let answer = stack
        .http()
        .post(format!("{hub}/online/register"))
        .form(&form)
        .send()
        .await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(())
}

/// Waits until the estimate of the last row is committed.
async fn estimated(stack: &Stack, battery: &str, rows: usize) {
    let exists = format!(
        "SELECT count(*) AS value FROM pg_tables \
         WHERE schemaname = 'estimates' AND tablename = '{battery}'"
    );
    let last = format!(r#"SELECT coalesce(max(seq), 0) AS value FROM estimates."{battery}""#);
    let mut database = stack.database();
    let mut newest = || match database.number(&exists) {
        0 => 0,
        _ => database.number(&last),
    };
    eventually(PATIENCE, || {
        let newest = newest();
        let done = usize::try_from(newest).is_ok_and(|newest| newest == rows);
        async move {
            if done {
                Ok(())
            } else {
                Err(format!("estimates up to row {newest}"))
            }
        }
    })
    .await;
}
