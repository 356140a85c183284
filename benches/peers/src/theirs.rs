//! The same cell in other crates' filters; each returns the charge after a step.

use adskalman::{
    KalmanFilterNoControl, ObservationModel, StateAndCovariance, TransitionModelLinearNoControl,
};
use kfilter::{
    KalmanFilter, KalmanPredictInput, KalmanUpdate,
    measurement::Measurement,
    system::{NonLinearSystem, StepReturn},
    ukf::{UKFParameters, UnscentedKalman},
};
use minikalman::prelude::*;
use nalgebra::{Matrix1, Matrix4, RowVector4, SMatrix, SVector, U1, U4, Vector1, Vector4};
use numeris::estimate::{Ekf, SrUkf, Ukf};

use crate::cell::{COVARIANCE, PROCESS, Row, SENSOR, START, advance, voltage};

fn diagonal(values: [f64; 4]) -> numeris::Matrix<f64, 4, 4> {
    let mut rows = [[0.0; 4]; 4];
    (0..4).for_each(|i| rows[i][i] = values[i]);
    numeris::Matrix::new(rows)
}

type Four = numeris::Vector<f64, 4>;

fn array(x: &Four) -> [f64; 4] {
    [x[0], x[1], x[2], x[3]]
}

/// numeris, unscented: 9 points, drawn anew for the output, noises added.
pub fn numeris_ukf() -> impl FnMut(Row) -> f64 {
    let start = Four::from_array(START);
    let mut filter = Ukf::<f64, 4, 1>::new(start, diagonal(COVARIANCE));
    let process = diagonal(PROCESS);
    let sensor = numeris::Matrix::new([[SENSOR]]);
    move |row| {
        let next = |x: &Four| Four::from_array(advance(array(x), row));
        filter
            .predict(next, Some(&process))
            .expect("it is definite");
        let expected = |x: &Four| numeris::Vector::from_array([voltage(array(x), row)]);
        let measured = numeris::Vector::from_array([row.voltage]);
        filter
            .update(&measured, expected, &sensor)
            .expect("it is definite");
        filter.state()[0]
    }
}

/// numeris, square root: covariances are made and factored again at every step.
pub fn numeris_square_root() -> impl FnMut(Row) -> f64 {
    let start = Four::from_array(START);
    let filter = SrUkf::<f64, 4, 1>::from_covariance(start, diagonal(COVARIANCE));
    let mut filter = filter.expect("it is definite");
    let process = diagonal(PROCESS);
    let sensor = numeris::Matrix::new([[SENSOR]]);
    move |row| {
        let next = |x: &Four| Four::from_array(advance(array(x), row));
        filter
            .predict(next, Some(&process))
            .expect("it is definite");
        let expected = |x: &Four| numeris::Vector::from_array([voltage(array(x), row)]);
        let measured = numeris::Vector::from_array([row.voltage]);
        filter
            .update(&measured, expected, &sensor)
            .expect("it is definite");
        filter.state()[0]
    }
}

/// numeris, extended, with its Jacobians by differences.
pub fn numeris_ekf() -> impl FnMut(Row) -> f64 {
    let start = Four::from_array(START);
    let mut filter = Ekf::<f64, 4, 1>::new(start, diagonal(COVARIANCE));
    let process = diagonal(PROCESS);
    let sensor = numeris::Matrix::new([[SENSOR]]);
    move |row| {
        let next = |x: &Four| Four::from_array(advance(array(x), row));
        filter.predict_fd(next, Some(&process));
        let expected = |x: &Four| numeris::Vector::from_array([voltage(array(x), row)]);
        let measured = numeris::Vector::from_array([row.voltage]);
        filter
            .update_fd(&measured, expected, &sensor)
            .expect("it is definite");
        filter.state()[0]
    }
}

struct Voltage(Row, Matrix1<f64>, Vector1<f64>);

impl Measurement<f64, 4, 1> for Voltage {
    fn covariance(&self) -> &SMatrix<f64, 1, 1> {
        &self.1
    }
    fn measurement(&self) -> &SVector<f64, 1> {
        &self.2
    }
    fn set_measurement(&mut self, z: SVector<f64, 1>) {
        self.2 = z;
    }
    fn predict(&self, x: &SVector<f64, 4>) -> SVector<f64, 1> {
        Vector1::new(voltage([x[0], x[1], x[2], x[3]], self.0))
    }
}

