//! A file that is played again and again, in time that always rises.

use anyhow::{Context, Result, ensure};
use rovi_battdat::Table;
use rovi_common::rows::{Column, Columns, Value};

const TIME: &str = "test_time";
/// Columns that count on from round to round, as the time does.
const CYCLE: &str = "cycle_number";
/// The most rows that are held in memory.
const MOST_ROWS: usize = 5_000_000;

/// The rows of a table, held in memory.
#[derive(Debug)]
pub struct Recording {
    rows: Columns,
    /// Time of each row since the first one, s; rises from row to row.
    times: Vec<f64>,
    /// How long one round takes, s.
    round_s: f64,
    /// Cycles of one round.
    round_cycles: i64,
}

impl Recording {
    /// Reads a table.
    ///
    /// # Errors
    /// The table has no rows, too many, or no `test_time`; or it cannot be read.
    pub fn read(table: &Table) -> Result<Self> {
        let count = table.rows();
        ensure!(
            count <= MOST_ROWS,
            "the file has {count} rows, at most {MOST_ROWS} can be played"
        );
        Self::new(table.read(0..count)?)
    }

    fn new(rows: Columns) -> Result<Self> {
        ensure!(rows.rows() > 0, "the file has no rows to play");
        let column = rows
            .get(TIME)
            .with_context(|| format!("the file has no column `{TIME}` to play it by"))?;
        let measured: Vec<Option<f64>> = (0..rows.rows()).map(|row| column.number(row)).collect();
        let usual = usual_step(&measured);
        let times = rising(&measured, usual);
        let round_s = times.last().copied().unwrap_or_default() + usual;
        let round_cycles = rows.get(CYCLE).map_or(0, cycles);
        Ok(Self {
            rows,
            times,
            round_s,
            round_cycles,
        })
    }

    /// Returns `count` rows from the row `first` on, counted over all rounds.
    ///
    /// # Errors
    /// Never for rows that a file can hold.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "rounds of a process, and rows within a file in memory"
    )]
    pub fn rows(&self, first: u64, count: usize) -> Result<Columns> {
        let length = self.times.len() as u64;
        let mut out = Columns::default();
        for place in first..first + count as u64 {
            let (round, row) = (place / length, (place % length) as usize);
            let within = self.times.get(row).copied().unwrap_or_default();
            let time = self.round_s * round as f64 + within;
            let cells = self.rows.row(row).map(|(name, value)| {
                let value = match (name, value) {
                    (TIME, _) => Value::Float(time),
                    (CYCLE, Value::Int(cycle)) => {
                        Value::Int(cycle + self.round_cycles * round as i64)
                    }
                    (_, value) => value,
                };
                (name.to_owned(), value)
            });
            out.push_row(cells.collect())?;
        }
        Ok(out)
    }
}

/// Returns the median of the steps forward, s; 1 where there is none.
fn usual_step(times: &[Option<f64>]) -> f64 {
    let known = || times.iter().copied().flatten();
    let steps = known()
        .zip(known().skip(1))
        .map(|(before, time)| time - before);
    let mut steps: Vec<f64> = steps
        .filter(|step| *step > 0.0 && step.is_finite())
        .collect();
    steps.sort_unstable_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.0)
}

/// Counts time from the first row; a row without time, or that falls back, follows a usual step later.
fn rising(times: &[Option<f64>], usual: f64) -> Vec<f64> {
    let (mut passed, mut before) = (0.0, None::<f64>);
    let time = |time: &Option<f64>| {
        if let Some(before) = before {
            let step: f64 = time.map_or(0.0, |time| time - before);
            passed += if step > 0.0 && step.is_finite() {
                step
            } else {
                usual
            };
        }
        before = time.or(before);
        passed
    };
    times.iter().map(time).collect()
}

/// Returns how far cycle numbers must be moved for the next round to follow.
fn cycles(column: &Column) -> i64 {
    let numbers = (0..column.len()).filter_map(|row| match column.get(row) {
        Value::Int(cycle) => Some(cycle),
        _ => None,
    });
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for number in numbers {
        (least, most) = (least.min(number), most.max(number));
    }
    most.checked_sub(least).map_or(0, |span| span + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(times: &[Option<f64>], cycles: &[i64]) -> Recording {
        let cycles = cycles.iter().copied().map(Some).collect();
        let columns = vec![
            (TIME.to_owned(), Column::Float(times.to_vec())),
            (CYCLE.to_owned(), Column::Int(cycles)),
        ];
        Recording::new(Columns::new(columns).unwrap()).unwrap()
    }

    fn numbers(rows: &Columns, name: &str) -> Vec<f64> {
        let column = rows.get(name).unwrap();
        (0..rows.rows())
            .map(|row| column.number(row).unwrap())
            .collect()
    }

    #[test]
    fn time_and_cycles_go_on_where_the_file_begins_again() {
        let played = recording(
            &[Some(100.0), Some(101.0), Some(103.0), Some(104.0)],
            &[3, 3, 4, 4],
        );
        let rows = played.rows(2, 5).unwrap();
        assert_eq!(numbers(&rows, TIME), [3.0, 4.0, 5.0, 6.0, 8.0]);
        assert_eq!(numbers(&rows, CYCLE), [4.0, 4.0, 5.0, 5.0, 6.0]);
    }

    #[test]
    fn time_rises_where_a_file_falls_back_or_has_none() {
        let played = recording(&[Some(0.0), Some(2.0), Some(0.0), None, Some(2.0)], &[0; 5]);
        let rows = played.rows(0, 5).unwrap();
        assert_eq!(numbers(&rows, TIME), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn a_file_without_time_is_refused_by_name() {
        let columns = vec![("voltage".to_owned(), Column::Float(vec![Some(3.7)]))];
        let error = Recording::new(Columns::new(columns).unwrap()).unwrap_err();
        assert!(error.to_string().contains("`test_time`"), "{error}");
    }
}
