//! The cell model against closed forms and against the equations it stands for.

use rovi_estimation::{Cell, Simulator, StepError};
use serde_json::{Value, json};

use crate::support::cell_of;

/// 2 A h, 50 mohm, one RC pair of 20 s; hysteresis up to 10 mV; constant parameters apart from OCV.
fn asoh() -> Value {
    json!({
        "q_t": {"base_values": 2.0},
        "ce": 0.99,
        "ocv": {"ocv_ref": {"base_values": [3.0, 4.0]}, "ocv_ent": {"base_values": 1e-3}},
        "r0": {"base_values": 0.05, "temperature_dependence_factor": 0.02},
        "rc_elements": [{"r": {"base_values": 0.01}, "c": {"base_values": 2000.0}}],
        "h0": {"base_values": 0.01, "gamma": 50.0},
    })
}

fn cell(behavior: &str, compat: &Value) -> Cell {
    cell_of(&asoh(), &json!({"soc": 0.5}), &behavior.into(), compat)
}

fn sound(behavior: &str) -> Simulator {
    Simulator::new(&cell(behavior, &Value::Null))
}

fn assert_close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-13 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn a_held_charge_follows_the_closed_forms() {
    let mut simulator = sound("constant");
    assert_close(simulator.step(0.0, 2.0, None).unwrap(), 3.5 + 2.0 * 0.05);
    let voltage = simulator.step(30.0, 2.0, None).unwrap();
    let stored: f64 = 0.99 * 2.0 * 30.0 / 7200.0;
    let branch = 2.0 * (1.0 - (-30.0_f64 / 20.0).exp());
    let hysteresis = 0.01 * (1.0 - (-50.0 * stored).exp());
    let transients = simulator.transients();
    assert_close(transients[0], 0.5 + stored);
    assert_close(transients[1], branch);
    assert_close(transients[2], hysteresis);
    assert_close(
        voltage,
        3.5 + stored + 2.0 * 0.05 + branch * 0.01 + hysteresis,
    );
}

#[test]
fn discharge_knows_no_coulombic_loss_and_turns_hysteresis_down() {
    let mut simulator = sound("constant");
    simulator.step(0.0, -1.0, None).unwrap();
    simulator.step(72.0, -1.0, None).unwrap();
    assert_close(simulator.soc(), 0.49);
    assert_close(simulator.transients()[2], -0.01 * (1.0 - (-0.5_f64).exp()));
}

#[test]
fn temperature_moves_open_circuit_voltage_and_resistance() {
    let mut simulator = sound("constant");
    let voltage = simulator.step(0.0, 2.0, Some(35.0)).unwrap();
    assert_close(voltage, 3.5 + 10.0 * 1e-3 + 2.0 * 0.05 * (-0.2_f64).exp());
}

#[test]
fn a_ramp_through_zero_equals_its_two_halves() {
    let mut whole = sound("linear");
    let mut halves = sound("linear");
    for simulator in [&mut whole, &mut halves] {
        simulator.step(0.0, 3.0, None).unwrap();
    }
    halves.step(6.0, 0.0, None).unwrap();
    halves.step(10.0, -2.0, None).unwrap();
    whole.step(10.0, -2.0, None).unwrap();
    for (a, b) in whole.transients().iter().zip(halves.transients()) {
        assert_close(*a, *b);
    }
}

#[test]
fn two_rows_at_one_time_move_no_transient() {
    for behavior in ["constant", "linear"] {
        let mut simulator = sound(behavior);
        simulator.step(0.0, 3.0, None).unwrap();
        simulator.step(5.0, 2.0, None).unwrap();
        let before = simulator.transients().to_vec();
        simulator.step(5.0, -4.0, None).unwrap();
        assert_eq!(before, simulator.transients());
    }
}

#[test]
fn moirae_does_not_define_a_ramp_in_no_time() {
    let mut simulator = Simulator::new(&cell("linear", &"moirae-0.3".into()));
    simulator.step(1.0, 1.0, None).unwrap();
    assert_eq!(
        simulator.step(1.0, 2.0, None),
        Err(StepError::ZeroTimeStep { time: 1.0 })
    );
}

