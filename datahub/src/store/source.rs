//! What history is read from: a battery's rows, or what one of its estimators said.

use std::collections::BTreeMap;

use diesel::PgConnection;
use rovi_common::name::{BatteryName, EstimatorName};

use super::{
    StoreError,
    batteries::{self, Line},
    columns::{self, Meaning},
    estimates,
    statement::Statement,
    tables::{self, ColumnType},
};

/// Which of a battery's tables is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// `battery."<name>"`
    Rows,
    /// `estimates."<name>"`, the lines of one estimator in the present epoch.
    Estimates(EstimatorName),
}

/// A table as it was at one moment, and its battery's line then.
#[derive(Debug, Clone)]
pub struct Source {
    /// The battery.
    pub battery: BatteryName,
    /// The battery's line.
    pub line: Line,
    of: Of,
    columns: Vec<(String, ColumnType)>,
    /// What the columns of rows mean, where it is known.
    meanings: BTreeMap<String, Meaning>,
    /// Types of the columns that ranges are asked by.
    time: Option<ColumnType>,
    test_time: Option<ColumnType>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such battery.
    #[error("No such dataset: {0}")]
    NoBattery(BatteryName),
    /// Somebody dropped the table.
    #[error("{0}: its table is missing or has no columns any more")]
    NoTable(BatteryName),
    /// PostgreSQL did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<diesel::result::Error> for SourceError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Source {
    /// Looks up a battery's table. One that has no rows yet has no columns.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn open(
        connection: &mut PgConnection,
        battery: &BatteryName,
        of: &Of,
    ) -> Result<Self, SourceError> {
        let Some(line) = batteries::find(connection, battery.as_str())? else {
            return Err(SourceError::NoBattery(battery.clone()));
        };
        let table = tables::load(connection, &line)?;
        if line.form != 0 && table.columns().is_empty() {
            return Err(SourceError::NoTable(battery.clone()));
        }
        let kind = |name: &str| {
            let found = table.columns().iter().find(|(known, _)| known == name);
            found.map(|(_, kind)| kind.clone())
        };
        let meanings = match of {
            Of::Rows => {
                let names = table.columns().iter().map(|(name, _)| name.as_str());
                columns::of_battery(connection, &line, names)?
            }
            Of::Estimates(_) => BTreeMap::new(),
        };
        Ok(Self {
            meanings,
            time: kind("time"),
            test_time: match of {
                Of::Rows => kind("test_time"),
                // The table's own.
                Of::Estimates(_) => Some(ColumnType::Float),
            },
            columns: match of {
                Of::Rows => table.columns().to_vec(),
                Of::Estimates(_) => estimates::columns(connection, battery)?,
            },
            of: of.clone(),
            battery: battery.clone(),
            line,
        })
    }

    /// Returns the columns besides `seq`, `received` and `segment`, in the order of the table.
    pub fn columns(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// Finds a column.
    pub fn column(&self, name: &str) -> Option<&(String, ColumnType)> {
        self.columns.iter().find(|(known, _)| known == name)
    }

    /// Returns a column's unit, where it is known.
    pub fn unit(&self, name: &str) -> Option<&str> {
        self.meanings.get(name)?.unit.as_deref()
    }

    /// Returns the type of the battery's column `time`, which estimates are joined to.
    pub fn time(&self) -> Option<&ColumnType> {
        self.time.as_ref()
    }

    /// Returns the type of the column `test_time`.
    pub fn test_time(&self) -> Option<&ColumnType> {
        self.test_time.as_ref()
    }

    /// Tells whether rows of the battery are read, not estimates.
    pub fn is_rows(&self) -> bool {
        self.of == Of::Rows
    }

    /// Tells whether the table was never made.
    pub(super) fn is_empty(&self) -> bool {
        self.line.form == 0 || (!self.is_rows() && self.columns.is_empty())
    }

    /// Tells whether the battery is still the one of this source: not deleted, no new epoch.
    ///
    /// # Errors
    /// PostgreSQL is away or refuses.
    pub fn is_current(&self, connection: &mut PgConnection) -> Result<bool, StoreError> {
        let line = batteries::find(connection, &self.line.name)?;
        Ok(line.is_some_and(|line| (line.id, line.epoch) == (self.line.id, self.line.epoch)))
    }

    /// Tells whether [`Self::is_current`] and the table has no other columns than it had.
    ///
    /// # Errors
    /// PostgreSQL is away or refuses.
    pub(super) fn has_its_form(&self, connection: &mut PgConnection) -> Result<bool, StoreError> {
        let of = |line: &Line| (line.id, line.epoch, line.form);
        let line = batteries::find(connection, &self.line.name)?;
        Ok(line.as_ref().map(of) == Some(of(&self.line)))
    }

    /// Reads which row is the first now. Asked after rows were read, it tells of all that were
    /// gone by then: it is moved before they go.
    ///
    /// # Errors
    /// PostgreSQL is away or refuses.
    pub fn first_seq_now(&self, connection: &mut PgConnection) -> Result<i64, StoreError> {
        let line = batteries::find(connection, &self.line.name)?;
        Ok(line.map_or(self.line.first_seq, |line| line.first_seq))
    }

    /// Adds `FROM` and the condition that chooses the lines. `own` is the table that is read; its
    /// rows' times stand in [`Source::times`].
    pub(super) fn from(&self, statement: Statement) -> Statement {
        let battery = &self.line.name;
        match &self.of {
            Of::Rows => statement
                .sql(" FROM ")
                .battery(battery)
                .sql(" own WHERE true"),
            Of::Estimates(estimator) => statement
                .sql(" FROM ")
                .estimates(&self.battery)
                .sql(" own LEFT JOIN ")
                .battery(battery)
                .sql(" r ON r.seq = own.seq WHERE own.estimator = ")
                .text(estimator.as_str())
                .sql(" AND own.epoch = ")
                .long(self.line.epoch),
        }
    }

    /// Begins the name of a column of the battery's rows: estimates are joined to them.
    pub(super) fn times(&self) -> &'static str {
        match self.of {
            Of::Rows => "own.",
            Of::Estimates(_) => "r.",
        }
    }
}
