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

/// Returns the columns of a battery's table, after making those that are missing.
fn form_of(
    conn: &mut PgConnection,
    tables: &Tables,
    battery: &BatteryName,
    estimates: &[Estimates],
) -> Result<Form, EstimatesError> {
    let columns = estimates.iter().flat_map(|one| &one.columns);
    let needed: BTreeSet<&str> = columns.map(|(name, _)| name.as_str()).collect();
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
        lineage::note(conn, all)?;
        let written = group.iter().map(|(battery, form, estimates)| {
            let lines = upsert_all(conn, battery, form, estimates)?;
            Ok(((*battery).clone(), Outcome::Stored(lines)))
        });
        written.collect()
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
        let replaced = estimates::replace(conn, battery, one)?;
        let more = if one.seq.is_empty() {
            0
        } else {
            estimates::upsert(conn, battery, form, one)?
        };
        let more = more.saturating_add(replaced);
        Ok(lines + u64::try_from(more).unwrap_or(0))
    })
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
