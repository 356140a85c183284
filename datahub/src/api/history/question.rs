//! Which rows and columns are asked for: the fields that all calls of history share.

use std::sync::Arc;

use diesel::PgConnection;
use rovi_common::{clock, http::Problem, name::BatteryName};

use super::{open::open, pairs::Pairs};
use crate::{
    history::{
        picks::Picks,
        range::{self, Axis},
    },
    hub::Hub,
    store::{
        intervals,
        rows::Selection,
        signals::Signal,
        source::{Of, Source},
        tables::ColumnType,
    },
};

/// Fields of every question.
#[expect(dead_code, reason = "documents the query; `Question::take` reads it")]
#[derive(Debug, utoipa::IntoParams)]
pub(crate) struct QuestionParams {
    /// `a..b`, both inclusive, either may be missing.
    #[param(example = "1..100")]
    seq: Option<String>,
    /// `a..b` in seconds.
    #[param(example = "0..3600")]
    test_time: Option<String>,
    /// `a..b` of battdat's column `time`: seconds since 1970, RFC 3339, or from now as `-5h`.
    #[param(example = "-5h..-1h")]
    time: Option<String>,
    /// `a..b` of when the hub took the rows: as `time`; numbers from 10^12 on are microseconds.
    received: Option<String>,
    /// Label of a named interval: from its first to its last row.
    interval: Option<String>,
    /// Begin of a range of `axis`.
    #[param(example = "-5h")]
    from: Option<String>,
    /// End of a range of `axis`.
    to: Option<String>,
    /// `time`, `received`, `test_time` or `seq`. Not given: `time` where the table has it, else
    /// `received`; for `every` and `max_points` the one that a range is given of, else `seq`.
    axis: Option<String>,
    /// Names of columns and signals, separated by commas.
    columns: Option<String>,
    /// One name, which may have commas; may stand many times.
    column: Option<String>,
    /// The epoch that the caller knows; 409 where it is over.
    epoch: Option<i64>,
}

/// What is asked for, as far as it can be told without the table.
#[derive(Debug)]
pub(super) struct Question {
    selection: Selection,
    interval: Option<String>,
    span: Option<String>,
    axis: Option<Axis>,
    names: Option<Vec<String>>,
    epoch: Option<i64>,
    now_us: i64,
}

