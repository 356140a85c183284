//! What may be granted: a role, for everything, a tenant, a tag of batteries, or one battery.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};

use crate::name::BatteryName;

/// What somebody may do; each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees rows, estimates and what is known of batteries.
    Reader,
    /// Sends rows, tables and metadata.
    Uploader,
    /// Registers estimators, scripts and alert rules; corrects what is stored.
    Engineer,
    /// Deletes, sets retention, gives tokens.
    Admin,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Uploader, Self::Engineer, Self::Admin];

    /// The name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Uploader => "uploader",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The most bytes of a [`Word`].
const MAX_WORD_BYTES: usize = 31;

/// The name of a tenant or a tag: `[A-Za-z0-9_]{1,31}`.
///
/// It has no hyphen, since `acme-…` is how the batteries of the tenant `acme` are called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Word(String);

impl Word {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text.is_empty() || text.len() > MAX_WORD_BYTES || !text.chars().all(allowed) {
            return Err(format!(
                "{text:?} is no name of a tenant or tag: it has 1 to {MAX_WORD_BYTES} of A-Z, a-z, \
                 0-9 and `_`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// For what a role is granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everything.
    All,
    /// The batteries of a tenant.
    Tenant(Word),
    /// The batteries with a tag.
    Tag(Word),
    /// One battery, also before it exists.
    Battery(BatteryName),
}

/// A role and for what; as text `reader`, `engineer:tenant=acme`, `reader:tag=lab` or
/// `uploader:battery=b7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// For what.
    pub scope: Scope,
}

impl Grant {
    /// Returns a role for everything.
    pub const fn of_all(role: Role) -> Self {
        Self {
            role,
            scope: Scope::All,
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, scope) = match text.split_once(':') {
            Some((role, scope)) => (role, Some(scope)),
            None => (text, None),
        };
        let known = Role::ALL.into_iter().find(|known| known.as_str() == role);
        let role = known.ok_or_else(|| {
            format!("{text:?} is no grant: roles are reader, uploader, engineer and admin")
        })?;
        let scope = match scope {
            None => Scope::All,
            Some(scope) => match scope.split_once('=') {
                Some(("tenant", name)) => Scope::Tenant(name.parse()?),
                Some(("tag", name)) => Scope::Tag(name.parse()?),
                Some(("battery", name)) => {
                    let name = name.parse::<BatteryName>();
                    Scope::Battery(name.map_err(|error| error.to_string())?)
                }
                _ => {
                    return Err(format!(
                        "{text:?} is no grant: behind the role stands nothing, or :tenant=<name>, \
                         :tag=<name> or :battery=<name>"
                    ));
                }
            },
        };
        Ok(Self { role, scope })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role;
        match &self.scope {
            Scope::All => write!(f, "{role}"),
            Scope::Tenant(name) => write!(f, "{role}:tenant={name}"),
            Scope::Tag(name) => write!(f, "{role}:tag={name}"),
            Scope::Battery(name) => write!(f, "{role}:battery={name}"),
        }
    }
}

impl Serialize for Grant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reads_as_it_is_written() {
        for text in [
            "reader",
            "admin",
            "engineer:tenant=acme",
            "reader:tag=lab_2",
            "uploader:battery=b-7",
        ] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_grant_is_refused_with_what_one_looks_like() {
        for text in [
            "",
            "root",
            "reader:",
            "reader:b7",
            "reader:tenant=a-b",
            "reader:tag=",
            "reader:battery=a.b",
            "Reader",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
        let error = "reader:b7".parse::<Grant>().unwrap_err();
        assert!(error.contains(":battery=<name>"), "{error}");
    }

    #[test]
    fn each_role_may_what_the_one_before_it_may() {
        assert!(Role::ALL.is_sorted());
    }
}
