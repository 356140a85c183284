//! What a battery of a file is called, and how an upload of it is recognised.

use std::path::Path;

pub use rovi_battdat::session;
use rovi_common::name::{self, BatteryName};

/// The origin of a name that was given on the command line.
pub const BY_FLAG: &str = "--name";

/// The name of a battery, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Any text.
    pub text: String,
    /// Where it came from, for messages.
    pub origin: &'static str,
}

impl Named {
    /// Returns the text in the characters of a name.
    ///
    /// # Panics
    /// Never: a slug is always a name.
    pub fn slug(&self) -> BatteryName {
        name::slug(&self.text)
            .parse()
            .expect("a slug is always a name, as its test shows")
    }

    /// Says where `name` came from, and what it stands for if the text itself is no name.
    pub fn told(&self, name: &BatteryName) -> String {
        let origin = self.origin;
        if name.as_str() == self.text {
            return origin.to_owned();
        }
        format!("{origin}, where it is `{}`", self.text)
    }
}

/// Chooses the name of a battery: `--name`, the prefix within the file, the metadata's name, the
/// file's stem, in this order.
pub fn choose(
    flag: Option<&str>,
    prefix: Option<&str>,
    metadata_json: Option<&str>,
    file: &Path,
) -> Named {
    let metadata: Option<serde_json::Value> =
        metadata_json.and_then(|json| serde_json::from_str(json).ok());
    let title = metadata
        .as_ref()
        .and_then(|metadata| metadata.get("name")?.as_str());
    let stem = file.file_stem().map(|stem| stem.to_string_lossy());
    let usable = |text: &&str| !text.trim().is_empty();
    let choices = [
        (flag, BY_FLAG),
        (prefix, "the prefix in the file"),
        (title, "the file's metadata"),
        (stem.as_deref(), "the file's name"),
    ];
    let chosen = choices
        .into_iter()
        .find_map(|(text, origin)| Some((text.filter(usable)?, origin)));
    let (text, origin) = chosen.unwrap_or(("battery", "nothing better"));
    Named {
        text: text.to_owned(),
        origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        flag: Option<&str>,
        prefix: Option<&str>,
        metadata: Option<&str>,
    ) -> (String, &'static str) {
        let named = choose(flag, prefix, metadata, Path::new("/data/batch 3.h5"));
        (named.slug().to_string(), named.origin)
    }

    #[test]
    fn the_name_is_the_flag_the_prefix_the_metadata_or_the_file() {
        let metadata = Some(r#"{"name": "Cell #3"}"#);
        assert_eq!(
            chosen(Some("x"), Some("p"), metadata),
            ("x".into(), "--name")
        );
        assert_eq!(
            chosen(None, Some("p"), metadata),
            ("p".into(), "the prefix in the file")
        );
        assert_eq!(
            chosen(None, None, metadata),
            ("Cell-3".into(), "the file's metadata")
        );
        assert_eq!(
            chosen(None, None, None),
            ("batch-3".into(), "the file's name")
        );
    }

    #[test]
    fn a_text_that_is_no_name_is_told_beside_the_name() {
        let file = Path::new("cell.h5");
        let named = choose(None, None, Some(r#"{"name": "Cell #3"}"#), file);
        let told = named.told(&"Cell-3-2".parse().unwrap());
        assert_eq!(told, "the file's metadata, where it is `Cell #3`");
        let named = choose(Some("b7"), None, None, file);
        assert_eq!(named.told(&named.slug()), "--name");
    }

    #[test]
    fn metadata_without_a_usable_name_is_passed_over() {
        for metadata in [
            r#"{"name": null}"#,
            r#"{"name": " "}"#,
            "{}",
            "no json",
            "[]",
        ] {
            assert_eq!(
                chosen(None, None, Some(metadata)).1,
                "the file's name",
                "{metadata}"
            );
        }
    }

    #[test]
    fn a_session_follows_battery_prefix_and_content() {
        let battery: BatteryName = "b7".parse().unwrap();
        let other: BatteryName = "b8".parse().unwrap();
        let known = session(&battery, Some("a"), &[1; 32]);
        assert_eq!(known, session(&battery, Some("a"), &[1; 32]));
        assert_ne!(known, session(&other, Some("a"), &[1; 32]));
        assert_ne!(known, session(&battery, None, &[1; 32]));
        assert_ne!(known, session(&battery, Some("a"), &[2; 32]));
        // Resuming depends on it: this may never change.
        assert_eq!(known.to_string(), "fa7da19b-77aa-5e80-8ed9-b37c9e57548c");
    }
}
