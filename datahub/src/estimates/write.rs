//! How a batch becomes transactions: one for all batteries where nothing is in the way, else one
//! for each, so that trouble with one table is that table's alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use diesel::{Connection, PgConnection};
use rovi_common::{error::ErrorChain, name::BatteryName};

use crate::store::{
    StoreError,
    estimates::{self, Estimates, EstimatesError, Form},
    lineage,
};

/// The most tables of which the columns are remembered.
const MAX_REMEMBERED: usize = 20_000;
/// Tables of one transaction; each takes locks, of which PostgreSQL has 64 a connection.
const GROUP_TABLES: usize = 100;
/// Tables made in one transaction, with four locks each.
const NEW_TABLES: usize = 50;

/// What became of a battery's estimates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed; so many lines were made or replaced.
    Stored(u64),
    /// The table is locked: later.
    Busy(String),
    /// There is no such battery: never.
    NoBattery,
    /// PostgreSQL refuses.
    Refused(String),
}

/// The columns of the tables, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Tables {
    forms: Mutex<HashMap<BatteryName, Form>>,
}

impl Tables {
    /// Returns the columns of a battery's table if all that are needed are known to be there.
    fn known(&self, battery: &BatteryName, needed: &BTreeSet<&str>) -> Option<Form> {
        let forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let form = forms.get(battery)?;
        let has_all = needed.iter().all(|name| form.contains(*name));
        has_all.then(|| form.clone())
    }

    fn remember(&self, battery: &BatteryName, form: Form) {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        if forms.len() >= MAX_REMEMBERED {
            forms.clear();
        }
        forms.insert(battery.clone(), form);
    }

    fn forget(&self, battery: &BatteryName) {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.remove(battery);
    }
}

