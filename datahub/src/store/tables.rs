//! Tables of batteries: made from the first rows, given columns, widened.
//!
//! Every change happens in a transaction that holds the line of that one battery, raises its
//! `form` and stands in `hub.table_changes`.

use std::collections::{HashMap, HashSet};

use diesel::{
    ExpressionMethods, PgConnection, QueryDsl, QueryResult, QueryableByName, RunQueryDsl, sql_types,
};

pub use super::column_type::ColumnType;
use super::{
    batteries::Line,
    schema::{batteries, table_changes},
    statement::{ArrayBind, Statement},
};

/// Columns that every table has before those of the rows.
const OWN_COLUMNS: [&str; 3] = ["seq", "received", "segment"];

/// A change that rows need before they fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A new column.
    Add(String, ColumnType),
    /// An integer column meets floats.
    Widen(String),
}

/// What a battery's table looks like.
#[derive(Debug, Clone, Default)]
pub struct Table {
    epoch: i64,
    form: i64,
    columns: Vec<(String, ColumnType)>,
    places: HashMap<String, usize>,
    /// Integer columns that cannot be widened, because a stored value would lose digits.
    fixed: HashSet<String>,
    /// Why the table takes no changes now, where PostgreSQL refused one.
    pub(super) frozen: Option<String>,
}

impl Table {
    fn new(line: &Line, columns: Vec<(String, ColumnType)>) -> Self {
        let places = columns.iter().enumerate();
        let places = places
            .map(|(place, (name, _))| (name.clone(), place))
            .collect();
        Self {
            epoch: line.epoch,
            form: line.form,
            columns,
            places,
            fixed: HashSet::new(),
            frozen: None,
        }
    }

    /// Tells whether this is still what the table looks like; asked while the line is held.
    pub(super) fn is_current(&self, line: &Line) -> bool {
        (self.epoch, self.form) == (line.epoch, line.form)
    }

    /// Returns names and types in the order of the table.
    pub fn columns(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// Finds a column; `hint` is where it would stand in rows of the table's own form.
    pub(super) fn place(&self, hint: usize, name: &str) -> Option<usize> {
        match self.columns.get(hint) {
            Some((known, _)) if known == name => Some(hint),
            _ => self.places.get(name).copied(),
        }
    }

    pub(super) fn can_widen(&self, name: &str) -> bool {
        self.frozen.is_none() && !self.fixed.contains(name)
    }

    /// Applies a change to what is known of the table, not to the table.
    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Add(name, kind) => {
                self.places.insert(name.clone(), self.columns.len());
                self.columns.push((name.clone(), kind.clone()));
            }
            Change::Widen(name) => {
                let place = self.places.get(name);
                if let Some((_, kind)) = place.and_then(|&place| self.columns.get_mut(place)) {
                    *kind = ColumnType::Float;
                }
            }
        }
    }
}

#[derive(QueryableByName)]
struct CatalogColumn {
    #[diesel(sql_type = sql_types::Text)]
    battery: String,
    #[diesel(sql_type = sql_types::Text)]
    name: String,
    #[diesel(sql_type = sql_types::Text)]
    kind: String,
}

/// Reads what a battery's table looks like; without columns where there is none.
///
/// # Errors
/// As diesel's.
pub fn load(connection: &mut PgConnection, line: &Line) -> QueryResult<Table> {
    let mut tables = load_all(connection, &[line])?;
    Ok(tables.remove(&line.id).unwrap_or_default())
}

/// Reads what the tables of many batteries look like, by the batteries' ids.
pub(super) fn load_all(
    connection: &mut PgConnection,
    lines: &[&Line],
) -> QueryResult<HashMap<i64, Table>> {
    let made = lines.iter().filter(|line| line.form > 0);
    let names = made.map(|line| line.name.as_str());
    let found: Vec<CatalogColumn> = Statement::cached()
        .sql(
            "SELECT c.relname::text AS battery, a.attname::text AS name, \
             format_type(a.atttypid, NULL) AS kind \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE c.relnamespace = 'battery'::regnamespace \
             AND a.attnum > 0 AND NOT a.attisdropped AND c.relname = ANY(",
        )
        .array(ArrayBind::texts(names))
        .sql("::name[]) ORDER BY a.attnum")
        .load(connection)?;
    let mut columns: HashMap<String, Vec<(String, ColumnType)>> = HashMap::new();
    for column in found {
        let columns = columns.entry(column.battery).or_default();
        if !OWN_COLUMNS.contains(&column.name.as_str()) {
            columns.push((column.name, ColumnType::from_sql(&column.kind)));
        }
    }
    let tables = lines.iter().map(|line| {
        let columns = columns.remove(&line.name).unwrap_or_default();
        (line.id, Table::new(line, columns))
    });
    Ok(tables.collect())
}

/// Changes a battery's table; the caller holds its line.
///
/// Columns that cannot be widened are noted in `table` and left as they are.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub(super) fn change(
    connection: &mut PgConnection,
    line: &mut Line,
    table: &mut Table,
    changes: &[Change],
) -> QueryResult<()> {
    let mut adds = Vec::new();
    let mut journal = Vec::new();
    for change in changes {
        match change {
            Change::Add(name, kind) => {
                journal.push(format!("column \"{name}\" added as {}", kind.sql()));
                adds.push((name.as_str(), kind));
            }
            Change::Widen(name) if !widen(connection, line, name)? => {
                table.fixed.insert(name.clone());
                continue;
            }
            Change::Widen(name) => {
                journal.push(format!("column \"{name}\" widened to double precision"));
            }
        }
        table.note(change);
    }
    if journal.is_empty() {
        return Ok(());
    }
    if line.form == 0 {
        create(connection, line, &adds)?;
        journal.insert(0, "table made".to_owned());
    } else if !adds.is_empty() {
        add(connection, line, &adds)?;
    }
    comment(connection, line, &adds)?;
    record(connection, line, table, &journal)
}

