//! What a battery should look like: the rules of `docs/DATA_MODEL.md` in few lines.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use system_tests::Database;

use super::{COLUMNS, Cell, Frame, Row};

/// A fall of `test_time` by more begins a segment, in seconds.
const HORIZON_S: f64 = 3600.0;

/// Begins the names of sessions that the hub made for posts.
pub(super) const POST: &str = "post ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Text,
    Bool,
}

/// A battery as it should be.
#[derive(Debug, Default)]
pub(super) struct Battery {
    kinds: BTreeMap<&'static str, Kind>,
    /// Segment and cells of each row.
    rows: Vec<(i64, Row)>,
    /// Session and position of each rejected row.
    rejected: Vec<(String, i64)>,
    /// Rows of each session.
    positions: BTreeMap<String, i64>,
    segment: i64,
    latest: Option<f64>,
}

impl Battery {
    /// Returns how many rows of a session are stored or rejected.
    pub(super) fn position(&self, session: &str) -> i64 {
        self.positions.get(session).copied().unwrap_or_default()
    }

    /// Takes a frame of a session.
    pub(super) fn take(&mut self, session: &str, frame: &Frame, new_segment: bool) {
        let first = self.position(session);
        let usable: Vec<(i64, &Row)> = (first..)
            .zip(&frame.rows)
            .filter(|(_, row)| is_usable(row, frame))
            .collect();
        self.change(&usable);
        if new_segment && first == 0 {
            self.segment += i64::from(self.segment > 0);
            self.latest = None;
        }
        let mut usable = usable.into_iter().peekable();
        for (position, _) in (first..).zip(&frame.rows) {
            let row = usable.next_if(|(at, _)| *at == position);
            match row.and_then(|(_, row)| self.fitted(row)) {
                Some(row) => self.store(row),
                None => self.rejected.push((session.to_owned(), position)),
            }
        }
        let end = first + i64::try_from(frame.rows.len()).unwrap();
        self.positions.insert(session.to_owned(), end);
    }

