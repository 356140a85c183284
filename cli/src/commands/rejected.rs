//! `rovicli rejected BATTERY`: rows that no table took, listed or sent again.

use std::io::{self, Write};

use anyhow::Result;
use rovi_common::name::BatteryName;

use crate::hub::{Hub, Rejected, Replayed};

/// The longest row that is shown, in characters.
const ROW_CHARS: usize = 200;

/// Arguments of `rovicli rejected`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// Sends the rows again: those that fit by now are stored, the others stay.
    #[arg(long)]
    replay: bool,
    /// Which rows to send again, such as 3,7..9; all if not given.
    #[arg(long, value_name = "IDS", requires = "replay")]
    id: Option<String>,
}

pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let mut out = io::stdout();
    if args.replay {
        let replayed = hub.replay_rejected(&args.battery, args.id.as_deref());
        out.write_all(told(replayed.await?).as_bytes())?;
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = hub.rejected(&args.battery, after).await?;
        if after.is_none() {
            out.write_all(summary(&page).as_bytes())?;
        }
        out.write_all(rows(&page).as_bytes())?;
        after = page.rejected.last().map(|row| row.id);
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

fn told(replayed: Replayed) -> String {
    let Replayed {
        replayed,
        stored,
        rejected,
    } = replayed;
    format!("{replayed} rows sent again: {stored} stored, {rejected} refused once more\n")
}

/// How many rows, and the commonest reasons.
fn summary(page: &Rejected) -> String {
    if page.count == 0 {
        return "no rows were refused\n".to_owned();
    }
    let reasons = page.reasons.iter();
    let lines = reasons.map(|reason| format!("{:>9} × {}\n", reason.rows, reason.reason));
    format!(
        "{} rows were refused:\n{}\n",
        page.count,
        lines.collect::<String>()
    )
}

/// A line a row.
fn rows(page: &Rejected) -> String {
    let rows = page.rejected.iter().map(|row| {
        let place = row
            .position
            .map_or_else(|| "?".to_owned(), |at| at.to_string());
        let sent: String = row.row.to_string().chars().take(ROW_CHARS).collect();
        format!("{:>9}  row {place}: {}: {sent}\n", row.id, row.reason)
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_how_many_why_and_which() {
        let page = r#"{"count": 2, "reasons": [{"reason": "no", "rows": 2}], "more": false,
                       "rejected": [{"id": 7, "position": 4, "reason": "no", "row": {"a": "x"}}]}"#;
        let page: Rejected = serde_json::from_str(page).unwrap();
        assert_eq!(summary(&page), "2 rows were refused:\n        2 × no\n\n");
        assert_eq!(rows(&page), "        7  row 4: no: {\"a\":\"x\"}\n");
    }
}
