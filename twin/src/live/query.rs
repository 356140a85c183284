//! What a watcher asks for: `?battery=a,b&fields=voltage,current&since=a:1:42`.

use std::{collections::BTreeMap, sync::Arc};

use rovi_common::{http::Problem, name::BatteryName};
use url::form_urlencoded;

use super::shape::Fields;
use crate::filter::Position;

/// The most names of a list.
const MAX_NAMES: usize = 10_000;

/// A query of `/ws` or `/events`.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// The batteries; all where none is named.
    pub(crate) batteries: Option<Vec<BatteryName>>,
    pub(crate) fields: Arc<Fields>,
    /// The last row that the watcher has of some batteries.
    pub(crate) since: BTreeMap<BatteryName, Position>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 that names the parameter at fault.
    pub(crate) fn read(query: &str) -> Result<Self, Problem> {
        let (mut batteries, mut fields) = (Vec::new(), Vec::new());
        let (mut since, mut is_one_of_some) = (BTreeMap::new(), false);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let parts = value.split(',').filter(|part| !part.is_empty());
            match &*name {
                "battery" => {
                    is_one_of_some = true;
                    for part in parts {
                        batteries.push(battery(part, "battery")?);
                    }
                }
                "fields" => fields.extend(parts.map(str::to_owned)),
                "since" => {
                    for part in parts {
                        let (battery, position) = read_since(part)?;
                        since.insert(battery, position);
                    }
                }
                unknown => {
                    let detail = format!(
                        "`{unknown}` is not known here; known are battery, fields and since"
                    );
                    return Err(Problem::bad_request(detail).at(unknown));
                }
            }
        }
        for (field, count) in [("battery", batteries.len()), ("fields", fields.len())] {
            if count > MAX_NAMES {
                let detail = format!("{count} names are too many, the limit is {MAX_NAMES}");
                return Err(Problem::bad_request(detail).at(field));
            }
        }
        batteries.sort_unstable();
        batteries.dedup();
        let stranger = since.keys().find(|name| !batteries.contains(name));
        if let Some(stranger) = stranger
            && is_one_of_some
        {
            let detail = format!("`since` names `{stranger}`, which `battery` does not");
            return Err(Problem::bad_request(detail).at("since"));
        }
        Ok(Self {
            batteries: is_one_of_some.then_some(batteries),
            fields: Arc::new(Fields::new(fields)),
            since,
        })
    }
}

/// Reads `<battery>:<epoch>:<seq>`.
///
/// # Errors
/// 400 that says what it must be.
pub(super) fn read_since(text: &str) -> Result<(BatteryName, Position), Problem> {
    let wrong = || {
        let detail = format!("`since` is {text:?}, it must be <battery>:<epoch>:<seq>");
        Problem::bad_request(detail).at("since")
    };
    let mut parts = text.split(':');
    let (Some(name), Some(epoch), Some(seq), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let position = Position {
        epoch: epoch.parse().map_err(|_none| wrong())?,
        seq: seq.parse().map_err(|_none| wrong())?,
    };
    Ok((battery(name, "since")?, position))
}

fn battery(text: &str, field: &str) -> Result<BatteryName, Problem> {
    text.parse()
        .map_err(|error| Problem::bad_request(error).at(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_batteries_fields_and_places() {
        let query = Query::read("battery=b,a&battery=a&fields=voltage&since=a:1:42").unwrap();
        let names: Vec<String> = query
            .batteries
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(
            query.since[&"a".parse().unwrap()],
            Position { epoch: 1, seq: 42 }
        );
        assert!(Query::read("").unwrap().batteries.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        for (query, field) in [
            ("battery=a%20b", "battery"),
            ("since=a:1", "since"),
            ("since=a:1:x", "since"),
            ("battery=a&since=b:1:2", "since"),
            ("filter=a", "filter"),
        ] {
            let problem = Query::read(query).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{query}");
        }
    }
}
