//! The whole path: from the socket to the last committed estimate, of one battery and of many.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rovi_common::{rows::Columns, testing::eventually};
use rovicli::simulation::{self, Plan, Simulation};
use system_tests::Stack;

use crate::{
    ingest, peer,
    processor::{Machine, Parts},
    summary::{Summary, median},
};

const PATIENCE: Duration = Duration::from_mins(5);

/// Batteries that pour at once, and the rows of each: once when their tables have to be made, and
/// once more when they are there, as the table is that is copied into.
const FLEET: usize = 1_000;
const FLEET_ROWS: usize = 500;
/// Times the table is copied; the median counts.
const COPIES: usize = 3;

/// Measures `path_rows_per_s`, `path_vs_copy` and `fleet_path_vs_copy`.
pub(crate) async fn rows_to_estimates(
    stack: &mut Stack,
    summary: &mut Summary,
    rows: usize,
) -> anyhow::Result<()> {
    register(stack, "path").await?;
    let plan = Plan {
        rows,
        ..Plan::default()
    };
    let frames = Simulation::new(plan).collect::<Result<_, _>>()?;
    let before = Usage::now(stack)?;
    let begun = Instant::now();
    ingest::upload(stack, "path", frames).await?;
    println!("  stored after {:.2} s", begun.elapsed().as_secs_f64());
    estimated(stack, &["path".to_owned()], rows).await;
    let took = begun.elapsed().as_secs_f64();
    Usage::now(stack)?.print_since(&before, rows);
    are_complete(stack, &["path".to_owned()], rows - 1)?;
    let speed = rows as f64 / took;
    let peer = "the origin: 19 rows/s with an estimator";
    summary.add("path_rows_per_s", speed, "rows/s", peer);
    let copy = copied(stack, rows)?;
    let peer = format!("\\copy binary: {copy:.0} rows/s");
    summary.add("path_vs_copy", speed / copy, "of \\copy", &peer);
    let (first, again) = fleet(stack).await?;
    let about = "1,000 batteries, whose tables are made meanwhile";
    summary.add("fleet_path_first_rows_per_s", first, "rows/s", about);
    summary.add("fleet_path_rows_per_s", again, "rows/s", "1,000 batteries");
    summary.add("fleet_path_vs_copy", again / copy, "of \\copy", &peer);
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

/// Pours rows of many batteries at once, twice; returns the rows a second of each time.
async fn fleet(stack: &mut Stack) -> anyhow::Result<(f64, f64)> {
    let plan = Plan {
        rows: 2 * FLEET_ROWS,
        ..Plan::default()
    };
    let mut first = Columns::default();
    for frame in Simulation::new(plan) {
        first.append(frame?);
    }
    let again = first.split_off(FLEET_ROWS);
    let names: Vec<String> = (0..FLEET).map(|number| format!("pour-{number}")).collect();
    for name in &names {
        register(stack, name).await?;
    }
    let first = pour(stack, &names, first, FLEET_ROWS).await?;
    let again = pour(stack, &names, again, 2 * FLEET_ROWS).await?;
    // The first row of each upload begins a segment and only starts the filter.
    are_complete(stack, &names, 2 * FLEET_ROWS - 2)?;
    Ok((first, again))
}

/// Pours the same rows for each battery, the last of which is then row `last`; returns the rows a
/// second until all are estimated.
async fn pour(
    stack: &mut Stack,
    names: &[String],
    rows: Columns,
    last: usize,
) -> anyhow::Result<f64> {
    peer::checkpoint(stack)?;
    let count = FLEET * rows.rows();
    let before = Usage::now(stack)?;
    let begun = Instant::now();
    let to: &Stack = stack;
    let uploads = names
        .iter()
        .map(|name| ingest::upload(to, name, vec![rows.clone()]));
    futures_util::future::try_join_all(uploads).await?;
    println!("  stored after {:.2} s", begun.elapsed().as_secs_f64());
    estimated(stack, names, last).await;
    let speed = count as f64 / begun.elapsed().as_secs_f64();
    Usage::now(stack)?.print_since(&before, count);
    Ok(speed)
}

/// What the machine and each part of the stack have used so far.
struct Usage(Machine, Parts);

impl Usage {
    fn now(stack: &mut Stack) -> anyhow::Result<Self> {
        Ok(Self(Machine::now()?, Parts::now(stack)?))
    }

    fn print_since(&self, before: &Self, rows: usize) {
        let idle = 100.0 * self.0.idle_since(&before.0);
        println!("  {idle:.0} % of all cores were idle");
        let busy = self.0.busy_since(&before.0);
        self.1.print_since(&before.1, busy, rows as f64);
    }
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

/// Waits until the estimates of the last rows are committed.
///
/// `hub.lineage` moves in their transactions: a look at it takes nothing from what is measured, as
/// one through the tables would.
async fn estimated(stack: &Stack, batteries: &[String], rows: usize) {
    let done = format!(
        "SELECT count(*) AS value FROM hub.lineage l JOIN hub.batteries b ON b.id = l.battery_id \
         WHERE l.last_seq = {rows} AND b.name IN ('{}')",
        batteries.join("', '")
    );
    let mut database = stack.database();
    eventually(PATIENCE, || {
        let found = database.number(&done);
        let is_done = usize::try_from(found).is_ok_and(|found| found == batteries.len());
        async move {
            if is_done {
                Ok(())
            } else {
                Err(format!("{found} batteries are estimated"))
            }
        }
    })
    .await;
}

/// Sees to it that no estimate is missing.
fn are_complete(stack: &Stack, batteries: &[String], estimates: usize) -> anyhow::Result<()> {
    let mut database = stack.database();
    for battery in batteries {
        let count = format!(r#"SELECT count(*) AS value FROM estimates."{battery}""#);
        let stored = usize::try_from(database.number(&count))?;
        ensure!(
            stored >= estimates,
            "{stored} of {estimates} estimates of {battery}"
        );
    }
    Ok(())
}
