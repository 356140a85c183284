//! Tables `estimates."<battery>"`: what estimators said after each row.
//!
//! One line for each `(estimator, epoch, seq)`. A line made by an older `(revision, generation)`
//! never replaces a newer one, and an equal one changes nothing, so that frames may come again
//! in any order.

use std::collections::BTreeSet;

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection, sql_query, sql_types,
};
use rovi_common::{
    frame::Lineage,
    name::{BatteryName, EstimatorName},
};

use super::{
    StoreError, catalog,
    column_type::ColumnType,
    share,
    statement::{ArrayBind, Statement},
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

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = sql_types::Text)]
    name: String,
}

/// Makes the lock waits of this transaction short.
///
/// # Errors
/// As diesel's.
pub fn wait_briefly(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute("SET LOCAL lock_timeout = '250ms'")
}

/// Sees to it that a battery has a table with these columns; returns all that it has.
///
/// # Errors
/// - `Busy`: the table is locked.
/// - `NoBattery`: the battery was deleted or never existed.
/// - `Store`: PostgreSQL is away or refuses.
pub fn prepare(
    conn: &mut PgConnection,
    battery: &BatteryName,
    needed: &BTreeSet<&str>,
) -> Result<Form, EstimatesError> {
    conn.transaction(|conn| {
        wait_briefly(conn)?;
        let known: Option<Found> =
            sql_query("SELECT name FROM hub.batteries WHERE name = $1 FOR KEY SHARE")
                .bind::<sql_types::Text, _>(battery.as_str())
                .get_result(conn)
                .optional()?;
        if known.is_none() {
            return Err(EstimatesError::NoBattery(battery.clone()));
        }
        // Two hubs may meet the battery's first estimates at once.
        sql_query("SELECT pg_advisory_xact_lock(hashtextextended('estimates.' || $1, 0))")
            .bind::<sql_types::Text, _>(battery.as_str())
            .execute(conn)
            .map_err(EstimatesError::busy)?;
        let mut form = form(conn, battery)?;
        if form.is_none() {
            create(conn, battery)?;
        }
        let known = form.get_or_insert_default();
        let missing: Vec<&str> = needed
            .iter()
            .copied()
            .filter(|name| !known.contains(*name))
            .collect();
        if !missing.is_empty() {
            add(conn, battery, &missing)?;
        }
        known.extend(missing.into_iter().map(str::to_owned));
        Ok(form.unwrap_or_default())
    })
}

