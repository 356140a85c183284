//! Where a service's news go: to the bus, or as pictures into a folder.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Where a service's news go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sink {
    /// To NATS.
    #[default]
    Nats,
    /// Nowhere; the newest picture of each battery is kept in the folder `out`.
    Png,
}

/// The flags by which a sink is chosen.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct SinkArgs {
    /// Where news go: `png` keeps the newest picture of each battery in the folder `--out` instead
    /// of publishing.
    #[arg(long, value_name = "SINK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<Sink>,
    /// Folder of the pictures, for `--sink png`.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

/// Tells what is wrong with the two settings together.
pub fn problem(sink: Sink, out: Option<&Path>) -> Option<&'static str> {
    match (sink, out) {
        (Sink::Png, None) => Some("out must name the folder of the pictures where sink is png"),
        (Sink::Nats, Some(_)) => Some("out is for pictures: it needs sink = \"png\""),
        (Sink::Png, Some(_)) | (Sink::Nats, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_of_pictures_and_its_folder_need_each_other() {
        let folder = Some(Path::new("/tmp"));
        assert_eq!(problem(Sink::Nats, None), None);
        assert_eq!(problem(Sink::Png, folder), None);
        assert!(problem(Sink::Png, None).is_some_and(|text| text.contains("out")));
        assert!(problem(Sink::Nats, folder).is_some_and(|text| text.contains("sink")));
    }
}