fn create(
    connection: &mut PgConnection,
    line: &Line,
    columns: &[(&str, &ColumnType)],
) -> QueryResult<()> {
    Statement::once()
        .sql("CREATE TABLE ")
        .battery(&line.name)
        .sql(" (seq bigint PRIMARY KEY, received timestamptz NOT NULL, segment integer NOT NULL")
        .each(columns, |statement, (name, kind)| {
            let statement = statement.sql(", ").identifier(name);
            statement.sql(" ").sql(kind.sql())
        })
        .sql(")")
        .execute(connection)?;
    let own = [
        (
            "seq",
            " IS 'Order of storing within the epoch, from 1 without gaps.'",
        ),
        ("received", " IS 'When the hub took the row.'"),
        ("segment", " IS 'The test within the battery''s life.'"),
    ];
    own.into_iter()
        .try_for_each(|(name, text)| comment_on(connection, line, name, text))
}

fn add(
    connection: &mut PgConnection,
    line: &Line,
    columns: &[(&str, &ColumnType)],
) -> QueryResult<()> {
    let mut separator = " ADD COLUMN ";
    let mut statement = Statement::once().sql("ALTER TABLE ").battery(&line.name);
    for (name, kind) in columns {
        statement = statement
            .sql(separator)
            .identifier(name)
            .sql(" ")
            .sql(kind.sql());
        separator = ", ADD COLUMN ";
    }
    statement.execute(connection).map(drop)
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = sql_types::Bool)]
    found: bool,
}

/// Turns an integer column into floats, unless a stored value would lose digits.
fn widen(connection: &mut PgConnection, line: &Line, column: &str) -> QueryResult<bool> {
    // Every integer up to 2^53 is a float.
    let beyond: Found = Statement::once()
        .sql("SELECT EXISTS (SELECT FROM ")
        .battery(&line.name)
        .sql(" WHERE ")
        .identifier(column)
        .sql(" NOT BETWEEN -9007199254740992 AND 9007199254740992) AS found")
        .get_result(connection)?;
    if beyond.found {
        return Ok(false);
    }
    Statement::once()
        .sql("ALTER TABLE ")
        .battery(&line.name)
        .sql(" ALTER COLUMN ")
        .identifier(column)
        .sql(" TYPE double precision")
        .execute(connection)?;
    Ok(true)
}

/// Writes the units of columns that battdat defines.
fn comment(
    connection: &mut PgConnection,
    line: &Line,
    columns: &[(&str, &ColumnType)],
) -> QueryResult<()> {
    for (name, _) in columns {
        let text = match *name {
            "test_time" => " IS 'Time from the beginning of the test, in s.'",
            "voltage" => " IS 'Measured voltage, in V.'",
            "current" => " IS 'Measured current, in A; positive when charging.'",
            "temperature" => " IS 'Temperature of the battery, in °C.'",
            "time" => " IS 'Time of the measurement, in s since 1970-01-01 UTC.'",
            "file_number" => " IS 'Which of several original files the row came from.'",
            "state" => " IS 'Whether the battery is charged, discharged or at rest.'",
            "method" => " IS 'How charge or discharge is controlled.'",
            "step_index" => " IS 'Number of the step within the cycle.'",
            "substep_index" => " IS 'Counts changes of the control method within the cycle.'",
            "cycle_time" => " IS 'Time from the beginning of the cycle, in s.'",
            "cycle_number" => " IS 'Number of the cycle, from 0.'",
            "cycle_capacity" => " IS 'Charge since the beginning of the cycle, in A·h.'",
            "cycle_energy" => " IS 'Energy since the beginning of the cycle, in W·h.'",
            "internal_resistance" => " IS 'Internal resistance, in ohm.'",
            _ => continue,
        };
        comment_on(connection, line, name, text)?;
    }
    Ok(())
}

fn comment_on(
    connection: &mut PgConnection,
    line: &Line,
    column: &str,
    text: &'static str,
) -> QueryResult<()> {
    Statement::once()
        .sql("COMMENT ON COLUMN ")
        .battery(&line.name)
        .sql(".")
        .identifier(column)
        .sql(text)
        .execute(connection)
        .map(drop)
}

/// Raises the form and writes the journal.
fn record(
    connection: &mut PgConnection,
    line: &mut Line,
    table: &mut Table,
    journal: &[String],
) -> QueryResult<()> {
    line.form += 1;
    table.form = line.form;
    diesel::update(batteries::table.find(line.id))
        .set(batteries::form.eq(line.form))
        .execute(connection)?;
    let entry = |change: &String| {
        (
            table_changes::battery_id.eq(line.id),
            table_changes::epoch.eq(line.epoch),
            table_changes::after_seq.eq(line.last_seq),
            table_changes::change.eq(change.clone()),
        )
    };
    let entries: Vec<_> = journal.iter().map(entry).collect();
    diesel::insert_into(table_changes::table)
        .values(entries)
        .execute(connection)
        .map(drop)
}