/// Reads the columns of a battery's parameters; `None` where there is no table.
fn form(conn: &mut PgConnection, battery: &BatteryName) -> QueryResult<Option<Form>> {
    let columns: Vec<Found> = sql_query(
        "SELECT a.attname::text AS name FROM pg_attribute a \
         JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'estimates' AND c.relname = $1 \
           AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .bind::<sql_types::Text, _>(battery.as_str())
    .load(conn)?;
    if columns.is_empty() {
        return Ok(None);
    }
    let names = columns.into_iter().map(|column| column.name);
    let form = names.filter(|name| !OWN_COLUMNS.contains(&name.as_str()));
    Ok(Some(form.collect()))
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

fn create(conn: &mut PgConnection, battery: &BatteryName) -> QueryResult<()> {
    Statement::once()
        .sql("CREATE TABLE ")
        .estimates(battery)
        .sql(
            " (estimator text COLLATE \"C\" NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL, \
             revision bigint NOT NULL, generation bigint NOT NULL, \
             test_time double precision, PRIMARY KEY (estimator, epoch, seq))",
        )
        .execute(conn)?;
    share::table(conn, ("estimates", battery.as_str()), battery.as_str())?;
    let comments = [
        ("estimator", " IS 'Which of the battery''s estimators.'"),
        ("epoch", " IS 'Life of the battery''s name.'"),
        ("seq", " IS 'The row after which the estimate holds.'"),
        (
            "revision",
            " IS 'Revision of the estimator''s registration.'",
        ),
        (
            "generation",
            " IS 'Raised whenever rows were estimated anew.'",
        ),
        ("test_time", " IS 'test_time of the row, in s.'"),
    ];
    comments
        .into_iter()
        .try_for_each(|(column, text)| comment(conn, battery, column, text))
}

fn add(
    conn: &mut PgConnection,
    battery: &BatteryName,
    columns: &[&str],
) -> Result<(), EstimatesError> {
    // Waiting here, and only here, is waiting for somebody who reads or writes the table.
    Statement::once()
        .sql("LOCK TABLE ")
        .estimates(battery)
        .sql(" IN ACCESS EXCLUSIVE MODE")
        .execute(conn)
        .map_err(EstimatesError::busy)?;
    let mut statement = Statement::once().sql("ALTER TABLE ").estimates(battery);
    let mut separator = " ADD COLUMN ";
    for column in columns {
        statement = statement.sql(separator).identifier(column);
        statement = statement.sql(" double precision");
        separator = ", ADD COLUMN ";
    }
    statement.execute(conn)?;
    for column in columns {
        if let Some(text) = unit_comment(column) {
            comment(conn, battery, column, text)?;
        }
    }
    Ok(())
}

fn comment(
    conn: &mut PgConnection,
    battery: &BatteryName,
    column: &str,
    text: &'static str,
) -> QueryResult<()> {
    Statement::once()
        .sql("COMMENT ON COLUMN ")
        .estimates(battery)
        .sql(".")
        .identifier(column)
        .sql(text)
        .execute(conn)
        .map(drop)
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

/// Tells quantity and unit of a column whose parameter is known.
fn unit_comment(column: &str) -> Option<&'static str> {
    let (parameter, is_deviation) = match column.strip_suffix("__std") {
        Some(parameter) => (parameter, true),
        None => (column, false),
    };
    let parameter = parameter.trim_end_matches(|c: char| c.is_ascii_digit());
    let last_two = || parameter.rsplit("__").nth(1);
    let (mean, deviation) = match parameter {
        "soc" | "ce" | "h0__gamma" => UNIT_ONE,
        "hyst" | "innovation" | "h0__base_values" | "ocv__ocv_ref__base_values" => UNIT_VOLT,
        "q" => UNIT_COULOMB,
        "i_rc" => UNIT_AMPERE,
        "q_t__base_values" => UNIT_AMPERE_HOUR,
        "ocv__ocv_ent__base_values" => UNIT_VOLT_PER_KELVIN,
        "ocv__reference_temperature" => UNIT_CELSIUS,
        "r0__base_values" => UNIT_OHM,
        "state_of_health" => UNIT_HEALTH,
        "equivalent_full_cycles" => {
            return Some(" IS 'Charge in and out over twice the nominal capacity, without unit.'");
        }
        "energy_throughput" => return Some(" IS 'Energy in and out so far, in W·h.'"),
        "trust" => return Some(" IS '0 healthy, 1 suspect, 2 diverged.'"),
        _ if parameter.ends_with("__temperature_dependence_factor") => UNIT_PER_KELVIN,
        _ if parameter.starts_with("rc_elements__") && last_two() == Some("r") => UNIT_OHM,
        _ if parameter.starts_with("rc_elements__") && last_two() == Some("c") => UNIT_FARAD,
        _ => return None,
    };
    Some(if is_deviation { deviation } else { mean })
}

type UnitComment = (&'static str, &'static str);
const UNIT_ONE: UnitComment = (
    " IS 'Mean, without unit.'",
    " IS 'Standard deviation, without unit.'",
);
const UNIT_HEALTH: UnitComment = (
    " IS 'Capacity over the nominal one, without unit.'",
    " IS 'Standard deviation, without unit.'",
);
const UNIT_VOLT: UnitComment = (" IS 'Mean, in V.'", " IS 'Standard deviation, in V.'");
const UNIT_COULOMB: UnitComment = (" IS 'Mean, in C.'", " IS 'Standard deviation, in C.'");
const UNIT_AMPERE: UnitComment = (" IS 'Mean, in A.'", " IS 'Standard deviation, in A.'");
const UNIT_AMPERE_HOUR: UnitComment = (" IS 'Mean, in A·h.'", " IS 'Standard deviation, in A·h.'");
const UNIT_VOLT_PER_KELVIN: UnitComment =
    (" IS 'Mean, in V/°C.'", " IS 'Standard deviation, in V/°C.'");
const UNIT_CELSIUS: UnitComment = (" IS 'Mean, in °C.'", " IS 'Standard deviation, in °C.'");
const UNIT_OHM: UnitComment = (" IS 'Mean, in ohm.'", " IS 'Standard deviation, in ohm.'");
const UNIT_PER_KELVIN: UnitComment = (" IS 'Mean, in 1/°C.'", " IS 'Standard deviation, in 1/°C.'");
const UNIT_FARAD: UnitComment = (" IS 'Mean, in F.'", " IS 'Standard deviation, in F.'");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_known_parameters_are_told() {
        for (column, unit) in [
            ("soc", "without unit"),
            ("q_t__base_values", "A·h"),
            ("r0__base_values3__std", "ohm"),
            ("rc_elements__0__c__base_values", "in F"),
            ("rc_elements__1__r__base_values__std", "ohm"),
            ("i_rc", "in A"),
            ("i_rc1", "in A"),
            ("innovation__std", "in V"),
            ("state_of_health", "over the nominal"),
            ("state_of_health__std", "deviation"),
            ("equivalent_full_cycles", "without unit"),
            ("energy_throughput", "W·h"),
            ("trust", "2 diverged"),
        ] {
            let comment = unit_comment(column).unwrap_or_default();
            assert!(comment.contains(unit), "{column}: {comment}");
        }
        assert!(unit_comment("soc__std").unwrap().contains("deviation"));
        assert_eq!(unit_comment("something"), None);
    }
}
