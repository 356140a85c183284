//! A reduction of history beside the plain aggregate that would draw the same plot.

use std::time::Instant;

use anyhow::{anyhow, ensure};
use diesel::{Connection, PgConnection, RunQueryDsl, sql_query};
use rovi_common::testing::eventually;
use system_tests::Stack;

use crate::{
    ingest,
    rows::frames,
    summary::{Summary, median},
};

/// Rows that are reduced, to how many points, and how often each way is measured.
const ROWS: usize = 1_000_000;
const POINTS: usize = 1000;
const TIMES: usize = 9;
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(5);

/// Measures `reduce_vs_datebin`: seconds of `max_points` over HTTP, once rollups are made, as a part
/// of the seconds of `GROUP BY date_bin` with as many groups of smallest and largest values.
pub(crate) async fn reduce_beside_date_bin(
    stack: &Stack,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let battery = "reduced";
    ingest::upload(stack, battery, frames(ROWS).collect()).await?;
    stack.relayed(battery).await;
    let mut connection = PgConnection::establish(&stack.postgres.server.url())?;
    // Rows a second apart, as a cycler sends them; else all would lie in one bin.
    for statement in [
        format!(
            "UPDATE battery.\"{battery}\" SET received = timestamptz '2026-01-01' + seq * interval '1 s'"
        ),
        format!("VACUUM (FULL, ANALYZE) battery.\"{battery}\""),
    ] {
        sql_query(statement).execute(&mut connection)?;
    }
    let path = format!("/db/{battery}/rows?columns=voltage&max_points={POINTS}");
    let first = seconds(async || points(stack, &path).await).await?;
    let mut database = stack.database();
    eventually(PATIENCE, || {
        let made = database.number("SELECT count(*) AS value FROM hub.rollups WHERE level = 1 AND column_name = 'received'");
        async move { if made == i64::try_from(ROWS / 4096).unwrap_or(0) { Ok(()) } else { Err(made) } }
    })
    .await;
    let width = 2 * ROWS / POINTS;
    let aggregate = format!(
        "SELECT date_bin('{width} s', received, timestamptz '2026-01-01') AS bin, min(voltage), \
         max(voltage) FROM battery.\"{battery}\" GROUP BY 1"
    );
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let reduced = seconds(async || points(stack, &path).await).await?;
        let begun = Instant::now();
        sql_query(&aggregate).execute(&mut connection)?;
        let aggregated = begun.elapsed().as_secs_f64();
        ours.push(reduced);
        theirs.push(aggregated);
        ratios.push(reduced / aggregated);
    }
    let peer = format!(
        "date_bin: {:.1} ms; reduction {:.1} ms, the first one {:.0} ms",
        1e3 * median(theirs),
        1e3 * median(ours),
        1e3 * first
    );
    summary.add("reduce_vs_datebin", median(ratios), "of date_bin", &peer);
    Ok(())
}

async fn seconds(work: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work().await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Asks for a reduction and checks that there are points, but not too many.
async fn points(stack: &Stack, path: &str) -> anyhow::Result<()> {
    let body = stack.get(path).await.map_err(|error| anyhow!(error))?;
    let points = body
        .get("seq")
        .and_then(|seq| seq.as_array())
        .map_or(0, Vec::len);
    ensure!(POINTS / 4 < points && points <= POINTS, "{points} points");
    Ok(())
}
