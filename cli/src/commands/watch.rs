//! `rovicli watch BATTERY`: a line whenever the estimate changes.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::Result;
use rovi_common::name::BatteryName;

use crate::hub::{EstimatorStatus, Hub, Parameter};

/// How often the twin is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `rovicli watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
}

pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    tokio::select! {
        ended = follow(hub, args.battery.as_str()) => ended,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

/// Prints changes for ever. The first answer must come; later a hub that is away is waited for.
#[expect(clippy::print_stderr, reason = "what is waited for is a remark")]
async fn follow(hub: &Hub, battery: &str) -> Result<()> {
    let mut shown: Option<EstimatorStatus> = None;
    let mut asked_before = false;
    let mut remark = String::new();
    loop {
        let news = match hub.estimators(battery).await {
            Err(error) if !asked_before => return Err(error),
            Err(error) => Err(format!("{error:#}")),
            Ok(estimators) => estimators
                .unwrap_or_default()
                .main()
                .map(|(name, status)| (name.to_owned(), status.clone()))
                .ok_or_else(|| format!("{battery} has no estimator; `rovicli register` adds one")),
        };
        asked_before = true;
        match news {
            Ok(news) => {
                let (name, status) = news;
                if status.is_ready && shown.as_ref().is_none_or(|shown| differ(shown, &status)) {
                    writeln!(io::stdout(), "{}", line(&name, &status))?;
                }
                shown = Some(status);
                remark.clear();
            }
            // The same remark once, not twice a second.
            Err(text) if text != remark => {
                eprintln!("{text}; waiting");
                remark = text;
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether the estimate is another one; how far it is behind does not count.
fn differ(shown: &EstimatorStatus, news: &EstimatorStatus) -> bool {
    (shown.seq, shown.latest_time, &shown.mean) != (news.seq, news.latest_time, &news.mean)
}

fn line(name: &str, status: &EstimatorStatus) -> String {
    let mut parts = vec![format!(
        "{:>12.1} s",
        status.latest_time.unwrap_or_default()
    )];
    parts.extend(status.seq.map(|seq| format!("row {seq:>9}")));
    for parameter in [Parameter::SOC, Parameter::CAPACITY, Parameter::R0] {
        let shown = parameter.show(status);
        parts.extend(shown.map(|shown| format!("{} {shown}", parameter.label)));
    }
    if name != "default" {
        parts.push(format!("({name})"));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_when_and_what() {
        let status: EstimatorStatus = serde_json::from_str(
            r#"{"is_ready": true, "state_names": ["soc"], "latest_time": 60.0, "seq": 61,
                "mean": [0.25], "covariance": [[0.0001]]}"#,
        )
        .unwrap();
        assert_eq!(
            line("default", &status),
            "        60.0 s  row        61  charge 25.0 ± 1.0 %"
        );
    }
}
