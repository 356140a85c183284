//! What can be wrong with a battery, its sensors or its link.

use std::collections::VecDeque;

use anyhow::Result;
use rovi_common::rows::{Column, Columns};

use super::Source;
use crate::simulation::Damage;

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The voltage stays what it was.
    StuckSensor,
    /// The cell loses a fifth of its capacity at once.
    CapacityLoss,
    /// The cell's resistances rise by half at once.
    ResistanceJump,
    /// Rows of some time are never sent.
    Gap,
    /// Each twentieth row is sent ten rows late.
    Late,
}

const LOST: Damage = Damage {
    capacity: 0.8,
    resistance: 1.0,
};
const RISEN: Damage = Damage {
    capacity: 1.0,
    resistance: 1.5,
};
/// One row in so many is late, and by how many rows.
const LATE_EACH: u64 = 20;
const LATE_BY: u64 = 10;
const VOLTAGE: &str = "voltage";

/// A fault, and from which row on it shows.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is wrong.
    pub fault: Fault,
    /// The first row that it concerns, from 0.
    pub from: u64,
    /// How many rows a [`Fault::Gap`] lasts.
    pub rows: u64,
}

/// Does to the rows of a source what its fault says.
#[derive(Debug)]
pub struct Trouble {
    source: Source,
    plan: Option<Plan>,
    /// Rows taken from the source.
    taken: u64,
    /// The voltage that a stuck sensor shows.
    stuck: Option<f64>,
    /// Late rows, with the row before which each leaves.
    late: VecDeque<(u64, Columns)>,
}

impl Trouble {
    /// Puts a fault, or none, behind a source.
    pub fn new(source: Source, plan: Option<Plan>) -> Self {
        Self {
            source,
            plan,
            taken: 0,
            stuck: None,
            late: VecDeque::new(),
        }
    }

    /// Takes the next `count` rows and returns what of them is sent now.
    ///
    /// # Errors
    /// The source cannot go on.
    pub fn take(&mut self, count: usize) -> Result<Columns> {
        let Some(plan) = self.plan else {
            return self.source.take(count);
        };
        let mut sent = Columns::default();
        for _ in 0..count {
            if self.taken == plan.from {
                match plan.fault {
                    Fault::CapacityLoss => self.source.damage(LOST),
                    Fault::ResistanceJump => self.source.damage(RISEN),
                    _ => {}
                }
            }
            let row = self.source.take(1)?;
            let number = self.taken;
            self.taken += 1;
            if let Some(row) = self.pass(plan, number, row) {
                sent.append(row);
            }
            while self
                .late
                .front()
                .is_some_and(|(leaves, _)| *leaves <= number)
            {
                sent.append(self.late.pop_front().map(|late| late.1).unwrap_or_default());
            }
        }
        Ok(sent)
    }

    /// Returns the row as it is sent now, if it is.
    fn pass(&mut self, plan: Plan, number: u64, mut row: Columns) -> Option<Columns> {
        let Some(since) = number.checked_sub(plan.from) else {
            self.stuck = row.get(VOLTAGE).and_then(|voltage| voltage.number(0));
            return Some(row);
        };
        match plan.fault {
            Fault::StuckSensor => {
                row = with_voltage(row, self.stuck);
            }
            Fault::Gap if since < plan.rows => return None,
            Fault::Late if since % LATE_EACH == 0 => {
                self.late.push_back((number + LATE_BY, row));
                return None;
            }
            _ => {}
        }
        Some(row)
    }
}

fn with_voltage(row: Columns, voltage: Option<f64>) -> Columns {
    let mut columns = row.into_vec();
    for (name, column) in &mut columns {
        if name == VOLTAGE {
            *column = Column::Float(vec![voltage]);
        }
    }
    Columns::new(columns).expect("names and lengths are as they were")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{self, Simulation};

    const FROM: u64 = 100;

    fn rows(fault: Option<Fault>, batches: &[usize]) -> Columns {
        let simulation = Simulation::new(simulation::Plan::default());
        let plan = fault.map(|fault| Plan {
            fault,
            from: FROM,
            rows: 30,
        });
        let mut trouble = Trouble::new(Source::Simulated(Box::new(simulation)), plan);
        let mut all = Columns::default();
        for &count in batches {
            all.append(trouble.take(count).unwrap());
        }
        all
    }

    fn numbers(rows: &Columns, name: &str) -> Vec<f64> {
        let column = rows.get(name).unwrap();
        (0..rows.rows())
            .map(|row| column.number(row).unwrap())
            .collect()
    }

    #[test]
    fn rows_do_not_depend_on_how_many_are_taken_at_a_time() {
        for fault in [
            None,
            Some(Fault::Late),
            Some(Fault::StuckSensor),
            Some(Fault::CapacityLoss),
        ] {
            assert_eq!(
                rows(fault, &[200]),
                rows(fault, &[1, 99, 3, 97]),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_stuck_sensor_shows_its_last_voltage_from_the_row_on() {
        let [stuck, sound] = [Some(Fault::StuckSensor), None].map(|fault| rows(fault, &[200]));
        let (stuck, sound) = (numbers(&stuck, VOLTAGE), numbers(&sound, VOLTAGE));
        assert_eq!(stuck[..100], sound[..100]);
        assert_eq!(stuck[100..], [sound[99]; 100]);
    }

    #[test]
    fn a_gap_leaves_out_its_rows_and_time_goes_on() {
        let times = numbers(&rows(Some(Fault::Gap), &[200]), "test_time");
        assert_eq!(times.len(), 170);
        assert_eq!(times[99..101], [99.0, 130.0]);
    }

    #[test]
    fn late_rows_come_ten_rows_later_and_none_is_lost() {
        let times = numbers(&rows(Some(Fault::Late), &[131]), "test_time");
        assert_eq!(times[99..102], [99.0, 101.0, 102.0]);
        assert_eq!(times[109..112], [110.0, 100.0, 111.0]);
        assert_eq!(times.len(), 131);
    }

    #[test]
    fn damage_begins_with_its_row() {
        for (fault, truth, factor) in [
            (Fault::CapacityLoss, "true_capacity", 0.8),
            (Fault::ResistanceJump, "true_r0", 1.5),
        ] {
            let truth = numbers(&rows(Some(fault), &[200]), truth);
            let change = truth[100] / truth[99];
            assert!((change - factor).abs() < 1e-3, "{fault:?}: {change}");
        }
    }
}
