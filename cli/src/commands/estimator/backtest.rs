//! `rovicli estimator backtest BATTERY CANDIDATE`: a candidate over stored history, beside the
//! champion.

use std::{fmt::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use rovi_common::name::{BatteryName, EstimatorName};
use serde_json::Value;

use crate::hub::{Hub, NewBacktest, read_attachment};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `rovicli estimator backtest`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// The candidate: a native document (JSON) or a Python script.
    definition: Option<PathBuf>,
    /// Files that the script reads.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// A registered estimator as candidate; with a definition the name under which it may be promoted.
    #[arg(long, value_name = "NAME")]
    estimator: Option<EstimatorName>,
    /// First and last row, such as `1..100000` or `5000..`.
    #[arg(long, value_name = "RANGE")]
    seq: Option<String>,
    /// Rows with `test_time` below this, in seconds, are not used.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    valid_from: f64,
    /// Span of history in seconds that the script's offline estimation gets.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    required_time: f64,
    /// Ends this backtest, or forgets it if it has ended, instead of starting one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["definition", "estimator"])]
    cancel: Option<String>,
    /// Prints the record as JSON.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
#[expect(clippy::print_stderr, reason = "progress is not the output")]
pub(super) async fn run(hub: &Hub, args: Args) -> Result<()> {
    let (battery, json) = (args.battery.clone(), args.json);
    if let Some(id) = &args.cancel {
        let ended = hub.end_backtest(&battery, id).await?;
        println!("backtest {id} of {battery} was {}", text(&ended, "state"));
        return Ok(());
    }
    let started = hub.start_backtest(new(args)?).await?;
    let id = text(&started, "id");
    eprintln!(
        "backtest {id} of {battery}: {} rows",
        number(&started, "rows_total")
    );
    let record = loop {
        let record = hub.backtest(&battery, &id).await?;
        if text(&record, "state") != "running" {
            break record;
        }
        eprintln!(
            "  {} rows, {:.0} rows/s",
            number(&record, "rows_done"),
            number(&record, "rows_per_s")
        );
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if json {
        println!("{record:#}");
    } else {
        print!("{}", table(&record));
    }
    match text(&record, "state").as_str() {
        "done" => Ok(()),
        state => bail!("the backtest is {state}: {}", text(&record, "error")),
    }
}

fn new(args: Args) -> Result<NewBacktest> {
    let definition = args.definition.as_ref().map(|path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    });
    let files = args.files.iter().map(|path| read_attachment(path));
    Ok(NewBacktest {
        definition: definition.transpose()?,
        files: files.collect::<Result<_>>()?,
        battery: args.battery,
        estimator: args.estimator,
        valid_from: args.valid_from,
        required_time: args.required_time,
        seq: args.seq,
    })
}

/// Both sides beside each other.
fn table(record: &Value) -> String {
    let Some(result) = record.get("result").filter(|result| result.is_object()) else {
        return String::new();
    };
    let sides = ["candidate", "champion"].map(|side| result.get(side).unwrap_or(&Value::Null));
    let mut out = String::new();
    let mut line = |what: &str, shown: [String; 2]| {
        let [candidate, champion] = shown;
        // Writing into a text cannot fail.
        let _written = writeln!(out, "{what:<32} {candidate:>26} {champion:>26}");
    };
    line(
        &format!("{} rows compared", number(result, "rows_compared")),
        ["candidate".to_owned(), "champion".to_owned()],
    );
    let at = |path: &'static str, unit: &'static str| {
        sides.map(|side| match side.pointer(path).and_then(Value::as_f64) {
            Some(value) => format!("{value:.6}{unit}"),
            None => "-".to_owned(),
        })
    };
    for (what, path, unit) in [
        ("rmse of predicted voltage", "/voltage/rmse", " V"),
        ("bias of predicted voltage", "/voltage/bias", " V"),
        ("largest error of voltage", "/voltage/max", " V"),
        ("mean NIS", "/consistency/mean_nis", ""),
        ("  chi-square from", "/consistency/nis_band/0", ""),
        ("  chi-square to", "/consistency/nis_band/1", ""),
        ("coverage of 95 %", "/consistency/coverage_95", ""),
        ("log likelihood", "/consistency/log_likelihood", ""),
    ] {
        line(what, at(path, unit));
    }
    let ends = sides.map(|side| side.get("end").and_then(Value::as_object));
    let mut names: Vec<&String> = ends.iter().flatten().flat_map(|end| end.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        line(
            name,
            ends.map(|end| estimated(end.and_then(|end| end.get(name)))),
        );
    }
    out
}

fn estimated(value: Option<&Value>) -> String {
    let part = |field: &str| value.and_then(|value| value.get(field)?.as_f64());
    match (part("mean"), part("std")) {
        (Some(mean), Some(std)) => format!("{mean:.6e} ± {std:.2e}"),
        (Some(mean), None) => format!("{mean:.6e}"),
        _ => "-".to_owned(),
    }
}

fn text(value: &Value, field: &str) -> String {
    let found = value.get(field).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn number(value: &Value, field: &str) -> f64 {
    value.get(field).and_then(Value::as_f64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_stand_beside_each_other_and_what_one_lacks_is_a_dash() {
        let record = serde_json::json!({"result": {
            "rows_compared": 99,
            "candidate": {"voltage": {"rmse": 0.001}, "end": {"soc": {"mean": 0.5, "std": 0.01}}},
            "champion": null
        }});
        let table = table(&record);
        let line = |start: &str| {
            let found = table.lines().find(|line| line.starts_with(start));
            found
                .unwrap_or_else(|| panic!("{start}: {table}"))
                .to_owned()
        };
        assert!(line("99 rows compared").ends_with("champion"));
        assert!(line("rmse").contains("0.001000 V") && line("rmse").ends_with('-'));
        assert!(line("soc").contains("5.000000e-1 ± 1.00e-2"));
    }
}