/// kfilter, unscented: 9 points, drawn anew for the output, noises added.
pub fn kfilter_ukf() -> impl FnMut(Row) -> f64 {
    let step = |x: SVector<f64, 4>, u: SVector<f64, 3>| {
        let row = Row {
            before: u[0],
            current: u[1],
            voltage: u[2],
        };
        StepReturn {
            state: Vector4::from(advance([x[0], x[1], x[2], x[3]], row)),
            jacobian: Matrix4::zeros(),
            covariance: Matrix4::from_diagonal(&Vector4::from(PROCESS)),
        }
    };
    let system = NonLinearSystem::<f64, 4, 3>::new(step, Vector4::from(START));
    let covariance = Matrix4::from_diagonal(&Vector4::from(COVARIANCE));
    let parameters = UKFParameters::new(1.0, 2.0, 0.0).expect("they are allowed");
    let mut filter =
        UnscentedKalman::<f64, 4, 3, 9, _>::new_custom_with_params(system, covariance, parameters);
    move |row| {
        let input = SVector::<f64, 3>::new(row.before, row.current, row.voltage);
        filter.predict(input).expect("it is definite");
        let measurement = Voltage(row, Matrix1::new(SENSOR), Vector1::new(row.voltage));
        filter.update(&measurement).expect("it is definite");
        filter.state()[0]
    }
}

/// minikalman, unscented.
pub fn minikalman_ukf() -> impl FnMut(Row) -> f64 {
    use minikalman::unscented::builder::KalmanFilterBuilder;
    let builder = KalmanFilterBuilder::<4, f64>::default();
    let mut filter = builder.build::<9>();
    let mut measurement = builder.observations().build::<1, 9>();
    filter
        .state_vector_mut()
        .apply(|x| (0..4).for_each(|i| x.set_row(i, START[i])));
    filter
        .estimate_covariance_mut()
        .apply(|p| (0..4).for_each(|i| p.set_at(i, i, COVARIANCE[i])));
    filter
        .direct_process_noise_mut()
        .apply(|q| (0..4).for_each(|i| q.set_at(i, i, PROCESS[i])));
    measurement
        .measurement_noise_covariance_mut()
        .apply(|r| r.set_at(0, 0, SENSOR));
    move |row| {
        filter.predict_nonlinear(|next| {
            let x = std::array::from_fn(|i| next.as_matrix().get_at(i, 0));
            let moved = advance(x, row);
            (0..4).for_each(|i| next.as_matrix_mut().set_at(i, 0, moved[i]));
        });
        measurement
            .measurement_vector_mut()
            .apply(|z| z.set_row(0, row.voltage));
        filter.correct_sigma_point(&mut measurement, |points, observed| {
            for j in 0..9 {
                let x = std::array::from_fn(|i| points[i * 9 + j]);
                observed[j] = voltage(x, row);
            }
        });
        filter.state_vector().as_matrix().get_at(0, 0)
    }
}

struct Walk(Matrix4<f64>, Matrix4<f64>);

impl TransitionModelLinearNoControl<f64, U4> for Walk {
    fn F(&self) -> &Matrix4<f64> {
        &self.0
    }
    fn FT(&self) -> &Matrix4<f64> {
        &self.0
    }
    fn Q(&self) -> &Matrix4<f64> {
        &self.1
    }
}

struct Tangent(RowVector4<f64>, Vector4<f64>, Matrix1<f64>);

impl ObservationModel<f64, U4, U1> for Tangent {
    fn H(&self) -> &RowVector4<f64> {
        &self.0
    }
    fn HT(&self) -> &Vector4<f64> {
        &self.1
    }
    fn R(&self) -> &Matrix1<f64> {
        &self.2
    }
}

/// adskalman, linear: four states that do not move and a fixed tangent. No cell at all, a floor for any filter of this
/// size.
pub fn adskalman_linear() -> impl FnMut(Row) -> f64 {
    let walk = Walk(
        Matrix4::identity(),
        Matrix4::from_diagonal(&Vector4::from(PROCESS)),
    );
    let tangent = [1.2, 1.0, 0.0, 2.0];
    let tangent = Tangent(
        RowVector4::from(tangent),
        Vector4::from(tangent),
        Matrix1::new(SENSOR),
    );
    let covariance = Matrix4::from_diagonal(&Vector4::from(COVARIANCE));
    let mut belief = StateAndCovariance::new(Vector4::from(START), covariance);
    move |row| {
        let filter = KalmanFilterNoControl::new(&walk, &tangent);
        let measured = Vector1::new(row.voltage - 2.94);
        belief = filter.step(&belief, &measured).expect("it is definite");
        belief.state()[0]
    }
}
