//! `PATCH /db/{battery}/columns`: what columns mean.

use std::collections::BTreeMap;

use actix_web::web;
use diesel::{Connection, PgConnection};
use rovi_common::{http::Problem, name::BatteryName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{battery_name, no_such_battery};
use crate::{
    hub::Hub,
    store::{
        StoreError, batteries,
        columns::{self, Meaning},
        tables,
    },
    upload::column_name,
};

/// Most bytes of a unit, and of a description.
const UNIT_BYTES: usize = 63;
const DESCRIPTION_BYTES: usize = 4096;
/// Most bytes of the body: 800 columns with long descriptions.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// How to take descriptions.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnsQuery {
    /// Takes it as what a file says, not a person: what was said before stays, and battery and
    /// columns may still be to come, while else unknown ones are refused.
    #[serde(default)]
    offered: bool,
}

/// What a column means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ColumnMeaning {
    unit: Option<String>,
    description: Option<String>,
}

/// Changes units and descriptions of columns: a JSON merge patch by column of `unit` and
/// `description`, where null goes back to what battdat says. Answers those named, as they are now.
#[utoipa::path(
    patch,
    path = "/db/{battery}/columns",
    tag = "batteries",
    params(("battery" = String, Path, description = "Name of the battery"), ColumnsQuery),
    request_body(content = Object, example = json!({"voltage": {"unit": "V"}})),
    responses(
        (status = 200, body = BTreeMap<String, ColumnMeaning>),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn describe_columns(
    battery: web::Path<String>,
    query: web::Query<ColumnsQuery>,
    payload: web::Payload,
    hub: web::Data<Hub>,
) -> Result<web::Json<BTreeMap<String, ColumnMeaning>>, Problem> {
    let battery = battery_name(&battery)?;
    let body = payload.to_bytes_limited(MAX_BYTES).await;
    let too_large = |_| Problem::too_large(format!("the body is larger than {MAX_BYTES} bytes"));
    let body = body.map_err(too_large)?;
    let body =
        body.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
    let patch = Patch::parse(&body, hub.settings.columns)?;
    let offered = query.offered.then_some(hub.settings.columns);
    let describe = move |connection: &mut PgConnection| {
        let described =
            connection.transaction(|connection| describe(connection, &battery, &patch, offered));
        match described {
            Ok(described) => Ok(Ok(described)),
            Err(Refusal::Problem(problem)) => Ok(Err(problem)),
            Err(Refusal::Store(error)) => Err(error),
        }
    };
    Ok(web::Json(hub.pool.run(describe).await??))
}

/// Why nothing was changed.
#[derive(Debug)]
enum Refusal {
    Problem(Problem),
    Store(StoreError),
}

impl From<diesel::result::Error> for Refusal {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Keeps what is said; `offered` is the most columns of which anything may be known, where it is
/// only offered.
fn describe(
    connection: &mut PgConnection,
    battery: &BatteryName,
    patch: &Patch,
    offered: Option<usize>,
) -> Result<BTreeMap<String, ColumnMeaning>, Refusal> {
    if offered.is_some() {
        batteries::find_or_add(connection, battery.as_str())?;
    }
    let line = batteries::find_and_lock(connection, battery.as_str())?;
    let line = line.ok_or_else(|| no_such_battery(battery))?;
    let table = tables::load(connection, &line)?;
    let exists = |name: &str| table.columns().iter().any(|(known, _)| known == name);
    let mut given = columns::given(connection, Some(line.id))?;
    let mut given = given.remove(&line.name).unwrap_or_default();
    let mut said = BTreeMap::new();
    for (name, change) in &patch.0 {
        let name = if exists(name) {
            name.clone()
        } else {
            column_name(name.clone()).map_err(|why| Problem::bad_request(why).at(name))?
        };
        if offered.is_none() && !exists(&name) {
            let detail = format!(
                "{battery} has no column `{name}`; ?offered=true keeps what is said until it comes"
            );
            return Err(Problem::not_found(detail).at(name).into());
        }
        let meaning = given.remove(&name).unwrap_or_default();
        let meaning = match offered {
            Some(_) => change.offered_to(meaning),
            None => change.applied_to(meaning),
        };
        said.insert(name, meaning);
    }
    if offered.is_some_and(|most| given.len() + said.len() > most) {
        let detail = "more columns would be described than a table may have; see the limits";
        return Err(Problem::bad_request(detail).into());
    }
    columns::keep(connection, line.id, &said)?;
    let names = said.keys().map(String::as_str);
    columns::comment(connection, &line, names.clone().filter(|name| exists(name)))?;
    let meanings = columns::meanings(Some(&said), names).into_iter();
    Ok(meanings
        .map(|(name, Meaning { unit, description })| (name, ColumnMeaning { unit, description }))
        .collect())
}

/// What is to change, by column.
#[derive(Debug)]
struct Patch(BTreeMap<String, Change>);

/// What is to become of a text.
#[derive(Debug, Default, PartialEq, Eq)]
enum Edit {
    #[default]
    Leave,
    Forget,
    Set(String),
}

impl Edit {
    fn parse(value: Value, most: usize) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::Forget),
            Value::String(text) if text.is_empty() => Ok(Self::Forget),
            Value::String(text) if text.len() > most || text.contains('\0') => {
                Err(format!("must have at most {most} bytes and no NUL"))
            }
            Value::String(text) => Ok(Self::Set(text)),
            other => Err(format!("must be a text, it is {other}")),
        }
    }

    fn applied_to(&self, text: Option<String>) -> Option<String> {
        match self {
            Self::Leave => text,
            Self::Forget => None,
            Self::Set(text) => Some(text.clone()),
        }
    }

    fn offered_to(&self, text: Option<String>) -> Option<String> {
        text.or_else(|| self.applied_to(None))
    }
}

