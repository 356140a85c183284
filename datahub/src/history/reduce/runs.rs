//! A range of rows as runs of consecutive rows with their extremes.

use std::{ops::RangeInclusive, sync::Arc};

use rovi_common::http::Problem;

use super::stored::{Lines, Stored};
use crate::{
    history::{
        pages::{Pages, ReadError},
        picks::Picks,
        range::{Axis, as_seconds},
        roller::Roller,
    },
    store::{
        rollups::{self, BLOCK_ROWS, Extremes, UNIT_ROWS},
        rows::Selected,
    },
};

/// Consecutive rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// First `seq`.
    pub(super) first: i64,
    /// Last `seq`.
    pub(super) last: i64,
    /// Where it begins on the axis; none where its rows have no value there.
    pub(super) at: Option<f64>,
    /// What each numeric column has.
    pub(super) extremes: Vec<Extremes>,
}

/// How a range is cut: along which axis, and which columns count.
#[derive(Debug)]
pub(super) struct Cut {
    axis: Axis,
    /// The columns that count, and that of the axis.
    picks: Arc<Picks>,
    names: Vec<String>,
    /// Whether rollups can tell of all the columns.
    is_stored: bool,
}

/// A part of a range, in the order of `seq`.
enum Part {
    Made(Run),
    /// First and last `seq` of rows that must be read.
    Rows(i64, i64),
}

impl Cut {
    pub(super) fn new(pages: &Pages, axis: Axis) -> Result<Self, Problem> {
        let source = pages.source();
        if axis == Axis::Time && !source.is_rows() {
            let detail = "estimates are reduced along seq, test_time or received";
            return Err(Problem::bad_request(detail).at("axis"));
        }
        let mut picks = pages.picks().numeric();
        let names: Vec<String> = picks.iter().map(|pick| pick.name.to_owned()).collect();
        let is_stored =
            source.is_rows() && !names.is_empty() && picks.iter().all(|pick| pick.is_stored);
        if let Some(column) = source.column(axis.name()) {
            picks.add_column(column);
        }
        Ok(Self {
            axis,
            picks: Arc::new(picks),
            names,
            is_stored,
        })
    }

    /// Returns how many columns are to be shown; without any, the rows' numbers are.
    pub(super) fn columns(&self) -> usize {
        self.names.len().max(1)
    }

    /// Cuts a range into `wanted` runs or more.
    pub(super) async fn runs(
        &self,
        mut pages: Pages,
        roller: &Roller,
        wanted: usize,
    ) -> Result<Vec<Run>, ReadError> {
        let (first, last) = pages.bounds().await?;
        let count = last.saturating_sub(first).saturating_add(1);
        let rows_a_run = count / i64::try_from(wanted).unwrap_or(i64::MAX).max(1);
        let level = BLOCK_ROWS.iter().rposition(|&rows| rows <= rows_a_run);
        let parts = match level {
            Some(level) if self.is_stored => {
                self.parts(&pages, roller, (first, last), level).await?
            }
            _ => vec![Part::Rows(first, last)],
        };
        let mut runs = Vec::new();
        for part in parts {
            match part {
                Part::Made(run) => runs.push(run),
                Part::Rows(first, last) => {
                    let mut pages = pages.within(first..=last, Arc::clone(&self.picks));
                    while let Some(page) = pages.next().await? {
                        self.cut_page(&page, rows_a_run.max(1), &mut runs);
                    }
                }
            }
        }
        Ok(runs)
    }

    /// Cuts a page into runs of so many rows.
    fn cut_page(&self, page: &Selected, rows_a_run: i64, runs: &mut Vec<Run>) {
        let columns: Vec<_> = self
            .names
            .iter()
            .map(|name| page.columns.get(name))
            .collect();
        let axis = page.columns.get(self.axis.name());
        let mut run: Option<(i64, Run)> = None;
        for (row, &seq) in page.seq.iter().enumerate() {
            let number = seq / rows_a_run;
            if run.as_ref().is_none_or(|(known, _)| *known != number) {
                runs.extend(run.take().map(|(_, run)| run));
            }
            let (_, run) = run.get_or_insert_with(|| (number, Run::empty(self.columns())));
            run.first = run.first.min(seq);
            run.last = seq;
            run.at = run.at.or_else(|| match self.axis {
                Axis::Seq => Some(as_number(seq)),
                Axis::Received => page.received.get(row).copied().flatten().map(as_seconds),
                Axis::Time | Axis::TestTime => axis
                    .and_then(|axis| rollups::number(axis, row))
                    .filter(|at| at.is_finite()),
            });
            if columns.is_empty() {
                run.extremes
                    .iter_mut()
                    .for_each(|extremes| extremes.take(as_number(seq), seq));
            }
            for (column, extremes) in columns.iter().zip(&mut run.extremes) {
                if let Some(value) = column.and_then(|column| column.number(row)) {
                    extremes.take(value, seq);
                }
            }
        }
        runs.extend(run.map(|(_, run)| run));
    }

    /// Divides a range into blocks that rollups tell of and rows that must be read: at its edges,
    /// where no rollups are made, and where another range cuts through a block.
    async fn parts(
        &self,
        pages: &Pages,
        roller: &Roller,
        (first, last): (i64, i64),
        level: usize,
    ) -> Result<Vec<Part>, ReadError> {
        let source = pages.source();
        let units = (first - 1).div_euclid(UNIT_ROWS)..=(last - 1).div_euclid(UNIT_ROWS);
        let complete = source.line.last_seq / UNIT_ROWS;
        let wanted = units.clone().filter(|unit| *unit < complete).count();
        let lines = Lines::of(&self.names, self.axis, pages.selection());
        let stored = Stored::read(pages, &lines, level, units).await?;
        if stored.units.len() < wanted {
            roller.want(&source.battery);
        }
        Ok(self.divide(&stored, &lines, first..=last))
    }

    fn divide(&self, stored: &Stored, lines: &Lines, range: RangeInclusive<i64>) -> Vec<Part> {
        let (mut next, last) = range.clone().into_inner();
        let mut parts = Vec::new();
        for (begin, end, found) in stored.blocks(lines.names.len()) {
            let inside = range.contains(&begin) && range.contains(&end);
            let Some(chosen) = lines.choose(&found, end - begin + 1).filter(|_| inside) else {
                continue;
            };
            if next < begin {
                parts.push(Part::Rows(next, begin - 1));
            }
            next = end + 1;
            if chosen {
                parts.push(Part::Made(self.run(lines, found, (begin, end))));
            }
        }
        if next <= last {
            parts.push(Part::Rows(next, last));
        }
        parts
    }

    fn run(&self, lines: &Lines, mut found: Vec<Extremes>, (first, last): (i64, i64)) -> Run {
        let axis = found.get(lines.axis).and_then(|axis| axis.least);
        found.truncate(self.names.len());
        Run {
            first,
            last,
            at: match self.axis {
                Axis::Seq => Some(as_number(first)),
                _ => axis.map(|(at, _)| at).filter(|at| at.is_finite()),
            },
            extremes: found,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a place on an axis, not an identifier"
)]
fn as_number(seq: i64) -> f64 {
    seq as f64
}
