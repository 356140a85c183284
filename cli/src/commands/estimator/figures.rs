//! Whether an estimator knows its errors: figures of its innovations, measured less predicted voltage.

use std::fmt::Write;

use super::run::Estimate;

/// The normal quantile of a two-sided band of 95 %.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// Sums over a run.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Figures {
    steps: usize,
    squares: f64,
    normalised: f64,
    normalised_squares: f64,
    products: f64,
    previous: Option<f64>,
    /// The newest estimate.
    pub(super) last: Option<Estimate>,
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows")]
impl Figures {
    pub(super) fn add(&mut self, estimate: &Estimate) {
        self.last = Some(estimate.clone());
        let Some((expected, variance)) = estimate.predicted else {
            return;
        };
        let innovation = estimate.row.voltage - expected;
        let normalised = innovation / variance.sqrt();
        self.steps += 1;
        self.squares += innovation * innovation;
        self.normalised += normalised;
        self.normalised_squares += normalised * normalised;
        self.products += self.previous.map_or(0.0, |previous| previous * normalised);
        self.previous = Some(normalised);
    }

    /// Mean of the normalised innovations squared: 1 for a filter that knows its errors.
    pub(super) fn nis(&self) -> f64 {
        self.normalised_squares / self.steps as f64
    }

    /// The band around [`Figures::nis`] that holds 95 % of such filters: chi-square quantiles after
    /// Wilson and Hilferty (1931), divided by the degrees of freedom.
    pub(super) fn nis_band(&self) -> (f64, f64) {
        let spread = 2.0 / (9.0 * self.steps as f64);
        let bound = |z: f64| (1.0 - spread + z * spread.sqrt()).powi(3);
        (bound(-QUANTILE), bound(QUANTILE))
    }

    /// Correlation of neighbouring normalised innovations: 0 for a filter that leaves nothing unexplained.
    pub(super) fn autocorrelation(&self) -> f64 {
        self.products / self.normalised_squares
    }

    /// The band around 0 that holds 95 % of uncorrelated series.
    pub(super) fn autocorrelation_band(&self) -> f64 {
        QUANTILE / (self.steps as f64).sqrt()
    }

    /// Root mean square of measured less predicted voltage, V.
    pub(super) fn rmse(&self) -> f64 {
        (self.squares / self.steps as f64).sqrt()
    }

    /// The figures as lines of a table; one line where the estimator predicts no voltage.
    pub(super) fn table(&self) -> String {
        if self.steps == 0 {
            return "  no voltage is predicted, so nothing tells how right it is\n".to_owned();
        }
        let (low, high) = self.nis_band();
        let within = |is: bool| if is { "within" } else { "outside" };
        let (nis, correlation) = (self.nis(), self.autocorrelation());
        let band = self.autocorrelation_band();
        let mut text = String::new();
        for (what, value, verdict) in [
            ("steps", self.steps.to_string(), String::new()),
            (
                "mean normalised innovation squared",
                format!("{nis:.4}"),
                format!(
                    "{} {low:.4} to {high:.4} (chi-square, 95 %)",
                    within((low..=high).contains(&nis))
                ),
            ),
            (
                "correlation of neighbouring innovations",
                format!("{correlation:.4}"),
                format!("{} ±{band:.4} (95 %)", within(correlation.abs() <= band)),
            ),
            (
                "rmse of predicted voltage",
                format!("{:.6} V", self.rmse()),
                String::new(),
            ),
        ] {
            // Writing into a text cannot fail.
            let _written = writeln!(text, "  {what:<40} {value:>14}  {verdict}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rovi_python::Belief;

    use super::*;
    use crate::commands::estimator::run::Row;

    fn figures(innovations: &[f64]) -> Figures {
        let mut figures = Figures::default();
        for &innovation in innovations {
            figures.add(&Estimate {
                row: Row {
                    number: 0,
                    time: 0.0,
                    current: 0.0,
                    voltage: 3.0 + innovation,
                    temperature: None,
                },
                belief: Belief::default(),
                predicted: Some((3.0, 0.25)),
            });
        }
        figures
    }

    #[test]
    fn figures_are_those_of_the_innovations() {
        let figures = figures(&[0.5, -0.5, 0.5, -0.5]);
        assert!((figures.nis() - 1.0).abs() < 1e-12);
        assert!((figures.autocorrelation() + 0.75).abs() < 1e-12);
        assert!((figures.rmse() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_band_is_that_of_chi_square() {
        // Quantiles of 100 degrees of freedom: 74.222 and 129.561.
        let (low, high) = figures(&[0.1; 100]).nis_band();
        assert!((low - 0.74222).abs() < 1e-3, "{low}");
        assert!((high - 1.29561).abs() < 1e-3, "{high}");
    }

    #[test]
    fn an_estimator_that_predicts_nothing_is_told_apart() {
        assert!(figures(&[]).table().contains("no voltage is predicted"));
    }
}