impl Question {
    /// Takes the fields.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn take(pairs: &mut Pairs) -> Result<Self, Problem> {
        let now_us = clock::now_us();
        let mut selection = Selection::all();
        if let Some(text) = pairs.take("seq")? {
            let (first, last) = range::seq("seq", &text)?;
            selection.seq = first..=last;
        }
        if let Some(text) = pairs.take("test_time")? {
            selection.test_time = Some(range::numbers("test_time", &text)?);
        }
        if let Some(text) = pairs.take("time")? {
            selection.time = Some(range::seconds("time", &text, now_us)?);
        }
        if let Some(text) = pairs.take("received")? {
            selection.received = Some(range::microseconds("received", &text, now_us)?);
        }
        let axis = pairs.take("axis")?;
        let (from, to) = (pairs.take("from")?, pairs.take("to")?);
        let span = (from.is_some() || to.is_some())
            .then(|| format!("{}..{}", from.unwrap_or_default(), to.unwrap_or_default()));
        Ok(Self {
            selection,
            interval: pairs.take("interval")?,
            span,
            axis: axis.as_deref().map(Axis::parse).transpose()?,
            names: names(pairs)?,
            epoch: pairs.number("epoch")?,
            now_us,
        })
    }

    /// Looks the battery's table up, and narrows the rows to those of a named interval.
    ///
    /// # Errors
    /// As [`open`]'s; 404 where no rows are in an interval of this name.
    pub(super) async fn open(
        &mut self,
        hub: &Hub,
        battery: &BatteryName,
        of: Of,
    ) -> Result<(Arc<Source>, Vec<Signal>), Problem> {
        let opened = open(hub, battery, of, self.epoch).await?;
        let Some(label) = self.interval.take() else {
            return Ok(opened);
        };
        let (name, asked) = (battery.clone(), label.clone());
        let resolve =
            move |connection: &mut PgConnection| intervals::resolve(connection, &name, &asked);
        let Some((first, last)) = hub.pool.run(resolve).await? else {
            let detail = format!("{battery} has no interval `{label}` with rows");
            return Err(Problem::not_found(detail).at("interval"));
        };
        let seq = &self.selection.seq;
        self.selection.seq = first.max(*seq.start())..=last.min(*seq.end());
        Ok(opened)
    }

    /// Returns the rows that are asked for, now that the table is known.
    ///
    /// # Errors
    /// 400 where a range is of a column that the table lacks or that holds no numbers.
    pub(super) fn selection(&self, source: &Source) -> Result<Selection, Problem> {
        let mut selection = self.selection.clone();
        if let Some(span) = &self.span {
            match self.axis.unwrap_or(clock_axis(source)) {
                Axis::Seq => {
                    let (first, last) = range::seq("from..to", span)?;
                    let seq = &selection.seq;
                    selection.seq = first.max(*seq.start())..=last.min(*seq.end());
                }
                Axis::TestTime => selection.test_time = Some(range::numbers("from..to", span)?),
                Axis::Time => selection.time = Some(range::seconds("from..to", span, self.now_us)?),
                Axis::Received => {
                    selection.received = Some(range::microseconds("from..to", span, self.now_us)?);
                }
            }
        }
        if selection.test_time.is_some() {
            has_numbers(source, Axis::TestTime)?;
        }
        if selection.time.is_some() {
            has_numbers(source, Axis::Time)?;
        }
        Ok(selection)
    }

    /// Returns along what rows are put into intervals or buckets.
    ///
    /// # Errors
    /// 400 where the table has no such column.
    pub(super) fn axis(&self, source: &Source) -> Result<Axis, Problem> {
        let selection = &self.selection;
        let axis = match self.axis {
            Some(axis) => axis,
            None if self.span.is_some() => clock_axis(source),
            None if selection.time.is_some() => Axis::Time,
            None if selection.received.is_some() => Axis::Received,
            None if selection.test_time.is_some() => Axis::TestTime,
            None => Axis::Seq,
        };
        has_numbers(source, axis)?;
        Ok(axis)
    }

    /// Tells whether an axis was named.
    pub(super) fn names_axis(&self) -> bool {
        self.axis.is_some()
    }

    /// Tells whether columns were named.
    pub(super) fn names_columns(&self) -> bool {
        self.names.is_some()
    }

    /// Returns the columns that are asked for.
    ///
    /// # Errors
    /// 400 for a name that the table lacks.
    pub(super) fn picks(&self, source: &Source, signals: &[Signal]) -> Result<Picks, Problem> {
        Picks::new(source, signals, self.names.as_deref())
    }
}

/// The axis of moments: battdat's own where the battery has it.
pub(super) fn clock_axis(source: &Source) -> Axis {
    match source.time() {
        Some(ColumnType::Int | ColumnType::Float | ColumnType::Time) => Axis::Time,
        _ => Axis::Received,
    }
}

fn has_numbers(source: &Source, axis: Axis) -> Result<(), Problem> {
    let kind = match axis {
        Axis::Seq | Axis::Received => return Ok(()),
        Axis::Time => source.time(),
        Axis::TestTime => source.test_time(),
    };
    let (battery, name) = (&source.battery, axis.name());
    let detail = match (kind, axis) {
        (Some(ColumnType::Int | ColumnType::Float), _) | (Some(ColumnType::Time), Axis::Time) => {
            return Ok(());
        }
        (Some(other), _) => format!(
            "{battery}: column `{name}` is {}, not a number",
            other.noun()
        ),
        (None, Axis::Time) => {
            format!("{battery}: there is no column `time`; ask by received= instead")
        }
        (None, _) => format!("{battery}: there is no column `{name}`"),
    };
    Err(Problem::bad_request(detail).at(name))
}

/// Takes the names of columns: one list with commas, and names that stand alone.
fn names(pairs: &mut Pairs) -> Result<Option<Vec<String>>, Problem> {
    let list = pairs.take("columns")?;
    let alone = pairs.take_all("column");
    if list.is_none() && alone.is_empty() {
        return Ok(None);
    }
    let list = list.unwrap_or_default();
    let list = list
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    Ok(Some(list.chain(alone).collect()))
}
