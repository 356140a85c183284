//! Tables `estimates."<battery>"`: what estimators said after each row.
//!
//! One line for each `(estimator, epoch, seq)`. A line made by an older `(revision, generation)`
//! never replaces a newer one, and an equal one changes nothing, so that frames may come again
//! in any order.

mod copy;
mod make;
mod units;

use std::collections::BTreeSet;

use diesel::{PgConnection, QueryResult, RunQueryDsl, connection::SimpleConnection};
use rovi_common::{
    frame::Lineage,
    name::{BatteryName, EstimatorName},
};

use super::{
    StoreError, catalog,
    column_type::ColumnType,
    statement::{ArrayBind, Statement},
};

pub(crate) use self::{
    copy::{are_as_known, copy, find_new},
    make::{make_new, prepare},
};

/// Columns that every table has before those of the parameters.
pub const OWN_COLUMNS: [&str; 6] = [
    "estimator",
    "epoch",
    "seq",
    "revision",
    "generation",
    "test_time",
];

/// Names of the columns of a table that parameters have.
pub type Form = BTreeSet<String>;

/// Estimates of one registration, each `seq` once.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimates {
    /// The estimator.
    pub estimator: EstimatorName,
    /// The epoch of the rows.
    pub epoch: i64,
    /// The revision of the registration.
    pub revision: i64,
    /// Raised whenever rows are estimated anew.
    pub generation: i64,
    /// The row after which each estimate holds.
    pub seq: Vec<i64>,
    /// `test_time` of that row, in seconds.
    pub test_time: Vec<f64>,
    /// Means and standard deviations by column, each as long as `seq`.
    pub columns: Vec<(String, Vec<Option<f64>>)>,
    /// Rows of which older generations of the revision have nothing to say any more.
    pub replaces: Vec<(i64, i64)>,
    /// What made them.
    pub lineage: Option<Lineage>,
}

/// Why estimates of a battery were not written; chosen by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum EstimatesError {
    /// Somebody holds a lock on the table: later.
    #[error("the table is locked")]
    Busy(#[source] StoreError),
    /// There is no such battery: never.
    #[error("there is no battery `{0}`")]
    NoBattery(BatteryName),
    /// PostgreSQL refuses the estimates, or is away.
    #[error("the estimates were not taken")]
    Store(#[source] StoreError),
}

impl EstimatesError {
    fn busy(error: diesel::result::Error) -> Self {
        match StoreError::from(error) {
            away @ StoreError::Away(_) => Self::Store(away),
            locked => Self::Busy(locked),
        }
    }
}

impl From<diesel::result::Error> for EstimatesError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes the lock waits of this transaction short.
///
/// # Errors
/// As diesel's.
pub fn wait_briefly(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute("SET LOCAL lock_timeout = '250ms'")
}

/// Reads the columns that tell of estimates besides their keys, in the order of the table; none
/// where there is no table.
///
/// # Errors
/// As diesel's.
pub fn columns(
    conn: &mut PgConnection,
    battery: &BatteryName,
) -> QueryResult<Vec<(String, ColumnType)>> {
    let columns = catalog::of_table(conn, "estimates", battery.as_str())?.into_iter();
    Ok(columns
        .filter(|(name, _)| !["estimator", "epoch", "seq"].contains(&name.as_str()))
        .collect())
}

/// Waits briefly until nobody keeps writers from the table.
///
/// # Errors
/// `Busy`, or `Store` where PostgreSQL is away.
pub fn lock(conn: &mut PgConnection, battery: &BatteryName) -> Result<(), EstimatesError> {
    Statement::once()
        .sql("LOCK TABLE ")
        .estimates(battery)
        .sql(" IN ROW EXCLUSIVE MODE")
        .execute(conn)
        .map_err(EstimatesError::busy)?;
    Ok(())
}

/// Writes estimates, and returns how many lines that made or changed.
///
/// `form` tells all columns of the table: those that the estimates lack become null where a
/// line is replaced.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub fn upsert(
    conn: &mut PgConnection,
    battery: &BatteryName,
    form: &Form,
    estimates: &Estimates,
) -> QueryResult<usize> {
    let columns = estimates.columns.iter();
    let names: Vec<String> = columns.map(|(name, _)| name.clone()).collect();
    let statement = Statement::cached()
        .sql("INSERT INTO ")
        .estimates(battery)
        .sql(" AS known (estimator, epoch, seq, revision, generation, test_time")
        .each(&names, |statement, name| {
            statement.sql(", ").identifier(name)
        })
        .sql(") SELECT ")
        .text(estimates.estimator.as_str())
        .sql(", ")
        .long(estimates.epoch)
        .sql(", new.seq, ")
        .long(estimates.revision)
        .sql(", ")
        .long(estimates.generation)
        .sql(", new.test_time")
        .each(0..names.len(), |statement, place| {
            statement.sql(", new.").identifier(&alias(place))
        })
        .sql(" FROM unnest(")
        .array(ArrayBind::longs(estimates.seq.iter().copied()))
        .sql(", ")
        .array(ArrayBind::doubles(
            estimates.test_time.iter().copied().map(Some),
        ))
        .each(&estimates.columns, |statement, (_, cells)| {
            statement
                .sql(", ")
                .array(ArrayBind::doubles(cells.iter().copied()))
        })
        .sql(") AS new(seq, test_time")
        .each(0..names.len(), |statement, place| {
            statement.sql(", ").identifier(&alias(place))
        })
        // Estimates of a life of the name that is over must not show in this one.
        .sql(") WHERE EXISTS (SELECT FROM hub.batteries b WHERE b.epoch <= ")
        .long(estimates.epoch)
        .sql(" AND b.name = ")
        .text(battery.as_str())
        .sql(")");
    // A row of which a newer generation has spoken, though it had nothing to say.
    let statement = unless_replaced(statement, battery, estimates)
        .sql(
            " ON CONFLICT (estimator, epoch, seq) DO UPDATE SET revision = excluded.revision, \
             generation = excluded.generation, test_time = excluded.test_time",
        )
        .each(form, |statement, name| {
            let statement = statement.sql(", ").identifier(name);
            statement.sql(" = excluded.").identifier(name)
        })
        .sql(
            " WHERE (excluded.revision, excluded.generation) \
             > (known.revision, known.generation)",
        );
    statement.execute(conn)
}