/// What is to change of one column.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    unit: Edit,
    description: Edit,
}

impl Change {
    fn applied_to(&self, meaning: Meaning) -> Meaning {
        Meaning {
            unit: self.unit.applied_to(meaning.unit),
            description: self.description.applied_to(meaning.description),
        }
    }

    fn offered_to(&self, meaning: Meaning) -> Meaning {
        Meaning {
            unit: self.unit.offered_to(meaning.unit),
            description: self.description.offered_to(meaning.description),
        }
    }

    fn parse(name: &str, change: Value) -> Result<Self, Problem> {
        let wrong = |detail: String| Problem::bad_request(detail).at(name);
        let words = match change {
            Value::Object(words) => words,
            Value::Null => {
                return Ok(Self {
                    unit: Edit::Forget,
                    description: Edit::Forget,
                });
            }
            other => {
                let detail =
                    format!("`{name}` must be a map of unit and description, it is {other}");
                return Err(wrong(detail));
            }
        };
        let mut parsed = Self::default();
        for (word, value) in words {
            let (slot, most) = match word.as_str() {
                "unit" => (&mut parsed.unit, UNIT_BYTES),
                "description" => (&mut parsed.description, DESCRIPTION_BYTES),
                _ => {
                    let detail =
                        format!("`{name}.{word}` is not known; there are unit and description");
                    return Err(wrong(detail));
                }
            };
            let what = format!("`{name}.{word}`");
            *slot = Edit::parse(value, most).map_err(|why| wrong(format!("{what} {why}")))?;
        }
        Ok(parsed)
    }
}

impl Patch {
    fn parse(body: &[u8], most: usize) -> Result<Self, Problem> {
        let patch: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            Problem::bad_request(format!("the body is no JSON map of columns: {error}"))
        })?;
        if patch.len() > most {
            let detail = format!("{} columns, the limit is {most}", patch.len());
            return Err(Problem::bad_request(detail));
        }
        let changes = patch.into_iter().map(|(name, change)| {
            let change = Change::parse(&name, change)?;
            Ok((name, change))
        });
        changes.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_sets_forgets_and_leaves() {
        let patch = Patch::parse(
            br#"{"a": {"unit": "V", "description": null}, "b": null}"#,
            2,
        );
        let patch = patch.unwrap();
        let before = || Meaning {
            unit: Some("mV".into()),
            description: Some("text".into()),
        };
        let after = patch.0["a"].applied_to(before());
        assert_eq!(
            (after.unit.as_deref(), after.description),
            (Some("V"), None)
        );
        assert_eq!(patch.0["b"].applied_to(before()), Meaning::default());
        assert_eq!(Change::default().applied_to(before()), before());
        assert_eq!(patch.0["a"].offered_to(before()), before());
        let offered = patch.0["a"].offered_to(Meaning::default());
        assert_eq!(
            (offered.unit.as_deref(), offered.description),
            (Some("V"), None)
        );
    }

    #[test]
    fn what_cannot_be_a_description_is_named() {
        for (body, part) in [
            ("[]", "no JSON map"),
            (r#"{"a": 5}"#, "`a` must be a map"),
            (r#"{"a": {"units": "V"}}"#, "`a.units` is not known"),
            (r#"{"a": {"unit": 5}}"#, "`a.unit` must be a text"),
            (r#"{"a": {"unit": "\u0000"}}"#, "no NUL"),
            (r#"{"a": {}, "b": {}, "c": {}}"#, "3 columns"),
        ] {
            let problem = Patch::parse(body.as_bytes(), 2).unwrap_err();
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
    }
}
