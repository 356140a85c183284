//! The filters on systems whose exact answer is known.

use super::belief::Belief;
use super::{Extended, Measured, Noise, SquareRoot, System, Unscented, Weights};
use crate::matrix::{Dynamic, Fixed};

/// `x_i' = 0.9 x_i + 0.05 x_{i+1}`, and the output is a sum with alternating signs.
struct Linear;

impl System for Linear {
    fn advance(&mut self, state: &mut [f64]) {
        for i in 0..state.len() {
            let next = state.get(i + 1).copied().unwrap_or(0.0);
            state[i] = 0.9 * state[i] + 0.05 * next;
        }
    }

    fn voltage(&mut self, state: &[f64]) -> f64 {
        let signed = |(i, x): (usize, &f64)| if i % 2 == 0 { *x } else { -0.5 * x };
        state.iter().enumerate().map(signed).sum()
    }
}

/// `x' = x + 0.1 sin x`, `y = x^2 + x`: curved in both.
struct Curved;

impl System for Curved {
    fn advance(&mut self, state: &mut [f64]) {
        for x in state {
            *x += 0.1 * libm::sin(*x);
        }
    }

    fn voltage(&mut self, state: &[f64]) -> f64 {
        state.iter().map(|x| x * x + x).sum()
    }
}

fn diagonal(n: usize, value: f64) -> Vec<f64> {
    (0..n * n)
        .map(|at| if at / n == at % n { value } else { 0.0 })
        .collect()
}

fn noise(n: usize) -> Noise {
    Noise {
        process: diagonal(n, 1e-3).into(),
        sensor: 1e-2,
    }
}

/// The textbook Kalman filter for [`Linear`], with matrices of its own.
fn exact(n: usize, outputs: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut unit = vec![0.0; n];
    let mut motion = vec![0.0; n * n];
    let mut slope = vec![0.0; n];
    for j in 0..n {
        unit.fill(0.0);
        unit[j] = 1.0;
        slope[j] = Linear.voltage(&unit);
        // `Linear` reads an entry before it is moved, so columns come one by one.
        Linear.advance(&mut unit);
        for i in 0..n {
            motion[i * n + j] = unit[i];
        }
    }
    let (mut mean, mut covariance) = (vec![1.0; n], diagonal(n, 0.5));
    for output in outputs {
        let at = |m: &[f64], i: usize, j: usize| m[i * n + j];
        let mean_after: Vec<f64> = (0..n)
            .map(|i| (0..n).map(|k| at(&motion, i, k) * mean[k]).sum())
            .collect();
        let mut predicted = noise(n).process.to_vec();
        for i in 0..n {
            for j in 0..n {
                for k in i..n.min(i + 2) {
                    for l in j..n.min(j + 2) {
                        predicted[i * n + j] +=
                            at(&motion, i, k) * at(&covariance, k, l) * at(&motion, j, l);
                    }
                }
            }
        }
        let cross: Vec<f64> = (0..n)
            .map(|i| (0..n).map(|k| at(&predicted, i, k) * slope[k]).sum())
            .collect();
        let variance = 1e-2 + (0..n).map(|i| cross[i] * slope[i]).sum::<f64>();
        let expected: f64 = (0..n).map(|i| slope[i] * mean_after[i]).sum();
        for i in 0..n {
            mean[i] = mean_after[i] + cross[i] / variance * (output - expected);
            for j in 0..n {
                covariance[i * n + j] = at(&predicted, i, j) - cross[i] * cross[j] / variance;
            }
        }
    }
    (mean, covariance)
}