#[test]
fn refused_inputs_leave_the_cell_as_it_was() {
    let mut simulator = sound("constant");
    simulator.step(10.0, 1.0, None).unwrap();
    let before = simulator.clone();
    let back = StepError::TimeWentBack {
        latest: 10.0,
        time: 9.0,
    };
    assert_eq!(simulator.step(9.0, 1.0, None), Err(back));
    let not_finite = StepError::NotFinite { what: "current" };
    assert_eq!(simulator.step(11.0, f64::NAN, None), Err(not_finite));
    assert_eq!(simulator.transients(), before.transients());
    assert!(simulator.step(11.0, 1.0, None).is_ok());
}

#[test]
fn an_aged_cell_fills_faster_and_drops_more() {
    let mut simulator = sound("constant");
    simulator.step(0.0, 1.0, None).unwrap();
    simulator.set_capacity_ah(1.0);
    simulator.step(36.0, 1.0, None).unwrap();
    assert_close(simulator.soc(), 0.5 + 0.99 * 0.01);
    let mut fresh = sound("constant");
    let mut aged = sound("constant");
    aged.set_r0_scale(2.0);
    aged.set_rc_resistance_scale(3.0);
    let difference = aged.step(0.0, 1.0, None).unwrap() - fresh.step(0.0, 1.0, None).unwrap();
    assert_close(difference, 0.05);
    aged.set_r0_ohm(0.07);
    let dropped = aged.step(0.0, 2.0, None).unwrap() - aged.step(0.0, 1.0, None).unwrap();
    assert_close(dropped, 0.07);
}

/// The differential equations themselves, by steps of `dt / 4000`, the current at the middle of each.
fn integrate(state: [f64; 3], duration: f64, current: impl Fn(f64) -> f64) -> [f64; 3] {
    let pieces = 4000;
    let dt = duration / f64::from(pieces);
    let [mut soc, mut branch, mut hysteresis] = state;
    for piece in 0..pieces {
        let now = current((f64::from(piece) + 0.5) * dt);
        let stored = if now > 0.0 { 0.99 } else { 1.0 } * now * dt / 7200.0;
        soc += stored;
        branch += (now - branch) * dt / 20.0;
        hysteresis += 50.0 * stored.abs() * (0.01_f64.copysign(now) - hysteresis);
    }
    [soc, branch, hysteresis]
}

/// Pulses of either sign with rests, 5 s a row.
fn pulses() -> Vec<(f64, f64)> {
    let levels = [
        0.0, 3.0, 3.0, -2.0, 1.0, -4.0, -4.0, 0.0, 0.0, 2.5, -2.5, 0.0,
    ];
    (0..120_u32)
        .map(|k| (5.0 * f64::from(k), levels[k as usize % levels.len()]))
        .collect()
}

/// The largest voltage errors of corrected physics and of Moirae's, against the differential equations.
fn errors(behavior: &str) -> [f64; 2] {
    let rows = pulses();
    let mut simulators =
        [Value::Null, "moirae-0.3".into()].map(|compat| Simulator::new(&cell(behavior, &compat)));
    let mut truth = [0.5, 0.0, 0.0];
    let mut worst = [0.0_f64; 2];
    for (k, &(time, current)) in rows.iter().enumerate() {
        if k > 0 {
            let (start, before) = rows[k - 1];
            let slope = (current - before) / (time - start);
            let is_ramp = behavior == "linear";
            truth = integrate(truth, time - start, |t| {
                if is_ramp { before + slope * t } else { before }
            });
        }
        let [soc, branch, hysteresis] = truth;
        let expected = 3.0 + soc + 0.05 * current + 0.01 * branch + hysteresis;
        for (simulator, error) in simulators.iter_mut().zip(&mut worst) {
            let voltage = simulator.step(time, current, None).unwrap();
            *error = error.max((voltage - expected).abs());
        }
    }
    worst
}

#[test]
fn corrected_physics_stays_closer_to_the_equations_than_moirae() {
    for behavior in ["constant", "linear"] {
        let [sound, moirae] = errors(behavior);
        println!("{behavior}: corrected {sound:e} V, Moirae {moirae:e} V");
        assert!(sound < 2e-5, "corrected physics is off by {sound} V");
        assert!(
            100.0 * sound < moirae,
            "corrected {sound} V, Moirae {moirae} V"
        );
    }
}
