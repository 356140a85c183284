//! Making the tables, and columns that they lack.

use std::{collections::BTreeSet, iter};

use diesel::{
    Connection, OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection, sql_query, sql_types,
};
use rovi_common::name::BatteryName;

use super::{EstimatesError, Form, OWN_COLUMNS, units::unit_comment, wait_briefly};
use crate::store::{
    StoreError, share,
    statement::{ArrayBind, Statement},
};

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = sql_types::Text)]
    name: String,
}

/// Makes the tables of batteries that have none, with these columns, in one transaction; returns
/// those that were made.
///
/// # Errors
/// PostgreSQL is away or refuses, or somebody else makes one of them: nothing was made.
pub(crate) fn make_new<'b>(
    conn: &mut PgConnection,
    wanted: &[(&'b BatteryName, BTreeSet<&str>)],
) -> Result<Vec<(&'b BatteryName, Form)>, StoreError> {
    conn.transaction(|conn| {
        wait_briefly(conn)?;
        let names = wanted.iter().map(|(battery, _)| battery.as_str());
        let without: Vec<Found> = Statement::cached()
            .sql("SELECT name FROM hub.batteries WHERE name = ANY(")
            .array(ArrayBind::texts(names))
            .sql(
                ") AND to_regclass('estimates.' || quote_ident(name)) IS NULL \
                 ORDER BY name FOR KEY SHARE",
            )
            .load(conn)?;
        let without: BTreeSet<&str> = without.iter().map(|found| found.name.as_str()).collect();
        // Two hubs may meet the batteries' first estimates at once: then one of them fails here.
        Statement::cached()
            .sql(
                "SELECT pg_advisory_xact_lock(hashtextextended('estimates.' || name, 0)) \
                 FROM unnest(",
            )
            .array(ArrayBind::texts(without.iter().copied()))
            .sql(") AS new(name)")
            .execute(conn)?;
        let new = wanted
            .iter()
            .filter(|(battery, _)| without.contains(battery.as_str()));
        let mut made = Vec::new();
        let mut statements = String::new();
        for (battery, columns) in new {
            statements.push_str(&creation(battery, columns)?);
            made.push((*battery, columns.iter().map(ToString::to_string).collect()));
        }
        if !made.is_empty() {
            conn.batch_execute(&statements)?;
        }
        for (battery, _form) in &made {
            share::table(conn, ("estimates", battery.as_str()), battery.as_str())?;
        }
        Ok(made)
    })
}

/// Sees to it that a battery has a table with these columns; returns all that it has.
///
/// # Errors
/// - `Busy`: the table is locked.
/// - `NoBattery`: the battery was deleted or never existed.
/// - `Store`: PostgreSQL is away or refuses.
pub(crate) fn prepare(
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
            conn.batch_execute(&creation(battery, needed)?)?;
            share::table(conn, ("estimates", battery.as_str()), battery.as_str())?;
        }
        let known = form.get_or_insert_with(|| needed.iter().map(ToString::to_string).collect());
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

/// Returns the statements that make a table.
///
/// The estimator's name is as long as a name may be: a table whose rows are short for certain gets no
/// second table for long values, and is made in half the time.
fn creation(battery: &BatteryName, columns: &BTreeSet<&str>) -> QueryResult<String> {
    let table = Statement::once()
        .sql("CREATE TABLE ")
        .estimates(battery)
        .sql(
            " (estimator varchar(63) COLLATE \"C\" NOT NULL, epoch bigint NOT NULL, \
             seq bigint NOT NULL, revision bigint NOT NULL, generation bigint NOT NULL, test_time double precision",
        )
        .each(columns, |statement, column| {
            let statement = statement.sql(", ").identifier(column);
            statement.sql(" double precision")
        })
        .sql(", PRIMARY KEY (estimator, epoch, seq))");
    let known = columns
        .iter()
        .filter_map(|column| Some((*column, unit_comment(column)?)));
    let comments = OWN_COMMENTS
        .into_iter()
        .chain(known)
        .map(|(column, text)| comment(battery, column, text));
    let mut text = String::new();
    for statement in iter::once(table).chain(comments) {
        text.push_str(&statement.without_binds()?);
        text.push_str("; ");
    }
    Ok(text)
}

const OWN_COMMENTS: [(&str, &str); 6] = [
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
            comment(battery, column, text).execute(conn)?;
        }
    }
    Ok(())
}

fn comment(battery: &BatteryName, column: &str, text: &'static str) -> Statement {
    Statement::once()
        .sql("COMMENT ON COLUMN ")
        .estimates(battery)
        .sql(".")
        .identifier(column)
        .sql(text)
}
