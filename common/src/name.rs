//! Names of batteries and estimators: `[A-Za-z0-9_-]{1,63}`, never a word that routes use.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: PostgreSQL's limit for a table name.
pub const MAX_NAME_BYTES: usize = 63;

/// Words that stand where a name could stand in a path of the HTTP interface.
const RESERVED: [&str; 12] = [
    "backtest",
    "register",
    "upload",
    "stats",
    "status",
    "schema",
    "alerts",
    "run",
    "metadata",
    "rows",
    "batteries",
    "services",
];

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a name needs at least one character")]
    Empty,
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("the name `{0}` has {len} bytes, the limit is {MAX_NAME_BYTES}", len = .0.len())]
    TooLong(String),
    /// The name holds a character outside `[A-Za-z0-9_-]`.
    #[error(
        "the name `{name}` holds {found:?} at byte {at}; allowed are A-Z, a-z, 0-9, `_` and `-`"
    )]
    Character {
        /// The whole text.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// Its place in the text.
        at: usize,
    },
    /// The name is a word that routes use.
    #[error("the name `{0}` is reserved, it stands in a path of the HTTP interface")]
    Reserved(String),
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if let Some((at, found)) = name.char_indices().find(|&(_, c)| !allowed(c)) {
        return Err(NameError::Character {
            name: name.to_owned(),
            found,
            at,
        });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(name.to_owned()));
    }
    if RESERVED.contains(&name) {
        return Err(NameError::Reserved(name.to_owned()));
    }
    Ok(())
}

/// Turns any text into the characters of a name: `Cell #3 (A)` becomes `Cell-3-A`.
///
/// The result may still be taken by another battery; the hub appends `-2`, `-3` … then.
/// A text without one usable character becomes `battery`.
pub fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len().min(MAX_NAME_BYTES));
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_NAME_BYTES);
    let slug = slug.trim_matches('-').to_owned();
    match check(&slug) {
        Ok(()) => slug,
        Err(NameError::Reserved(_)) => format!("{slug}-battery"),
        Err(_) => "battery".to_owned(),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text).map(|()| Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                (*name.0).to_owned()
            }
        }
    };
}

name_type! {
    /// The name of a battery: its table, its subjects and its place in every path.
    BatteryName
}
name_type! {
    /// The name of an estimator, unique within its battery.
    EstimatorName
}

impl Default for EstimatorName {
    /// `default`, the estimator whose state `GET /online/status` shows.
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_character_is_wrong() {
        let error = "cell.7".parse::<BatteryName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the name `cell.7` holds '.' at byte 4; allowed are A-Z, a-z, 0-9, `_` and `-`"
        );
    }

    #[test]
    fn words_of_routes_are_no_names() {
        assert_eq!(
            "stats".parse::<BatteryName>(),
            Err(NameError::Reserved("stats".to_owned()))
        );
    }

    #[test]
    fn a_name_has_1_to_63_bytes() {
        assert!("a".repeat(63).parse::<BatteryName>().is_ok());
        assert!("a".repeat(64).parse::<BatteryName>().is_err());
        assert_eq!("".parse::<BatteryName>(), Err(NameError::Empty));
    }

    #[test]
    fn a_slug_is_always_a_name() {
        for text in [
            "Cell #3 (A)",
            "",
            "ü",
            "stats",
            "--",
            &"x y".repeat(50),
            "batch_B10A",
        ] {
            assert!(
                slug(text).parse::<BatteryName>().is_ok(),
                "{text:?} -> {:?}",
                slug(text)
            );
        }
        assert_eq!(slug("Cell #3 (A)"), "Cell-3-A");
    }
}
