//! The fleet at a glance: batteries found, sorted and paged by their newest row, estimates and
//! metadata, from any twin.
//!
//! Rows and estimates come from the board, which has the states of all batteries whichever twin
//! said them; a name that is none of theirs is asked from the hub, which has the metadata.

mod field;
mod metadata;
mod query;

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use rovi_common::{
    auth::{Access, Role},
    filter::{Filter, Scalar},
    http::Problem,
};
use serde::Serialize;
use serde_json::{Map, Value};

pub use self::{metadata::MetadataAnswers, query::StatusQuery};

use self::{
    field::{COMMON, Seen, long, scalar},
    metadata::Found,
    query::{Asked, path_of},
};
use crate::{fleet::Fleet, live::Version};

/// A page of batteries.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    batteries: Vec<Map<String, Value>>,
    /// Batteries that meet the condition.
    total: usize,
    /// The `offset` of the next page; null at the end.
    next: Option<usize>,
}

/// What is asked, taken apart: what this twin knows, and what the hub does.
struct Plan {
    asked: Asked,
    here: Filter,
    /// Conditions on metadata, and paths whose values are needed.
    there: Filter,
}

/// Finds batteries.
pub(crate) async fn page(
    fleet: &Fleet,
    query: StatusQuery,
    access: &Access,
) -> Result<Page, Problem> {
    let asked = query.check()?;
    let shared = fleet.shared();
    let mut versions = shared.board.all();
    versions.retain(|version| access.may(Role::Reader, &version.state.battery));
    let plan = Plan::of(asked, &versions)?;
    let text = plan.asked.text.as_deref().unwrap_or_default();
    let found = if plan.there.clauses.is_empty() && text.is_empty() {
        None
    } else {
        let answers = &shared.metadata_answers;
        Some(answers.ask(&shared.hub, &plan.there, text).await?)
    };
    Ok(plan.page(&versions, found.as_deref()))
}

impl Plan {
    fn of(asked: Asked, versions: &[Arc<Version>]) -> Result<Self, Problem> {
        let mut known: BTreeSet<&str> = COMMON.into();
        for version in versions {
            Seen::new(&version.state, asked.estimator.as_ref()).add_names(&mut known);
        }
        let is_here = |name: &str| {
            let name = name.strip_suffix("__std").unwrap_or(name);
            known.contains(name) || known.contains(long(name)) || long(name) != name
        };
        let clauses = asked.filter.clauses.iter().cloned();
        let (here, mut there): (Vec<_>, Vec<_>) =
            clauses.partition(|clause| is_here(&path_of(clause)));
        let sorted = asked.sort.iter().map(|(name, _)| name);
        for name in sorted.chain(&asked.fields).filter(|name| !is_here(name)) {
            // Every battery meets it, so that its value is told.
            let any: Result<Filter, _> = format!("{name} != \"\u{1}\"").parse();
            let any = any.map_err(|error| Problem::bad_request(error).at(name))?;
            there.extend(any.clauses);
        }
        Ok(Self {
            here: Filter { clauses: here },
            there: Filter { clauses: there },
            asked,
        })
    }

    fn page(&self, versions: &[Arc<Version>], found: Option<&Found>) -> Page {
        let seen = versions.iter().filter_map(|version| {
            let seen = Seen::new(&version.state, self.asked.estimator.as_ref());
            let metadata = match found {
                Some(found) => Some(found.get(seen.state.battery.as_str())?),
                None => None,
            };
            let is_meant = self.here.matches(|clause| seen.scalar(&path_of(clause)));
            is_meant.then_some((seen, metadata))
        });
        let mut chosen: Vec<_> = seen.collect();
        if let Some((name, is_descending)) = &self.asked.sort {
            let mut keyed: Vec<_> = chosen
                .into_iter()
                .map(|one| (value(one, name).as_ref().and_then(scalar), one))
                .collect();
            // Stable: equal ones stay in the order of names.
            keyed.sort_by(|a, b| order(a.0.as_ref(), b.0.as_ref(), *is_descending));
            chosen = keyed.into_iter().map(|(_, one)| one).collect();
        }
        let total = chosen.len();
        let (offset, limit) = (self.asked.offset, self.asked.limit);
        let end = offset.saturating_add(limit);
        let shown = chosen.into_iter().skip(offset).take(limit);
        Page {
            batteries: shown.map(|one| self.show(one)).collect(),
            total,
            next: (end < total).then_some(end),
        }
    }

    fn show(&self, one: (Seen<'_>, Option<&Map<String, Value>>)) -> Map<String, Value> {
        if self.asked.fields.is_empty() {
            return one.0.all();
        }
        let names = std::iter::once("battery").chain(self.asked.fields.iter().map(String::as_str));
        names
            .map(|name| (name.to_owned(), value(one, name).unwrap_or_default()))
            .collect()
    }
}

fn value((seen, metadata): (Seen<'_>, Option<&Map<String, Value>>), name: &str) -> Option<Value> {
    let here = seen.get(name);
    here.or_else(|| metadata.and_then(|found| found.get(name)).cloned())
}

/// What is missing comes last, in either direction.
fn order(a: Option<&Scalar>, b: Option<&Scalar>, is_descending: bool) -> Ordering {
    let ordering = match (a, b) {
        (None, None) => return Ordering::Equal,
        (None, Some(_)) => return Ordering::Greater,
        (Some(_), None) => return Ordering::Less,
        (Some(Scalar::Number(a)), Some(Scalar::Number(b))) => a.total_cmp(b),
        (Some(Scalar::Text(a)), Some(Scalar::Text(b))) => a.cmp(b),
        (Some(Scalar::Number(_)), Some(Scalar::Text(_))) => Ordering::Less,
        (Some(Scalar::Text(_)), Some(Scalar::Number(_))) => Ordering::Greater,
    };
    if is_descending {
        ordering.reverse()
    } else {
        ordering
    }
}
