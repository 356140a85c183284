//! `rovicli estimator promote|pause|resume|reset|remove BATTERY ESTIMATOR`: registered estimators.

use anyhow::{Result, bail};
use rovi_common::name::{BatteryName, EstimatorName};
use serde_json::Value;

use crate::hub::Hub;

/// Arguments of `rovicli estimator promote`.
#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// The battery.
    battery: BatteryName,
    /// The estimator; of a backtest's candidate the name under which it is registered.
    estimator: Option<EstimatorName>,
    /// Promotes the candidate of this backtest.
    #[arg(long, value_name = "ID")]
    backtest: Option<String>,
}

/// Arguments of the other commands.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The battery.
    battery: BatteryName,
    /// The estimator.
    estimator: EstimatorName,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) async fn promote(hub: &Hub, args: &PromoteArgs) -> Result<()> {
    let battery = &args.battery;
    let stand = match (&args.backtest, &args.estimator) {
        (Some(id), name) => hub.promote_candidate(battery, id, name.as_ref()).await?,
        (None, Some(estimator)) => hub.control_estimator(battery, estimator, "promote").await?,
        (None, None) => bail!("say which estimator of {battery}, or --backtest ID"),
    };
    println!("{}", words(&stand));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) async fn control(hub: &Hub, args: &Args, action: &str) -> Result<()> {
    let (battery, estimator) = (&args.battery, &args.estimator);
    let stand = hub.control_estimator(battery, estimator, action).await?;
    println!("{}", words(&stand));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) async fn remove(hub: &Hub, args: &Args) -> Result<()> {
    let removed = hub.remove_estimator(&args.battery, &args.estimator).await?;
    println!("{removed}");
    Ok(())
}

/// Says how an estimator stands.
fn words(stand: &Value) -> String {
    let text = |value: &Value, field: &str| match value.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (battery, estimator) = (text(stand, "battery"), text(stand, "estimator"));
    let state = match stand.get("paused").and_then(Value::as_bool) {
        Some(true) => "paused",
        _ => "running",
    };
    let champion = stand
        .get("champion")
        .filter(|champion| champion.is_object());
    let champion = champion.map_or_else(
        || format!("{battery} has no champion"),
        |champion| {
            let (name, from) = (text(champion, "estimator"), text(champion, "from_seq"));
            format!("champion of {battery} is {name}, from row {from} on")
        },
    );
    let revision = text(stand, "revision");
    format!("{estimator} of {battery}, revision {revision}: {state}; {champion}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_the_champion_and_its_first_row() {
        let stand = serde_json::json!({
            "battery": "b7", "estimator": "second", "revision": 4, "paused": false,
            "champion": {"era": 9, "estimator": "second", "epoch": 1, "from_seq": 101}
        });
        let expected =
            "second of b7, revision 4: running; champion of b7 is second, from row 101 on";
        assert_eq!(words(&stand), expected);
    }
}
