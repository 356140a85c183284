//! Tables of batteries: made from the first rows, given columns, widened.
//!
//! Every change happens in a transaction that holds the line of that one battery, raises its
//! `form` and stands in `hub.table_changes`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use diesel::{
    ExpressionMethods, PgConnection, QueryDsl, QueryResult, QueryableByName, RunQueryDsl, sql_types,
};

pub use super::column_type::ColumnType;
use super::{
    batteries::Line,
    catalog::{self, Columns},
    columns,
    layout::{Layout, Layouts},
    rollups,
    schema::{batteries, table_changes},
    share,
    statement::Statement,
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
    layout: Arc<Layout>,
    /// Integer columns that cannot be widened, because a stored value would lose digits.
    fixed: HashSet<String>,
    /// Why the table takes no changes now, where PostgreSQL refused one.
    pub(super) frozen: Option<String>,
}

impl Table {
    fn new(line: &Line, columns: Columns) -> Self {
        Self {
            epoch: line.epoch,
            form: line.form,
            layout: Arc::new(Layout::new(columns)),
            fixed: HashSet::new(),
            frozen: None,
        }
    }

    /// Tells whether this is what the table looks like where its line stands so.
    pub(super) fn is_current(&self, line: &Line) -> bool {
        (self.epoch, self.form) == (line.epoch, line.form)
    }

    /// Returns names and types in the order of the table.
    pub fn columns(&self) -> &[(String, ColumnType)] {
        self.layout.columns()
    }

    /// Gives the table the layout that others have, too.
    pub(super) fn share(&mut self, layouts: &mut Layouts) {
        self.layout = layouts.share(&self.layout);
    }

    /// Finds a column; `hint` is where it would stand in rows of the table's own form.
    pub(super) fn place(&self, hint: usize, name: &str) -> Option<usize> {
        self.layout.place(hint, name)
    }

    pub(super) fn can_widen(&self, name: &str) -> bool {
        self.frozen.is_none() && !self.fixed.contains(name)
    }

    /// Applies a change to what is known of the table, not to the table.
    pub(super) fn note(&mut self, change: &Change) {
        let layout = Arc::make_mut(&mut self.layout);
        match change {
            Change::Add(name, kind) => layout.add(name, kind),
            Change::Widen(name) => layout.set(name, ColumnType::Float),
        }
    }
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
    let made: Vec<&str> = made.map(|line| line.name.as_str()).collect();
    let mut columns = match made.as_slice() {
        [] => HashMap::new(),
        made => catalog::of_tables(connection, "battery", made.iter().copied())?,
    };
    let tables = lines.iter().map(|line| {
        let mut columns = columns.remove(&line.name).unwrap_or_default();
        columns.retain(|(name, _)| !OWN_COLUMNS.contains(&name.as_str()));
        (line.id, Table::new(line, columns))
    });
    Ok(tables.collect())
}

/// Reads anew what a battery's table looks like. Integer columns that cannot be widened stay so:
/// finding out takes a look at every row.
///
/// # Errors
/// As diesel's.
pub(super) fn look_again(
    connection: &mut PgConnection,
    line: &Line,
    table: &mut Table,
) -> QueryResult<()> {
    let mut found = load(connection, line)?;
    found.fixed = std::mem::take(&mut table.fixed);
    let is_int = |name: &String| {
        let place = found.place(usize::MAX, name);
        let column = place.and_then(|place| found.columns().get(place));
        column.is_some_and(|(_, kind)| *kind == ColumnType::Int)
    };
    let fixed = found.fixed.iter().filter(|name| is_int(name)).cloned();
    found.fixed = fixed.collect();
    *table = found;
    Ok(())
}

/// Begins a new epoch where the battery's table is gone; the caller holds its line.
///
/// Somebody dropped it, with the rows; what comes from now on finds a table of its own, and every
/// reader starts over. The journal tells.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub(super) fn begin_anew_if_gone(
    connection: &mut PgConnection,
    line: &mut Line,
) -> QueryResult<()> {
    if line.form == 0 {
        return Ok(());
    }
    let there: Found = Statement::cached()
        .sql(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'battery' AND c.relname = ",
        )
        .text(&line.name)
        .sql(") AS found")
        .get_result(connection)?;
    if there.found {
        return Ok(());
    }
    let change = format!(
        "the table is gone: somebody dropped or renamed it, with rows 1 to {}; epoch {} begins",
        line.last_seq,
        line.epoch + 1
    );
    tracing::error!(battery.id = line.name, "{}: {change}", line.name);
    journalize(connection, line, &[change])?;
    *line = Line {
        epoch: line.epoch + 1,
        first_seq: 1,
        last_seq: 0,
        segment: 0,
        latest_test_time: None,
        form: 0,
        ..line.clone()
    };
    rollups::invalidate(connection, line.id, 1..=i64::MAX)?;
    diesel::sql_query("UPDATE hub.batteries SET deleted_rows = 0 WHERE id = $1")
        .bind::<sql_types::BigInt, _>(line.id)
        .execute(connection)?;
    diesel::update(batteries::table.find(line.id))
        .set((
            batteries::epoch.eq(line.epoch),
            batteries::first_seq.eq(1),
            batteries::last_seq.eq(0),
            batteries::relayed_seq.eq(0),
            batteries::segment.eq(0),
            batteries::latest_test_time.eq(None::<f64>),
            batteries::form.eq(0),
        ))
        .execute(connection)
        .map(drop)
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
    let names = adds.iter().map(|(name, _)| *name);
    if line.form == 0 {
        create(connection, line, &adds)?;
        columns::comment_new(connection, line, names)?;
        journal.insert(0, "table made".to_owned());
    } else if !adds.is_empty() {
        add(connection, line, &adds)?;
        columns::comment(connection, line, names)?;
    }
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
        // Queries go by `seq`. After the 50 rows that are PostgreSQL's own bound, it would sample each
        // table of a fleet every other minute, for which writers then look at the table anew.
        .sql(") WITH (autovacuum_analyze_threshold = 10000)")
        .execute(connection)?;
    share::table(connection, ("battery", &line.name), &line.name)
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
    journalize(connection, line, journal)
}

/// Writes the journal.
pub(super) fn journalize(
    connection: &mut PgConnection,
    line: &Line,
    journal: &[String],
) -> QueryResult<()> {
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
