//! Batteries in lines.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result};
use rovi_common::{clock, news::Heartbeat};
use serde_json::{Map, Value};

use super::Sort;

const HEAD: [&str; 9] = [
    "BATTERY",
    "ROW",
    "AGE",
    "VOLTAGE",
    "CURRENT",
    "TEMP",
    "CHARGE",
    "HEALTH",
    "ESTIMATOR",
];

/// The newest state of every battery.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    batteries: BTreeMap<String, Value>,
    /// What stands in the way, if anything does.
    pub(super) remark: String,
}

impl Fleet {
    /// Takes a message of the live socket.
    ///
    /// # Errors
    /// It is no JSON object.
    pub(super) fn take(&mut self, text: &str) -> Result<()> {
        let message: Map<String, Value> =
            serde_json::from_str(text).context("the live socket speaks another language")?;
        for (key, data) in message {
            let name = key.strip_prefix("battery:");
            let name = name.and_then(|name| name.strip_suffix(":data"));
            match name {
                Some(name) if data.is_null() => drop(self.batteries.remove(name)),
                Some(name) => drop(self.batteries.insert(name.to_owned(), data)),
                None => {}
            }
        }
        Ok(())
    }

    /// Lays the batteries out in lines, with a head.
    pub(super) fn table(&self, sort: Sort, reverse: bool, filter: &str) -> Vec<Vec<String>> {
        let chosen = self.batteries.iter();
        let mut chosen: Vec<_> = chosen.filter(|(name, _)| name.contains(filter)).collect();
        let key = |data: &Value| {
            let value = sort_field(sort).and_then(|field| data.get(field)?.as_f64());
            value.unwrap_or(f64::INFINITY)
        };
        // Sorting keeps the order of names where values are equal.
        chosen.sort_by(|(_, a), (_, b)| key(a).total_cmp(&key(b)));
        if reverse {
            chosen.reverse();
        }
        let head = HEAD.map(str::to_owned).to_vec();
        let lines = chosen.into_iter().map(|(name, data)| line(name, data));
        [head].into_iter().chain(lines).collect()
    }
}

fn sort_field(sort: Sort) -> Option<&'static str> {
    match sort {
        Sort::Name => None,
        Sort::Age => Some("timestamp"),
        Sort::Soc => Some("state_of_charge"),
        Sort::Soh => Some("state_of_health"),
        Sort::Voltage => Some("voltage"),
        Sort::Current => Some("current"),
        Sort::Temperature => Some("temperature"),
    }
}

fn line(name: &str, data: &Value) -> Vec<String> {
    let number = |field: &str| data.get(field).and_then(Value::as_f64);
    let shown = |field: &str, unit: &str, digits: usize| {
        number(field).map_or_else(
            || "-".to_owned(),
            |value| format!("{value:.digits$} {unit}"),
        )
    };
    let percent = |field: &str| {
        let Some(mean) = number(field) else {
            return "-".to_owned();
        };
        let mut text = format!("{:.1} %", mean * 100.0);
        if let Some(deviation) = number(&format!("{field}__std")) {
            let _always_works = write!(text, " ± {:.1}", deviation * 100.0);
        }
        text
    };
    vec![
        name.to_owned(),
        number("seq").map_or_else(|| "-".to_owned(), |seq| format!("{seq:.0}")),
        number("timestamp").map_or_else(|| "-".to_owned(), age),
        shown("voltage", "V", 4),
        shown("current", "A", 3),
        shown("temperature", "°C", 1),
        percent("state_of_charge"),
        percent("state_of_health"),
        estimator(data),
    ]
}

/// Says what the main estimator is doing, and how many others there are.
fn estimator(data: &Value) -> String {
    let estimates = data.get("estimates").and_then(Value::as_object);
    let Some(estimates) = estimates.filter(|estimates| !estimates.is_empty()) else {
        return "-".to_owned();
    };
    let champion = data.get("champion").and_then(Value::as_str);
    let main = estimates
        .get(champion.unwrap_or("default"))
        .or_else(|| estimates.values().next());
    let text = |field: &str| main.and_then(|main| main.get(field)?.as_str());
    let mut shown = match text("error") {
        Some(_) => "in trouble".to_owned(),
        None => text("phase").unwrap_or("-").replace('_', " "),
    };
    if estimates.len() > 1 {
        let _always_works = write!(shown, " (+{})", estimates.len() - 1);
    }
    shown
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 are far below 2^53"
)]
fn age(timestamp_ms: f64) -> String {
    let seconds = ((clock::now_us() / 1000) as f64 - timestamp_ms).max(0.0) / 1000.0;
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Writes a line for each service that says it lives.
pub(super) fn services(services: &[Heartbeat]) -> String {
    let mut text = String::new();
    for one in services {
        let load = one.lag.iter().chain(&one.queues);
        let load: Vec<String> = load
            .filter(|(_, value)| **value != 0)
            .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
            .collect();
        let Heartbeat {
            service,
            instance,
            version,
            state,
            uptime_s,
            ..
        } = one;
        let load = load.join(", ");
        let _always_works = writeln!(
            text,
            "{service} {instance} {version}: {state}, up {uptime_s} s  {load}"
        );
    }
    text
}

/// Lines up the cells; the first column to the left, numbers to the right.
pub(super) fn text(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = table.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in table {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| {
            if column == 0 || column + 1 == columns {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let mut fleet = Fleet::default();
        let texts = [
            r#"{"battery:a:data": {"timestamp": 0, "seq": 3, "voltage": 3.5, "state_of_charge": 0.9,
                "state_of_charge__std": 0.02, "estimates": {"default": {"phase": "catching_up", "error": null}}},
               "battery:b:data": {"timestamp": 0, "state_of_charge": null}}"#,
            r#"{"battery:c:data": {"timestamp": 0, "state_of_charge": 0.1, "latency_ms": 3}}"#,
            r#"{"notice": {"type": "conflated", "states": 3}}"#,
        ];
        for text in texts {
            fleet.take(text).unwrap();
        }
        fleet
    }

    fn names(table: &[Vec<String>]) -> Vec<&str> {
        table[1..].iter().map(|line| line[0].as_str()).collect()
    }

    #[test]
    fn batteries_are_sorted_with_the_unknown_last_and_filtered_by_name() {
        let mut fleet = fleet();
        assert_eq!(names(&fleet.table(Sort::Soc, false, "")), ["c", "a", "b"]);
        assert_eq!(names(&fleet.table(Sort::Name, true, "")), ["c", "b", "a"]);
        assert_eq!(names(&fleet.table(Sort::Name, false, "b")), ["b"]);
        fleet.take(r#"{"battery:a:data": null}"#).unwrap();
        assert_eq!(names(&fleet.table(Sort::Name, false, "")), ["b", "c"]);
    }

    #[test]
    fn numbers_have_units_and_what_is_not_known_is_a_dash() {
        let table = fleet().table(Sort::Name, false, "");
        assert_eq!(table[1][1..2], ["3"]);
        assert_eq!(
            table[1][3..],
            ["3.5000 V", "-", "-", "90.0 % ± 2.0", "-", "catching up"]
        );
        assert_eq!(table[2][6], "-");
        let text = text(&table);
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Fleet::default().take("[]").is_err());
    }
}
