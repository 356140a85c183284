//! The columns that an answer has: those of the table, and derived signals computed from them.

use rovi_common::{
    http::Problem,
    rows::{Column, Columns},
};

use super::expression::Expression;
use crate::store::{signals::Signal, source::Source, tables::ColumnType};

/// Columns and signals in the order in which they were asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picks {
    fetched: Vec<(String, ColumnType)>,
    wanted: Vec<Wanted>,
}

#[derive(Debug, Clone)]
struct Wanted {
    name: String,
    kind: ColumnType,
    unit: Option<String>,
    signal: Option<Expression>,
}

/// One column of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a ColumnType,
    /// The unit, where it is known.
    pub(crate) unit: Option<&'a str>,
    /// Whether it stands in the table.
    pub(crate) is_stored: bool,
}

impl Picks {
    /// Finds columns and signals by name; without names all columns of the table are taken. A
    /// column wins over a signal of its name.
    ///
    /// # Errors
    /// 400 for a name that is neither, or a signal whose columns are not there as numbers.
    pub(crate) fn new(
        source: &Source,
        signals: &[Signal],
        names: Option<&[String]>,
    ) -> Result<Self, Problem> {
        let mut picks = Self::default();
        let Some(names) = names else {
            for column in source.columns() {
                picks.add_column(column);
            }
            return Ok(picks.with_units(source));
        };
        for name in names {
            if picks.wanted.iter().any(|known| known.name == *name) {
                continue;
            }
            if let Some(column) = source.column(name) {
                picks.add_column(column);
            } else if let Some(signal) = signals.iter().find(|signal| signal.name == *name) {
                picks.add_signal(source, signal)?;
            } else {
                let battery = &source.battery;
                let detail = format!("{battery}: there is no column `{name}`");
                return Err(Problem::bad_request(detail).at("columns"));
            }
        }
        Ok(picks.with_units(source))
    }

    /// Adds the units of stored columns.
    fn with_units(mut self, source: &Source) -> Self {
        for wanted in &mut self.wanted {
            if wanted.signal.is_none() {
                wanted.unit = source.unit(&wanted.name).map(str::to_owned);
            }
        }
        self
    }

    /// Adds a column of the table, unless it is there.
    pub(crate) fn add_column(&mut self, column: &(String, ColumnType)) {
        self.fetch(column);
        if self.wanted.iter().any(|known| known.name == column.0) {
            return;
        }
        self.wanted.push(Wanted {
            name: column.0.clone(),
            kind: column.1.clone(),
            unit: None,
            signal: None,
        });
    }

    fn add_signal(&mut self, source: &Source, signal: &Signal) -> Result<(), Problem> {
        let wrong = |reason: String| {
            let detail = format!("signal `{}` of {}: {reason}", signal.name, source.battery);
            Problem::bad_request(detail).at("columns")
        };
        let expression: Expression = signal
            .expression
            .parse()
            .map_err(|error| wrong(format!("{error}")))?;
        check(source, &expression).map_err(wrong)?;
        for name in expression.columns() {
            if let Some(column) = source.column(name) {
                self.fetch(column);
            }
        }
        self.wanted.push(Wanted {
            name: signal.name.clone(),
            kind: ColumnType::Float,
            unit: signal.unit.clone(),
            signal: Some(expression),
        });
        Ok(())
    }

    /// Returns those that hold numbers.
    pub(crate) fn numeric(&self) -> Self {
        let is_numeric = |kind: &ColumnType| matches!(kind, ColumnType::Int | ColumnType::Float);
        let wanted: Vec<Wanted> = self
            .wanted
            .iter()
            .filter(|wanted| is_numeric(&wanted.kind))
            .cloned()
            .collect();
        let needed = |(name, _): &&(String, ColumnType)| {
            wanted.iter().any(|wanted| match &wanted.signal {
                Some(expression) => expression.columns().contains(&name.as_str()),
                None => wanted.name == *name,
            })
        };
        Self {
            fetched: self.fetched.iter().filter(needed).cloned().collect(),
            wanted,
        }
    }

    /// Sees to it that a column is read.
    fn fetch(&mut self, column: &(String, ColumnType)) {
        if !self.fetched.contains(column) {
            self.fetched.push(column.clone());
        }
    }

    /// Returns the columns to read from the table.
    pub(crate) fn fetched(&self) -> &[(String, ColumnType)] {
        &self.fetched
    }

    /// Returns the columns of the answer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Pick<'_>> {
        self.wanted.iter().map(|wanted| Pick {
            name: &wanted.name,
            kind: &wanted.kind,
            unit: wanted.unit.as_deref(),
            is_stored: wanted.signal.is_none(),
        })
    }

    /// Turns what was read of `rows` rows into the columns of the answer.
    pub(crate) fn finish(&self, fetched: Columns, rows: usize) -> Columns {
        let same = fetched.width() == self.wanted.len()
            && fetched
                .iter()
                .zip(&self.wanted)
                .all(|((name, _), wanted)| name == wanted.name);
        if same {
            return fetched;
        }
        let column = |wanted: &Wanted| {
            let column = match &wanted.signal {
                Some(expression) => Column::Float(expression.evaluate(&fetched, rows)),
                None => fetched.get(&wanted.name).cloned().unwrap_or_default(),
            };
            (wanted.name.clone(), column)
        };
        // Names were taken once, and every column has a cell for each row.
        Columns::new(self.wanted.iter().map(column).collect()).unwrap_or_default()
    }
}

/// Tells why an expression cannot be computed from a table's columns.
pub(crate) fn check(source: &Source, expression: &Expression) -> Result<(), String> {
    for name in expression.columns() {
        match source.column(name) {
            Some((_, ColumnType::Int | ColumnType::Float)) => {}
            Some((_, kind)) => {
                return Err(format!("column `{name}` is {}, not a number", kind.noun()));
            }
            None => return Err(format!("there is no column `{name}`")),
        }
    }
    Ok(())
}