    /// Adds and widens columns as these rows want.
    fn change(&mut self, rows: &[(i64, &Row)]) {
        for (place, name) in COLUMNS.iter().enumerate() {
            let kinds = || rows.iter().filter_map(move |(_, row)| kind(&row[place]));
            let has_float = kinds().any(|kind| kind == Kind::Float);
            let first = kinds().next();
            match (self.kinds.get(name), first) {
                (None, Some(Kind::Int)) if has_float => {
                    self.kinds.insert(name, Kind::Float);
                }
                (None, Some(kind)) => {
                    self.kinds.insert(name, kind);
                }
                (Some(Kind::Int), _) if has_float && self.is_exact(place) => {
                    self.kinds.insert(name, Kind::Float);
                    for (_, row) in &mut self.rows {
                        if let Cell::Int(value) = row[place] {
                            row[place] = Cell::Float(float(value).unwrap());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn is_exact(&self, place: usize) -> bool {
        let inexact = |cell: &Cell| matches!(cell, Cell::Int(value) if float(*value).is_none());
        !self.rows.iter().any(|(_, row)| inexact(&row[place]))
    }

    /// Makes the cells of a row those of the columns, where that can be.
    fn fitted(&self, row: &Row) -> Option<Row> {
        if self.kinds.is_empty() {
            return None;
        }
        let mut fitted = row.clone();
        for (cell, name) in fitted.iter_mut().zip(COLUMNS) {
            let of_cell = kind(cell);
            match (of_cell, self.kinds.get(name)) {
                (None, _) => *cell = Cell::Null,
                (Some(Kind::Int), Some(Kind::Float)) => {
                    let Cell::Int(value) = *cell else { return None };
                    *cell = Cell::Float(float(value)?);
                }
                (of_cell, of_column) if of_cell == of_column.copied() => {}
                _ => return None,
            }
        }
        Some(fitted)
    }

    fn store(&mut self, row: Row) {
        let time = match row[0] {
            Cell::Float(time) => Some(time),
            _ => None,
        };
        let falls =
            matches!((time, self.latest), (Some(time), Some(latest)) if latest - time > HORIZON_S);
        if self.segment == 0 || falls {
            self.segment += 1;
            self.latest = None;
        }
        if let Some(time) = time {
            self.latest = Some(self.latest.unwrap_or(time).max(time));
        }
        self.rows.push((self.segment, row));
    }

    /// Compares with the tables.
    pub(super) fn compare(&self, database: &mut Database, battery: &str) -> Result<(), String> {
        let expected: Vec<Value> = (1..)
            .zip(&self.rows)
            .map(|(seq, row)| self.line(seq, row))
            .collect();
        let found = if self.kinds.is_empty() {
            Vec::new()
        } else {
            let sql = format!(
                r#"SELECT row_to_json(t)::text AS value FROM
                   (SELECT * FROM battery."{battery}" ORDER BY seq) t"#
            );
            let rows = database.texts(&sql);
            rows.iter().map(|row| normal(row)).collect()
        };
        same("rows", &expected, &found)?;
        let of_battery = format!("(SELECT id FROM hub.batteries WHERE name = '{battery}')");
        let rejected = database.texts(&format!(
            "SELECT session || '/' || position AS value FROM hub.rejected_rows \
             WHERE battery_id = {of_battery} ORDER BY id"
        ));
        let named = self
            .rejected
            .iter()
            .filter(|(session, _)| !session.starts_with(POST));
        let expected: Vec<String> = named
            .map(|(session, at)| format!("{session}/{at}"))
            .collect();
        let is_named = |line: &String| {
            let session = line.split('/').next().unwrap_or_default();
            self.positions.contains_key(session)
        };
        let (named, nameless): (Vec<String>, Vec<String>) =
            rejected.into_iter().partition(is_named);
        same("rejected rows", &expected, &named)?;
        let expected = self.rejected.len() - expected.len();
        same(
            "rejected rows without a session",
            &expected,
            &nameless.len(),
        )?;
        for (session, position) in &self.positions {
            if !session.starts_with(POST) {
                let sql = format!(
                    "SELECT CASE WHEN line.holder = session.id \
                       THEN line.last_seq + line.holder_offset ELSE noted_position END AS value \
                     FROM hub.sessions session JOIN hub.batteries line ON line.id = battery_id \
                     WHERE session.id = '{session}'"
                );
                same("positions", position, &database.number(&sql))?;
            }
        }
        Ok(())
    }

    fn line(&self, seq: i64, (segment, row): &(i64, Row)) -> Value {
        let mut line = Map::new();
        line.insert("seq".into(), json!(seq));
        line.insert("segment".into(), json!(segment));
        for (cell, name) in row.iter().zip(COLUMNS) {
            if self.kinds.contains_key(name) {
                let name = if name == "seq" { "seq_" } else { name };
                line.insert(name.into(), cell.json());
            }
        }
        normal(&Value::from(line).to_string())
    }
}

/// Tells the difference.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}\nexpected {expected:#?}\nfound {found:#?}"))
}

/// Reads a row with every float that is whole written as one, and without its time.
fn normal(row: &str) -> Value {
    let mut row: Map<String, Value> = serde_json::from_str(row).unwrap();
    row.remove("received");
    for cell in row.values_mut() {
        if let Some(float) = cell.as_f64()
            && cell.as_i64().is_none_or(|int| float_is(int, float))
        {
            *cell = json!(float);
        }
    }
    row.into()
}

fn float_is(int: i64, value: f64) -> bool {
    float(int).is_some_and(|float| float.to_bits() == value.to_bits())
}

fn is_usable(row: &Row, frame: &Frame) -> bool {
    let has_columns = row.iter().any(|cell| *cell != Cell::Missing);
    let is_empty = frame.form == super::Form::Rows && !has_columns;
    !is_empty && !row.contains(&Cell::Nested)
}

fn kind(cell: &Cell) -> Option<Kind> {
    match cell {
        Cell::Missing | Cell::Null | Cell::Nested => None,
        Cell::Int(_) => Some(Kind::Int),
        Cell::Float(_) => Some(Kind::Float),
        Cell::Text(_) => Some(Kind::Text),
        Cell::Bool(_) => Some(Kind::Bool),
    }
}

/// Returns the float that equals an integer.
#[expect(clippy::cast_precision_loss, reason = "the loss is what is looked for")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the loss is what is looked for"
)]
fn float(value: i64) -> Option<f64> {
    (value as f64 as i128 == i128::from(value)).then_some(value as f64)
}
