//! What is asked of the fleet.

use rovi_common::{
    filter::{Clause, Filter},
    http::Problem,
    name::EstimatorName,
};
use serde::Deserialize;

const DEFAULT_LIMIT: usize = 100;
const MOST_BATTERIES: usize = 1000;
/// Fields that may be asked for at once.
const MOST_FIELDS: usize = 64;

/// Which batteries, in which order, and what of them.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// Clauses over estimates, rows and metadata, joined by `and`.
    #[serde(rename = "where")]
    #[param(example = "soh < 0.8 and cathode = NMC532")]
    condition: Option<String>,
    /// A text that name or metadata hold, whatever the case.
    q: Option<String>,
    /// The field to sort by, with `-` before it from the largest down; else by name.
    #[param(example = "-soh")]
    sort: Option<String>,
    /// Only these fields, besides `battery`.
    #[param(example = "soh,voltage")]
    fields: Option<String>,
    /// The estimator whose estimates are meant: the champion if not given.
    estimator: Option<String>,
    /// Most batteries: 100 if not given, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// So many batteries of the order are left out before.
    offset: Option<usize>,
}

/// The same, checked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) text: Option<String>,
    pub(super) sort: Option<(String, bool)>,
    pub(super) fields: Vec<String>,
    /// The champion where none is named.
    pub(super) estimator: Option<EstimatorName>,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

impl StatusQuery {
    pub(super) fn check(self) -> Result<Asked, Problem> {
        let filter: Result<Filter, _> = self.condition.unwrap_or_default().parse();
        let filter = filter.map_err(|error| Problem::bad_request(error).at("where"))?;
        let estimator = self.estimator.map(|name| name.parse()).transpose();
        let estimator = estimator.map_err(|error| Problem::bad_request(error).at("estimator"))?;
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST_BATTERIES).contains(&limit) {
            let detail = format!("limit={limit} is outside 1 to {MOST_BATTERIES}");
            return Err(Problem::bad_request(detail).at("limit"));
        }
        let fields: Vec<String> = self
            .fields
            .iter()
            .flat_map(|names| names.split(','))
            .map(str::to_owned)
            .collect();
        if fields.len() > MOST_FIELDS || fields.iter().any(|name| !is_path(name)) {
            let detail = format!("fields takes up to {MOST_FIELDS} names, separated by commas");
            return Err(Problem::bad_request(detail).at("fields"));
        }
        let sort = self.sort.map(|name| match name.strip_prefix('-') {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        });
        if sort.as_ref().is_some_and(|(name, _)| !is_path(name)) {
            return Err(Problem::bad_request("sort takes one name, as of a field").at("sort"));
        }
        Ok(Asked {
            filter,
            text: self.q.filter(|text| !text.is_empty()),
            sort,
            fields,
            estimator,
            limit,
            offset: self.offset.unwrap_or_default(),
        })
    }
}

/// Whether a name can stand as the path of a clause.
fn is_path(name: &str) -> bool {
    let filter: Result<Filter, _> = format!("{name} != x").parse();
    filter.is_ok_and(|filter| filter.clauses.len() == 1)
}

/// Returns how a clause's path is written.
pub(super) fn path_of(clause: &Clause) -> String {
    clause.path.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let query = StatusQuery::default;
        let wrong = |query: StatusQuery| query.check().unwrap_err().field.unwrap_or_default();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            wrong(StatusQuery {
                condition: text("soh <"),
                ..query()
            }),
            "where"
        );
        assert_eq!(
            wrong(StatusQuery {
                sort: text("a b"),
                ..query()
            }),
            "sort"
        );
        assert_eq!(
            wrong(StatusQuery {
                fields: text("a,,b"),
                ..query()
            }),
            "fields"
        );
        assert_eq!(
            wrong(StatusQuery {
                limit: Some(1001),
                ..query()
            }),
            "limit"
        );
        assert_eq!(
            wrong(StatusQuery {
                estimator: text("a b"),
                ..query()
            }),
            "estimator"
        );
        let asked = StatusQuery {
            sort: text("-soh"),
            ..query()
        }
        .check()
        .unwrap();
        assert_eq!(asked.sort, Some(("soh".to_owned(), true)));
    }
}
