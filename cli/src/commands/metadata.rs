//! `rovicli metadata FILE`: registers the metadata of a battdat file.

use anyhow::{Context, Result};
use rovi_battdat::BattdatFile;
use serde_json::{Map, Value};

use super::BatteryFile;
use crate::{hub::Hub, naming};

/// Arguments of `rovicli metadata`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: BatteryFile,
}

#[expect(clippy::print_stdout, reason = "the name is the output")]
pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let source = &args.source;
    let file = BattdatFile::open(&source.file)?;
    let battery = super::stream::choose_battery(&file, source.prefix.as_deref())?;
    let prefix = battery.prefix.as_deref();
    let stored = battery.metadata_json.as_deref().or(file.metadata_json());
    let named = naming::choose(source.name.as_deref(), prefix, stored, &source.file);
    let name = hub
        .register_metadata(with_name(stored, &named.text)?)
        .await?;
    println!("{name}");
    Ok(())
}

/// Puts the name into the metadata; without metadata there is only the name.
pub(super) fn with_name(metadata_json: Option<&str>, name: &str) -> Result<String> {
    let mut metadata: Map<String, Value> = match metadata_json {
        Some(json) => serde_json::from_str(json).context(
            "the file's metadata is not a JSON object; write it anew with battery-data-toolkit",
        )?,
        None => Map::new(),
    };
    metadata.insert("name".to_owned(), Value::from(name));
    Ok(Value::Object(metadata).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_replaces_that_of_the_metadata_and_the_rest_stays() {
        let metadata = with_name(Some(r#"{"name": "a", "site_tag": "x"}"#), "b").unwrap();
        assert_eq!(metadata, r#"{"name":"b","site_tag":"x"}"#);
        assert_eq!(with_name(None, "b").unwrap(), r#"{"name":"b"}"#);
        assert!(with_name(Some("nonsense"), "b").is_err());
    }
}