/// Writes the estimates of many batteries and tells for each what became of them.
///
/// # Errors
/// PostgreSQL is away: what was committed before is harmless to write again.
pub(super) fn write_all(
    conn: &mut PgConnection,
    tables: &Tables,
    work: &BTreeMap<BatteryName, Vec<Estimates>>,
) -> Result<Vec<(BatteryName, Outcome)>, StoreError> {
    let mut outcomes = Vec::with_capacity(work.len());
    make_tables(conn, tables, work)?;
    let mut known = Vec::new();
    for (battery, estimates) in work {
        match form_of(conn, tables, battery, estimates) {
            Ok(form) => known.push((battery, form, estimates)),
            Err(error) => outcomes.push((battery.clone(), outcome(error)?)),
        }
    }
    // In the order of names, so that hubs do not wait for each other in a circle.
    for group in known.chunks(GROUP_TABLES) {
        match write_together(conn, group) {
            Ok(stored) => outcomes.extend(stored),
            Err(StoreError::Query(_)) => {
                for (battery, _, estimates) in group {
                    let outcome = write_alone(conn, tables, battery, estimates)?;
                    outcomes.push(((*battery).clone(), outcome));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// Makes the tables of batteries that tell their first estimates, many in one transaction; where
/// that fails, each is looked at alone later.
fn make_tables(
    conn: &mut PgConnection,
    tables: &Tables,
    work: &BTreeMap<BatteryName, Vec<Estimates>>,
) -> Result<(), StoreError> {
    let unknown = work.iter().filter_map(|(battery, estimates)| {
        let needed = needed(estimates);
        let is_known = tables.known(battery, &needed).is_some();
        (!is_known).then_some((battery, needed))
    });
    let unknown: Vec<_> = unknown.collect();
    for group in unknown.chunks(NEW_TABLES) {
        match estimates::make_new(conn, group) {
            Ok(made) => made
                .into_iter()
                .for_each(|(battery, form)| tables.remember(battery, form)),
            Err(StoreError::Query(error)) => {
                tracing::debug!("tables of estimates are made one by one: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Names the columns that estimates fill.
fn needed(estimates: &[Estimates]) -> BTreeSet<&str> {
    let columns = estimates.iter().flat_map(|one| &one.columns);
    columns.map(|(name, _)| name.as_str()).collect()
}

/// Returns the columns of a battery's table, after making those that are missing.
fn form_of(
    conn: &mut PgConnection,
    tables: &Tables,
    battery: &BatteryName,
    estimates: &[Estimates],
) -> Result<Form, EstimatesError> {
    let needed = needed(estimates);
    if let Some(form) = tables.known(battery, &needed) {
        return Ok(form);
    }
    let form = estimates::prepare(conn, battery, &needed)?;
    tables.remember(battery, form.clone());
    Ok(form)
}

type Prepared<'a> = (&'a BatteryName, Form, &'a Vec<Estimates>);

fn write_together(
    conn: &mut PgConnection,
    group: &[Prepared<'_>],
) -> Result<Vec<(BatteryName, Outcome)>, StoreError> {
    conn.transaction(|conn| {
        estimates::wait_briefly(conn)?;
        let all = group
            .iter()
            .map(|(battery, _, estimates)| (*battery, estimates.as_slice()));
        let new = estimates::find_new(conn, all.clone())?;
        lineage::note(conn, all)?;
        let mut written = Vec::with_capacity(group.len());
        let mut copied = Vec::new();
        for (battery, form, estimates) in group {
            let mut lines = 0;
            for one in *estimates {
                if new.contains(&(*battery, &one.estimator)) {
                    lines += lines_of(estimates::copy(conn, battery, one)?);
                    copied.push((*battery, one));
                } else {
                    lines += upsert_one(conn, battery, form, one)?;
                }
            }
            written.push(((*battery).clone(), Outcome::Stored(lines)));
        }
        if !estimates::are_as_known(conn, &copied)? {
            // Rolled back, and each battery's written in the way that heeds other types.
            return Err(StoreError::Query(
                diesel::result::Error::RollbackTransaction,
            ));
        }
        Ok(written)
    })
}

/// Writes one battery's estimates, with what is known of its table read anew.
fn write_alone(
    conn: &mut PgConnection,
    tables: &Tables,
    battery: &BatteryName,
    estimates: &[Estimates],
) -> Result<Outcome, StoreError> {
    tables.forget(battery);
    let form = match form_of(conn, tables, battery, estimates) {
        Ok(form) => form,
        Err(error) => return outcome(error),
    };
    let written = conn.transaction(|conn| {
        estimates::wait_briefly(conn)?;
        estimates::lock(conn, battery)?;
        lineage::note(conn, std::iter::once((battery, estimates)))?;
        let lines = upsert_all(conn, battery, &form, estimates)?;
        Ok::<_, EstimatesError>(lines)
    });
    written.map_or_else(outcome, |lines| Ok(Outcome::Stored(lines)))
}

fn upsert_all(
    conn: &mut PgConnection,
    battery: &BatteryName,
    form: &Form,
    estimates: &[Estimates],
) -> Result<u64, diesel::result::Error> {
    estimates.iter().try_fold(0, |lines, one| {
        Ok(lines + upsert_one(conn, battery, form, one)?)
    })
}

fn upsert_one(
    conn: &mut PgConnection,
    battery: &BatteryName,
    form: &Form,
    one: &Estimates,
) -> Result<u64, diesel::result::Error> {
    let replaced = estimates::replace(conn, battery, one)?;
    let more = if one.seq.is_empty() {
        0
    } else {
        estimates::upsert(conn, battery, form, one)?
    };
    Ok(lines_of(more.saturating_add(replaced)))
}

fn lines_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Tells what an error means for the estimates, or that PostgreSQL is away.
fn outcome(error: EstimatesError) -> Result<Outcome, StoreError> {
    match error {
        EstimatesError::Store(error @ StoreError::Query(_)) => {
            Ok(Outcome::Refused(ErrorChain(&error).to_string()))
        }
        EstimatesError::Store(error) => Err(error),
        EstimatesError::NoBattery(_) => Ok(Outcome::NoBattery),
        busy @ EstimatesError::Busy(_) => Ok(Outcome::Busy(ErrorChain(&busy).to_string())),
    }
}
