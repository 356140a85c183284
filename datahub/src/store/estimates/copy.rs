//! Many new estimates by binary `COPY`: several times as fast as a statement that looks for a line of
//! each key.

use std::collections::HashSet;

use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_types};
use rovi_common::name::{BatteryName, EstimatorName};

use super::{Estimates, OWN_COLUMNS};
use crate::store::{
    bind, catalog,
    column_type::ColumnType,
    copy::{self, Rows, Target},
    statement::{ArrayBind, Statement},
};

/// Lines of one table from which on `COPY`, which takes more round trips, is the faster way.
const COPY_LINES: usize = 64;

/// A battery's estimator.
pub(crate) type Key<'e> = (&'e BatteryName, &'e EstimatorName);

/// Finds the estimators whose estimates may be copied: many lines, of rows behind all of which it
/// told before, by its newest generation. Call it before their lineage is noted.
///
/// What is not seen here, since another hub writes it meanwhile, the primary key refuses.
///
/// # Errors
/// As diesel's.
pub(crate) fn find_new<'e>(
    conn: &mut PgConnection,
    all: impl Iterator<Item = (&'e BatteryName, &'e [Estimates])>,
) -> QueryResult<HashSet<Key<'e>>> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = sql_types::BigInt)]
        place: i64,
    }
    let candidates: Vec<_> = all
        .flat_map(|(battery, all)| of_battery(battery, all))
        .collect();
    if candidates.is_empty() {
        return Ok(HashSet::new());
    }
    let longs =
        |of: fn(&Estimates) -> i64| ArrayBind::longs(candidates.iter().map(|one| of(one.1)));
    let texts = |of: fn(&(&'e BatteryName, &'e Estimates)) -> &'e str| {
        ArrayBind::texts(candidates.iter().map(of))
    };
    let found: Vec<Found> = Statement::cached()
        .sql("SELECT n.place FROM unnest(")
        .array(texts(|one| one.0.as_str()))
        .sql(", ")
        .array(texts(|one| one.1.estimator.as_str()))
        .sql(", ")
        .array(longs(|one| one.epoch))
        .sql(", ")
        .array(longs(|one| one.revision))
        .sql(", ")
        .array(longs(|one| one.generation))
        .sql(", ")
        .array(longs(|one| one.seq.first().copied().unwrap_or_default()))
        .sql(
            ") WITH ORDINALITY AS n(battery, estimator, epoch, revision, generation, first_seq, \
               place) \
             JOIN hub.batteries b ON b.name = n.battery AND b.epoch <= n.epoch \
             WHERE NOT EXISTS (SELECT FROM hub.lineage l WHERE l.battery_id = b.id \
               AND l.estimator = n.estimator AND l.epoch = n.epoch AND (l.last_seq >= n.first_seq \
                 OR l.revision = n.revision AND l.generation > n.generation))",
        )
        .load(conn)?;
    let key = |found: Found| {
        let place = usize::try_from(found.place - 1).ok()?;
        let (battery, estimates) = candidates.get(place)?;
        Some((*battery, &estimates.estimator))
    };
    Ok(found.into_iter().filter_map(key).collect())
}

/// Those of a battery's estimates that might be copied. Where an estimator tells two things at once
/// one may be there to replace the other.
fn of_battery<'e>(
    battery: &'e BatteryName,
    all: &'e [Estimates],
) -> impl Iterator<Item = (&'e BatteryName, &'e Estimates)> {
    let is_alone = |one: &Estimates| {
        let same = all.iter().filter(|other| other.estimator == one.estimator);
        same.count() == 1
    };
    all.iter()
        .filter(|one| one.seq.len() >= COPY_LINES)
        .filter(|one| one.replaces.is_empty() && one.lineage.is_some())
        .filter(move |one| is_alone(one))
        .map(move |one| (battery, one))
}

/// Copies estimates of which no line is there yet; returns how many lines that made.
///
/// # Errors
/// As diesel's, also where a line is there: nothing was written.
pub(crate) fn copy(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimates: &Estimates,
) -> QueryResult<usize> {
    let names = estimates.columns.iter().map(|(name, _)| name.as_str());
    let target = Target {
        schema: "estimates",
        table: battery.as_str().to_owned(),
        columns: OWN_COLUMNS
            .into_iter()
            .chain(names)
            .map(str::to_owned)
            .collect(),
    };
    copy::into(conn, target, |out| {
        let width = OWN_COLUMNS.len() + estimates.columns.len();
        write(Rows::new(out, width), estimates)
    })
}

fn write(mut rows: Rows<'_>, estimates: &Estimates) -> QueryResult<()> {
    for (row, (seq, test_time)) in estimates.seq.iter().zip(&estimates.test_time).enumerate() {
        let bytes = rows.begin_row()?;
        bind::put(bytes, estimates.estimator.as_str().as_bytes());
        for number in [
            estimates.epoch,
            *seq,
            estimates.revision,
            estimates.generation,
        ] {
            bind::put_eight(bytes, number.to_be_bytes());
        }
        bind::put_eight(bytes, test_time.to_be_bytes());
        for (_, cells) in &estimates.columns {
            match cells.get(row).copied().flatten() {
                Some(value) => bind::put_eight(bytes, value.to_be_bytes()),
                None => bind::put_null(bytes),
            }
        }
    }
    rows.end()
}

/// Tells whether the columns into which these estimates were copied have the types that the hub
/// gives them: `COPY` converts nothing, and would take the bits of a float for those of an integer.
///
/// People change tables, too. What was copied keeps them from doing so until the transaction ends.
///
/// # Errors
/// As diesel's.
pub(crate) fn are_as_known(
    conn: &mut PgConnection,
    copied: &[(&BatteryName, &Estimates)],
) -> QueryResult<bool> {
    if copied.is_empty() {
        return Ok(true);
    }
    let names = copied.iter().map(|(battery, _)| battery.as_str());
    let tables = catalog::of_tables(conn, "estimates", names)?;
    let is_known = |(battery, estimates): &(&BatteryName, &Estimates)| {
        let columns = tables.get(battery.as_str());
        columns.is_some_and(|columns| {
            // Text is text by whatever name.
            let expected = |name: &str| match name {
                "epoch" | "seq" | "revision" | "generation" => Some(ColumnType::Int),
                "test_time" => Some(ColumnType::Float),
                _ => {
                    let mut written = estimates.columns.iter();
                    let is_written = written.any(|(column, _)| column == name);
                    is_written.then_some(ColumnType::Float)
                }
            };
            let is_right = |(name, kind): &(String, ColumnType)| {
                expected(name).is_none_or(|expected| expected == *kind)
            };
            columns.iter().all(is_right)
        })
    };
    Ok(copied.iter().all(is_known))
}
