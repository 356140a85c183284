//! Steps per second of processor time of this project's filters beside those of other crates, over the same rows and
//! cell of four states. One JSON line for each. `docs/BENCHMARKS.md` says what is unlike.

mod cell;
mod ours;
mod theirs;

use std::{hint::black_box, time::Duration};

use cell::Row;
use cpu_time::ThreadTime;
use ours::Ours;
use serde_json::json;

/// How long each is measured, and how often, in turn; the median counts.
const MEASURED: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;
/// Rows between two looks at the clock.
const ROWS: u32 = 4096;

struct Runner {
    name: &'static str,
    /// Which of ours it is compared with.
    against: &'static str,
    step: Box<dyn FnMut(Row) -> f64>,
    row: u32,
    rates: Vec<f64>,
}

fn main() {
    let our = |filter: &'static str| {
        let mut ours = Ours::new(filter);
        Box::new(move |row| ours.step(row)) as Box<dyn FnMut(Row) -> f64>
    };
    let runner = |name, against, step| Runner {
        name,
        against,
        step,
        row: 1,
        rates: Vec::new(),
    };
    let mut runners = vec![
        runner("rovi ukf", "", our("ukf")),
        runner("rovi square_root_ukf", "", our("square_root_ukf")),
        runner("rovi ekf", "", our("ekf")),
        runner("numeris Ukf", "rovi ukf", Box::new(theirs::numeris_ukf())),
        runner(
            "kfilter UnscentedKalman",
            "rovi ukf",
            Box::new(theirs::kfilter_ukf()),
        ),
        runner(
            "minikalman unscented",
            "rovi ukf",
            Box::new(theirs::minikalman_ukf()),
        ),
        runner(
            "numeris SrUkf",
            "rovi square_root_ukf",
            Box::new(theirs::numeris_square_root()),
        ),
        runner("numeris Ekf", "rovi ekf", Box::new(theirs::numeris_ekf())),
        runner(
            "adskalman, linear",
            "rovi ekf",
            Box::new(theirs::adskalman_linear()),
        ),
    ];
    // That they filter alike shows in the charge after the first 3000 rows.
    for runner in &mut runners {
        let soc = (0..3000).fold(0.0, |_, _| runner.next());
        println!(
            "{}",
            json!({"name": runner.name, "soc_after_3000_rows": soc})
        );
    }
    for _ in 0..ROUNDS {
        runners.iter_mut().for_each(Runner::measure);
    }
    let ours: Vec<(&str, f64)> = runners
        .iter_mut()
        .map(|one| (one.name, one.median()))
        .collect();
    for runner in &mut runners {
        let rate = runner.median();
        let ratio = ours
            .iter()
            .find(|(name, _)| *name == runner.against)
            .map(|(_, ours)| ours / rate);
        println!(
            "{}",
            json!({"name": runner.name, "steps_per_s": rate.round(), "against": runner.against, "ours_over_theirs": ratio})
        );
    }
}

impl Runner {
    fn next(&mut self) -> f64 {
        let soc = (self.step)(black_box(cell::row(self.row)));
        self.row += 1;
        black_box(soc)
    }

    fn measure(&mut self) {
        let (begun, first) = (ThreadTime::now(), self.row);
        while begun.elapsed() < MEASURED {
            for _ in 0..ROWS {
                self.next();
            }
        }
        self.rates
            .push(f64::from(self.row - first) / begun.elapsed().as_secs_f64());
    }

    fn median(&mut self) -> f64 {
        self.rates.sort_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}
