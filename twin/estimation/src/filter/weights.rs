//! Spread and weights of sigma points over state, process noise and sensor noise.
//!
//! `L = 2n + 1` columns of the augmented root: state, process noise, sensor noise.
//! `c = alpha^2 (L + kappa)`, `gamma = sqrt(c)`, `lambda = c - L`; weights `Wm_0 = lambda / c`,
//! `Wc_0 = Wm_0 + 1 - alpha^2 + beta`, `W = 1 / (2c)` for all other points.
//!
//! Source: Wan and van der Merwe, "The Unscented Kalman Filter", in Haykin (ed.), *Kalman Filtering and Neural
//! Networks* (2001), section 7.3.

/// Spread and weights of the sigma points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    /// `gamma`.
    pub(crate) spread: f64,
    /// `W`.
    pub(crate) other: f64,
    /// `Wc_0 + 2 W`: the centre and the sensor-noise points, which share the centre's state.
    pub(super) centre_and_sensor: f64,
    /// `Wc_0`.
    pub(super) centre: f64,
    /// Whether sums are Moirae's: see `plain.rs`.
    pub(super) is_plain: bool,
}

impl Weights {
    /// The weights for `n` states; `kappa` is `None` for Moirae's "automatic", `3 - L`.
    ///
    /// `alpha` must lie in `[0.001, 1]` and `L + kappa` be positive: documents are checked for both.
    pub(crate) fn new(n: usize, alpha: f64, kappa: Option<f64>, beta: f64) -> Self {
        let columns = augmented_columns(n);
        let kappa = kappa.unwrap_or(3.0 - columns);
        let c = alpha * alpha * (columns + kappa);
        let centre_mean = (c - columns) / c;
        let centre = centre_mean + 1.0 - alpha * alpha + beta;
        let other = 1.0 / (2.0 * c);
        Self {
            spread: alpha * (columns + kappa).sqrt(),
            other,
            centre_and_sensor: centre + 2.0 * other,
            centre,
            is_plain: false,
        }
    }

    /// The same weights, with sums that are Moirae's to the last digit.
    pub(crate) fn plain(self) -> Self {
        Self {
            is_plain: true,
            ..self
        }
    }
}

/// `L = 2n + 1`.
#[expect(clippy::cast_precision_loss, reason = "at most 81")]
pub(crate) fn augmented_columns(n: usize) -> f64 {
    (2 * n + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_weights_are_those_of_moirae() {
        let weights = Weights::new(4, 1.0, Some(0.0), 2.0);
        assert!((weights.spread - 3.0).abs() < 1e-15);
        assert!((weights.other - 1.0 / 18.0).abs() < 1e-16);
        assert!((weights.centre_and_sensor - (2.0 + 1.0 / 9.0)).abs() < 1e-15);
    }
}