fn far(belief: &Belief, (mean, covariance): &(Vec<f64>, Vec<f64>)) -> f64 {
    let ours = belief.mean.iter().chain(&belief.covariance);
    let theirs = mean.iter().chain(covariance);
    ours.zip(theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

fn measured(voltage: f64) -> Measured {
    Measured {
        voltage,
        counts: true,
    }
}

#[test]
fn every_filter_is_the_kalman_filter_on_a_linear_system_of_1_to_40_states() {
    let outputs: Vec<f64> = (0..60).map(|k| libm::sin(f64::from(k))).collect();
    for n in [1, 2, 3, 5, 8, 12, 13, 40] {
        let expected = exact(n, &outputs);
        let (mean, covariance) = (vec![1.0; n], diagonal(n, 0.5));
        // Narrow points have a negative weight at the centre, which the root must be downdated by.
        for alpha in [1.0, 0.5] {
            let weights = Weights::new(n, alpha, Some(0.0), 2.0);
            let mut plain = Unscented::new(weights, &mean, &covariance, noise(n)).unwrap();
            let mut root = SquareRoot::new(weights, &mean, &covariance, noise(n)).unwrap();
            for output in &outputs {
                let a = plain.step(&mut Linear, measured(*output)).unwrap();
                let b = root.step(&mut Linear, measured(*output)).unwrap();
                assert!((a.voltage - b.voltage).abs() < 1e-11 && !b.repaired);
                assert!((a.variance - b.variance).abs() < 1e-11);
            }
            assert!(far(plain.belief(), &expected) < 1e-11, "{n} states");
            assert!(far(root.belief(), &expected) < 1e-11, "{n} states, root");
        }
        let mut extended = Extended::new(&mean, &covariance, noise(n), true).unwrap();
        for output in &outputs {
            extended.step(&mut Linear, measured(*output)).unwrap();
        }
        assert!(
            far(extended.belief(), &expected) < 1e-9,
            "{n} states, extended"
        );
    }
}

#[test]
fn a_voltage_that_does_not_count_leaves_the_prediction() {
    let weights = Weights::new(3, 1.0, Some(0.0), 2.0);
    let (mean, covariance) = (vec![0.3, -0.2, 0.5], diagonal(3, 0.04));
    let mut plain = Unscented::new(weights, &mean, &covariance, noise(3)).unwrap();
    let mut root = SquareRoot::new(weights, &mean, &covariance, noise(3)).unwrap();
    for voltage in [1.0, -50.0, 1e9] {
        let nothing = Measured {
            voltage,
            counts: false,
        };
        let a = plain.step(&mut Curved, nothing).unwrap();
        let b = root.step(&mut Curved, nothing).unwrap();
        assert!((a.voltage - b.voltage).abs() < 1e-13);
        assert!((a.variance - b.variance).abs() < 1e-13);
    }
    let expected = (
        plain.belief().mean.clone(),
        plain.belief().covariance.clone(),
    );
    assert!(far(root.belief(), &expected) < 1e-13);
    assert!(plain.belief().covariance[0] > 0.04, "uncertainty grows");
    assert!(plain.belief().mean[0] < 1.0, "the voltage had no say");
}

#[test]
fn the_root_form_and_the_plain_form_agree_on_a_curved_system_with_every_weight() {
    for (alpha, kappa) in [(1.0, Some(0.0)), (0.1, Some(0.0)), (0.3, None)] {
        let weights = Weights::new(2, alpha, kappa, 2.0);
        let (mean, covariance) = (vec![0.3, -0.2], vec![0.04, 0.01, 0.01, 0.09]);
        let mut plain = Unscented::new(weights, &mean, &covariance, noise(2)).unwrap();
        let mut root = SquareRoot::new(weights, &mean, &covariance, noise(2)).unwrap();
        for k in 0..200 {
            let voltage = 0.2 * libm::sin(f64::from(k));
            plain.step(&mut Curved, measured(voltage)).unwrap();
            let step = root.step(&mut Curved, measured(voltage)).unwrap();
            assert!(!step.repaired);
        }
        let expected = (
            plain.belief().mean.clone(),
            plain.belief().covariance.clone(),
        );
        let off = far(root.belief(), &expected);
        assert!(off < 1e-9, "alpha {alpha}: {off}");
    }
}

#[test]
fn a_dimension_known_to_the_compiler_gives_the_bits_of_one_that_is_not() {
    let weights = Weights::new(4, 1.0, Some(0.0), 2.0);
    let (mean, covariance) = (vec![0.1, 0.2, -0.3, 0.4], diagonal(4, 0.02));
    let mut fixed = Unscented::new(weights, &mean, &covariance, noise(4)).unwrap();
    let mut dynamic = fixed.clone();
    for k in 0..50 {
        let now = measured(0.3 * libm::sin(f64::from(k)));
        let a = fixed.step_sized(Fixed::<4>, &mut Curved, now).unwrap();
        let b = dynamic.step_sized(Dynamic(4), &mut Curved, now).unwrap();
        assert_eq!(a.voltage.to_bits(), b.voltage.to_bits());
        assert_eq!(a.variance.to_bits(), b.variance.to_bits());
    }
    let bits = |filter: &Unscented| -> Vec<u64> {
        let belief = filter.belief();
        let values = belief.mean.iter().chain(&belief.covariance);
        values.map(|value| value.to_bits()).collect()
    };
    assert_eq!(bits(&fixed), bits(&dynamic));
}
