//! `rovicli estimator compare A B --data FILE`: two estimators over the same rows.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, ensure};

use super::{
    Common,
    check::{initialisation, left_out},
    figures::Figures,
    run::{Estimate, Run},
    source::Source,
};

/// Arguments of `rovicli estimator compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One estimator: a native document (JSON) or a Python script.
    first: PathBuf,
    /// The other.
    second: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// How far the means of the states that both have were apart, at most, in standard deviations of the first.
#[derive(Default)]
struct Apart {
    /// Estimates of one that the other has yet to make, by row.
    waiting: BTreeMap<usize, Estimate>,
    most: Vec<f64>,
    rows: usize,
}

#[expect(clippy::print_stdout, reason = "this is the output")]
pub(super) fn run(args: &Args) -> Result<()> {
    let mut source = Source::open(&args.common)?;
    let metadata = source.metadata.clone();
    let start = |path| Run::start(path, &args.common, metadata.as_deref());
    let (mut first, mut second) = (start(&args.first)?, start(&args.second)?);
    let (mut figures, mut other_figures) = (Figures::default(), Figures::default());
    let mut apart = Apart::default();
    while let Some(columns) = source.next()? {
        let estimates = first.take(&columns)?;
        for estimate in estimates {
            figures.add(&estimate);
            apart.waiting.insert(estimate.row.number, estimate);
        }
        for estimate in second.take(&columns)? {
            other_figures.add(&estimate);
            apart.add(&estimate, &common_states(&first, &second));
        }
    }
    ensure!(
        figures.last.is_some() && other_figures.last.is_some(),
        "no row of {} was used{}{}",
        args.common.data.display(),
        left_out(&first),
        left_out(&second)
    );
    for (run, figures) in [(&first, &figures), (&second, &other_figures)] {
        println!("{}{}", run.name, left_out(run));
        print!("{}", run.found().map(initialisation).unwrap_or_default());
        print!("{}", figures.table());
    }
    print!(
        "{}",
        side_by_side((&first, &figures), (&second, &other_figures), &apart)
    );
    Ok(())
}

/// The places in both of each state that both have.
fn common_states(first: &Run, second: &Run) -> Vec<(usize, usize)> {
    let place = |name: &String| second.states().iter().position(|other| other == name);
    let states = first.states().iter().enumerate();
    states
        .filter_map(|(at, name)| Some((at, place(name)?)))
        .collect()
}

impl Apart {
    fn add(&mut self, estimate: &Estimate, states: &[(usize, usize)]) {
        let number = estimate.row.number;
        let first = self.waiting.remove(&number);
        // Rows that one left out are compared with nothing.
        self.waiting.retain(|&row, _| row > number);
        let Some(first) = first else { return };
        self.most.resize(states.len(), 0.0);
        self.rows += 1;
        for (most, &(at, other)) in self.most.iter_mut().zip(states) {
            let values = (first.belief.mean.get(at), estimate.belief.mean.get(other));
            if let ((Some(mean), Some(other)), Some(deviation)) = (values, deviation(&first, at)) {
                *most = most.max((mean - other).abs() / deviation);
            }
        }
    }
}

fn deviation(estimate: &Estimate, state: usize) -> Option<f64> {
    let states = estimate.belief.mean.len();
    let variance = estimate.belief.covariance.get(state * (states + 1))?;
    Some(variance.sqrt())
}

fn side_by_side(first: (&Run, &Figures), second: (&Run, &Figures), apart: &Apart) -> String {
    let shown = |(run, figures): (&Run, &Figures), name: &String| {
        let at = run.states().iter().position(|own| own == name);
        let last = figures.last.as_ref();
        let value = at
            .zip(last)
            .and_then(|(at, last)| Some((*last.belief.mean.get(at)?, deviation(last, at)?)));
        value.map_or_else(
            || "-".to_owned(),
            |(mean, sd)| format!("{mean:.6e} ± {sd:.2e}"),
        )
    };
    let own = first.0.states().iter();
    let others = second
        .0
        .states()
        .iter()
        .filter(|name| !first.0.states().contains(name));
    let mut distances = common_states(first.0, second.0)
        .into_iter()
        .zip(&apart.most)
        .peekable();
    let mut lines = vec![format!(
        "{:<32} {:>26} {:>26} {:>14}\n",
        "state at the end", first.0.name, second.0.name, "most apart, sd"
    )];
    for (at, name) in own.chain(others).enumerate() {
        let distance = distances.next_if(|((place, _), _)| *place == at);
        let distance = distance.map_or_else(|| "-".to_owned(), |(_, most)| format!("{most:.2e}"));
        let (one, other) = (shown(first, name), shown(second, name));
        lines.push(format!("{name:<32} {one:>26} {other:>26} {distance:>14}\n"));
    }
    lines.push(format!("{} rows were compared\n", apart.rows));
    lines.concat()
}
