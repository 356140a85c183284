//! Health in the terms of users, against what was put in.

use rovi_estimation::{Estimator, Observation, Simulator};
use serde_json::json;

use crate::cells::{cell, diagonal, document_with};

/// A document whose OCV is flat enough for closed forms: charge and energy are counted from the rows alone.
fn estimator() -> Estimator {
    Estimator::new(&document_with(&json!({"nominal_capacity": 2.5})))
}

fn row(time: f64, current: f64, voltage: f64) -> Observation {
    Observation {
        time,
        current,
        voltage,
        temperature: None,
    }
}

#[test]
fn charge_energy_and_cycles_are_counted_to_the_digit() {
    let mut estimator = estimator();
    // One hour in at 1 A and 4 V, one hour out at 1 A and 3 V, by minutes; the current of a row holds until the next.
    for k in 0..=120_u32 {
        let (current, voltage) = if k < 60 { (1.0, 4.0) } else { (-1.0, 3.0) };
        estimator
            .observe(&row(60.0 * f64::from(k), current, voltage))
            .unwrap();
    }
    let health = estimator.health();
    assert!((health.charged_ah - 1.0).abs() < 1e-12 && (health.discharged_ah - 1.0).abs() < 1e-12);
    // The one interval across the change has the mean of both voltages.
    assert!(
        (health.charged_wh - (4.0 - 0.5 / 60.0)).abs() < 1e-12,
        "{health:?}"
    );
    assert!((health.discharged_wh - 3.0).abs() < 1e-12, "{health:?}");
    assert!((health.equivalent_full_cycles - 2.0 / 5.0).abs() < 1e-12);
}

#[test]
fn state_of_health_is_capacity_over_nominal_with_its_uncertainty() {
    let estimator = estimator();
    let health = estimator.health();
    assert!((health.state_of_health.value - 2.0 / 2.5).abs() < 1e-15);
    assert!((health.state_of_health.deviation.unwrap() - 0.1 / 2.5).abs() < 1e-15);
    let growth = health.resistance_growth.unwrap();
    assert!((growth.value - 1.0).abs() < 1e-15);
    assert!((growth.deviation.unwrap() - 0.005 / 0.05).abs() < 1e-12);
    assert_eq!(health.round_trip_efficiency, None);
    assert_eq!(health.self_discharge_per_month, None);
}

/// The simulated cell cycles between 30 % and 70 %; what it loses is resistance and hysteresis.
#[test]
fn round_trip_efficiency_is_that_of_a_closed_loop() {
    let mut estimator = estimator();
    let mut simulator = Simulator::new(&cell());
    let (mut into, mut out, mut previous) = (0.0, 0.0, None);
    for k in 0..=2880_u32 {
        // 0.4 of 2 A h in 0.8 h at 1 A: half a leg up, then whole legs down and up.
        let leg = (k + 144) / 288;
        let current = if leg.is_multiple_of(2) { 1.0 } else { -1.0 };
        let time = 10.0 * f64::from(k);
        let voltage = simulator.step(time, current, None).unwrap();
        estimator.observe(&row(time, current, voltage)).unwrap();
        if let Some((before, earlier)) = previous {
            let energy: f64 = before * 10.0 * f64::midpoint(earlier, voltage);
            if energy > 0.0 {
                into += energy;
            } else {
                out -= energy;
            }
        }
        previous = Some((current, voltage));
    }
    let efficiency = estimator.health().round_trip_efficiency.unwrap();
    assert!(
        (efficiency - out / into).abs() < 2e-3,
        "{efficiency}, by sums {}",
        out / into
    );
    assert!((0.9..0.99).contains(&efficiency));
}

#[test]
fn self_discharge_shows_at_rest_with_its_uncertainty() {
    // Only a filter that lets the charge wander without a current can see it leak.
    let noise = diagonal(&[1e-9, 1e-8, 1e-13]);
    for days in [1_u32, 2, 4, 8] {
        let mut estimator =
            Estimator::new(&document_with(&json!({"transient_process_noise": noise})));
        let mut simulator = Simulator::new(&cell());
        assert!(estimator.health().self_discharge_per_month.is_none());
        // 2 % of the capacity a day flow inside the cell, unseen; they turn the hysteresis, too.
        let leak = 0.02 * 2.0 / 24.0;
        for k in 0..days * 1440 {
            let time = 60.0 * f64::from(k);
            let voltage = simulator.step(time, -leak, None).unwrap() + leak * 0.05;
            estimator.observe(&row(time, 0.0, voltage)).unwrap();
        }
        let loss = estimator.health().self_discharge_per_month.unwrap();
        let deviation = loss.deviation.unwrap();
        println!("{days} days: {loss:?}");
        assert!((loss.value - 0.6).abs() < 2.0 * deviation, "{loss:?}");
        assert!(deviation < 0.6 / f64::from(days), "{loss:?}");
    }
}
