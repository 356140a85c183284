//! The whole path: from the socket to the last committed estimate.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rovi_common::testing::eventually;
use rovicli::simulation::{self, Plan, Simulation};
use system_tests::Stack;

use crate::{ingest, summary::Summary};

const PATIENCE: Duration = Duration::from_mins(5);

/// Measures `path_rows_per_s`.
pub(crate) async fn rows_to_estimates(
    stack: &Stack,
    summary: &mut Summary,
    rows: usize,
) -> anyhow::Result<()> {
    let hub = stack.hub_url();
    let metadata = serde_json::json!({"name": "path"});
    let known = stack
        .http()
        .post(format!("{hub}/db/register"))
        .json(&metadata)
        .send()
        .await?;
    ensure!(known.status().is_success(), "{}", known.text().await?);
    let plan = Plan {
        rows,
        ..Plan::default()
    };
    let definition = simulation::estimator_document(&plan).to_string();
    let form = [("name", "path"), ("definition", definition.as_str())];
    let answer = stack
        .http()
        .post(format!("{hub}/online/register"))
        .form(&form)
        .send()
        .await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);

    let frames = Simulation::new(plan).collect::<Result<_, _>>()?;

    let begun = Instant::now();
    ingest::upload(stack, "path", frames).await?;
    let estimates = r#"SELECT coalesce(max(seq), 0) AS value FROM estimates."path""#;
    let exists = "SELECT count(*) AS value FROM pg_tables WHERE schemaname = 'estimates'";
    let mut database = stack.database();
    let mut newest = || match database.number(exists) {
        0 => 0,
        _ => database.number(estimates),
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
    let took = begun.elapsed().as_secs_f64();
    let stored = stack
        .database()
        .number(r#"SELECT count(*) AS value FROM estimates."path""#);
    // The first row only starts the filter.
    ensure!(
        usize::try_from(stored)? + 1 >= rows,
        "{stored} estimates of {rows} rows"
    );
    let peer = "the origin: 19 rows/s with an estimator";
    summary.add("path_rows_per_s", rows as f64 / took, "rows/s", peer);
    Ok(())
}