/// Adds the condition that no newer generation spoke of the row.
fn unless_replaced(
    statement: Statement,
    battery: &BatteryName,
    estimates: &Estimates,
) -> Statement {
    let statement = statement.sql(" AND (NOT ");
    let statement = newer_generation(statement, battery, estimates).sql(") OR NOT ");
    newer_generation(statement, battery, estimates)
        .sql(" AND new.seq BETWEEN l.first_seq AND l.last_seq))")
}

/// Adds an open `EXISTS (…` that finds a newer generation of the same revision.
fn newer_generation(
    statement: Statement,
    battery: &BatteryName,
    estimates: &Estimates,
) -> Statement {
    statement
        .sql("EXISTS (SELECT FROM hub.lineage l JOIN hub.batteries b ON b.id = l.battery_id WHERE b.name = ")
        .text(battery.as_str())
        .sql(" AND l.estimator = ")
        .text(estimates.estimator.as_str())
        .sql(" AND l.epoch = ")
        .long(estimates.epoch)
        .sql(" AND l.revision = ")
        .long(estimates.revision)
        .sql(" AND l.generation > ")
        .long(estimates.generation)
}

/// Removes what older generations said of rows that were estimated anew; returns the lines that
/// went.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub fn replace(
    conn: &mut PgConnection,
    battery: &BatteryName,
    estimates: &Estimates,
) -> QueryResult<usize> {
    let mut gone = 0;
    for &(first, last) in &estimates.replaces {
        gone += Statement::cached()
            .sql("DELETE FROM ")
            .estimates(battery)
            .sql(" WHERE estimator = ")
            .text(estimates.estimator.as_str())
            .sql(" AND epoch = ")
            .long(estimates.epoch)
            .sql(" AND seq BETWEEN ")
            .long(first)
            .sql(" AND ")
            .long(last)
            .sql(" AND revision = ")
            .long(estimates.revision)
            .sql(" AND generation < ")
            .long(estimates.generation)
            .execute(conn)?;
    }
    Ok(gone)
}

fn alias(place: usize) -> String {
    format!("cells_{place}")
}
