//! Normally distributed numbers that are the same on every machine.

use rand::Rng;

/// Draws from the standard normal distribution (Box and Muller's method).
///
/// Logarithm and cosine come from `libm`, since those of the system differ in the last bit.
pub(super) fn gaussian(random: &mut impl Rng) -> f64 {
    // 1 - [0, 1) is never 0, whose logarithm is infinite.
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - random.random::<f64>()));
    radius * libm::cos(2.0 * std::f64::consts::PI * random.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn mean_and_variance_are_those_of_the_standard_normal_distribution() {
        let mut random = rand_chacha::ChaCha12Rng::seed_from_u64(3);
        let draws: Vec<f64> = (0..100_000).map(|_| gaussian(&mut random)).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.015, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
    }
}
