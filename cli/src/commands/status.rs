//! `rovicli status`: batteries, their rows and what their estimators say.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anyhow::{Result, bail};
use rovi_common::name::BatteryName;

use crate::hub::{BatteryStats, EstimatorStatus, Hub, Parameter};

const HEADER: [&str; 9] = [
    "battery",
    "rows",
    "estimator",
    "ready",
    "behind",
    "time",
    "charge",
    "capacity",
    "R0",
];

/// Arguments of `rovicli status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shows every state of this battery's estimators.
    battery: Option<BatteryName>,
}

#[expect(clippy::print_stderr, reason = "a twin that is away is a remark")]
pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let stats = hub.stats().await?;
    let mut out = String::new();
    match &args.battery {
        Some(battery) => {
            let Some(known) = stats.get(battery.as_str()) else {
                bail!("the hub knows no battery `{battery}`; `rovicli status` lists all");
            };
            out += &details(hub, battery.as_str(), known).await?;
        }
        None if stats.is_empty() => {
            out += "no batteries yet; `rovicli stream FILE.h5` sends some rows\n";
        }
        None => {
            let estimators = hub.default_estimators().await.unwrap_or_else(|error| {
                eprintln!("no estimates: {error:#}");
                BTreeMap::new()
            });
            let mut table = vec![HEADER.map(str::to_owned).to_vec()];
            let lines = stats
                .iter()
                .map(|(battery, known)| overview(battery, known, estimators.get(battery)));
            table.extend(lines);
            out += &aligned(&table);
        }
    }
    Ok(io::stdout().write_all(out.as_bytes())?)
}

/// One battery with its champion.
fn overview(battery: &str, known: &BatteryStats, status: Option<&EstimatorStatus>) -> Vec<String> {
    let mut line = vec![battery.to_owned(), rows_of(known).to_string()];
    match status {
        Some(status) => {
            let name = status.estimator.as_deref();
            line.push(name.unwrap_or("default").to_owned());
            line.extend(estimator_cells(status));
        }
        None if known.has_estimator => line.push("(others, or away)".to_owned()),
        None => line.push("(none)".to_owned()),
    }
    line
}

fn estimator_cells(status: &EstimatorStatus) -> [String; 6] {
    let shown = |parameter: Parameter| parameter.show(status).unwrap_or_else(dash);
    [
        if status.is_ready { "yes" } else { "no" }.to_owned(),
        status
            .rows_behind
            .map_or_else(dash, |rows| rows.to_string()),
        status
            .latest_time
            .map_or_else(dash, |time| format!("{time:.1} s")),
        shown(Parameter::SOC),
        shown(Parameter::CAPACITY),
        shown(Parameter::R0),
    ]
}

/// Everything about one battery.
async fn details(hub: &Hub, battery: &str, stats: &BatteryStats) -> Result<String> {
    let mut text = format!("{battery}: {} rows\n", rows_of(stats));
    let estimators = hub.estimators(battery).await?.unwrap_or_default().0;
    if estimators.is_empty() {
        text += "no estimator; `rovicli register` adds one\n";
    }
    for (name, status) in estimators {
        text += "\n";
        text += &remarks(&name, &status).join("\n");
        text += "\n";
        let lines = status.states().map(|(state, mean, deviation)| {
            let numbers = [number(mean), format!("± {}", number(deviation))];
            [format!("  {state}")].into_iter().chain(numbers).collect()
        });
        text += &aligned(&lines.collect::<Vec<_>>());
    }
    Ok(text)
}

/// Where an estimator stands and what is odd, a line each.
fn remarks(name: &str, status: &EstimatorStatus) -> Vec<String> {
    let mut standing = Vec::new();
    match status.latest_time {
        Some(time) if status.is_ready => standing.push(format!("at test time {time:.1} s")),
        _ => standing.push("not ready, it has used no row yet".to_owned()),
    }
    standing.extend(status.seq.map(|seq| format!("row {seq}")));
    standing.extend(status.rows_behind.map(|rows| format!("{rows} rows behind")));
    standing.extend(status.role.clone());
    standing.extend(status.phase.as_ref().map(|phase| phase.replace('_', " ")));
    let mut lines = vec![format!("estimator {name}: {}", standing.join(", "))];
    let skipped = status.skipped.iter().filter(|(_, rows)| **rows > 0);
    lines.extend(skipped.map(|(reason, rows)| format!("  {rows} rows not used: {reason}")));
    lines.extend(
        status
            .warnings
            .iter()
            .map(|warning| format!("  warning: {warning}")),
    );
    lines.extend(
        status
            .last_error
            .iter()
            .map(|error| format!("  last error: {error}")),
    );
    lines
}

/// Writes a number of any size so that its leading digits are seen.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        format!("{value:.6}")
    } else {
        format!("{value:.3e}")
    }
}

fn rows_of(stats: &BatteryStats) -> u64 {
    stats.data_stats.as_ref().map_or(0, |table| table.rows)
}

fn dash() -> String {
    "-".to_owned()
}

/// Lines up the cells of lines; the last cell of a line is not padded.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in table {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_keep_their_digits() {
        let shown = [0.0, 2.5, -0.0312, 1.25e-7].map(number);
        assert_eq!(shown, ["0.000000", "2.500000", "-0.031200", "1.250e-7"]);
    }

    #[test]
    fn cells_line_up_whatever_their_characters() {
        let line = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let table = [
            line(&["a", "R0", "x"]),
            line(&["long", "1 mΩ"]),
            line(&["b", "12 mΩ", "y"]),
        ];
        assert_eq!(
            aligned(&table),
            "a     R0     x\nlong  1 mΩ\nb     12 mΩ  y\n"
        );
    }
}
