//! What the rollups tell of a range.

use std::{ops::RangeInclusive, sync::Arc};

use crate::{
    history::{
        pages::{Pages, ReadError, current},
        range::{Axis, as_seconds},
    },
    store::{
        rollups::{self, BLOCK_ROWS, Block, Extremes, RECEIVED, UNIT_ROWS},
        rows::Selection,
    },
};

/// The columns whose rollups are read, each once: those to be shown, that of the axis, and those
/// that ranges are given of.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) names: Vec<String>,
    /// Place of the axis; beyond all where it needs none.
    pub(super) axis: usize,
    /// Place, first and last value of each range.
    limits: Vec<(usize, f64, f64)>,
}

impl Lines {
    pub(super) fn of(shown: &[String], axis: Axis, selection: &Selection) -> Self {
        let mut lines = Self {
            names: shown.to_vec(),
            axis: usize::MAX,
            limits: Vec::new(),
        };
        if axis != Axis::Seq {
            lines.axis = lines.place(axis.name());
        }
        let received = selection
            .received
            .map(|(from, to)| (as_seconds(from), as_seconds(to)));
        let limits = [
            (Axis::TestTime.name(), selection.test_time),
            (Axis::Time.name(), selection.time),
            (RECEIVED, received),
        ];
        for (name, limit) in limits {
            if let Some((from, to)) = limit {
                let place = lines.place(name);
                lines.limits.push((place, from, to));
            }
        }
        lines
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.names.iter().position(|known| known == name) {
            return place;
        }
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    /// Tells whether all rows of a block are chosen, or none; `None` where that must be read.
    pub(super) fn choose(&self, found: &[Extremes], rows: i64) -> Option<bool> {
        let mut all = true;
        for &(place, from, to) in &self.limits {
            let Some((least, greatest)) = found
                .get(place)
                .and_then(|line| line.least.zip(line.greatest))
            else {
                // Nothing but null and NaN, of which no range has any but one to infinity.
                return if to.is_finite() { Some(false) } else { None };
            };
            if greatest.0 < from || least.0 > to {
                // NaN lies above all numbers for PostgreSQL.
                return if to.is_finite() { Some(false) } else { None };
            }
            let values = found.get(place).map_or(0, |line| line.values);
            all &= values == rows && from <= least.0 && greatest.0 <= to;
        }
        all.then_some(true)
    }
}

/// Blocks of one level.
#[derive(Debug)]
pub(super) struct Stored {
    /// The units that are made, in order.
    pub(super) units: Vec<i64>,
    rows: i64,
    lines: Vec<Block>,
}

impl Stored {
    pub(super) async fn read(
        pages: &Pages,
        lines: &Lines,
        level: usize,
        units: RangeInclusive<i64>,
    ) -> Result<Self, ReadError> {
        let (source, names) = (Arc::clone(pages.source()), lines.names.clone());
        let rows = BLOCK_ROWS.get(level).copied().unwrap_or(UNIT_ROWS);
        let a_unit = UNIT_ROWS / rows;
        let blocks = units.start() * a_unit..=units.end() * a_unit + a_unit - 1;
        let read = pages.pool().run(move |connection| {
            current(connection, &source, |connection| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let units = rollups::made(connection, &source, units)?;
                let lines = if units.is_empty() {
                    Vec::new()
                } else {
                    rollups::blocks(connection, &source, level, &names, blocks)?
                };
                Ok(Self { units, rows, lines })
            })
        });
        read.await?.ok_or_else(|| pages.gone())
    }

    /// Returns every block that is made: its first and last `seq`, and what each column has.
    pub(super) fn blocks(&self, columns: usize) -> impl Iterator<Item = (i64, i64, Vec<Extremes>)> {
        let a_unit = UNIT_ROWS / self.rows;
        let numbers = self
            .units
            .iter()
            .flat_map(move |unit| unit * a_unit..(unit + 1) * a_unit);
        let mut lines = self.lines.iter().peekable();
        numbers.map(move |number| {
            let mut found = vec![Extremes::default(); columns];
            while let Some(line) = lines.next_if(|line| line.block <= number) {
                if let Some(found) = found.get_mut(line.column).filter(|_| line.block == number) {
                    *found = line.extremes;
                }
            }
            (number * self.rows + 1, (number + 1) * self.rows, found)
        })
    }
}
