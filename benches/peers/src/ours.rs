//! This project's estimators, from documents.

use rovi_estimation::{Document, Estimator, Observation};
use serde_json::json;

use crate::cell::{COVARIANCE, OCV, PROCESS, Row, SENSOR, START};

pub struct Ours {
    estimator: Estimator,
    time: f64,
}

impl Ours {
    /// `filter`: `ukf`, `square_root_ukf` or `ekf`.
    pub fn new(filter: &str) -> Self {
        let pair =
            |values: &[f64; 4], from: usize| json!([[values[from], 0.0], [0.0, values[from + 1]]]);
        let document = json!({
            "kind": "joint", "filter": filter,
            "asoh": {
                "updatable": ["q_t", "r0"],
                "q_t": {"updatable": ["base_values"], "base_values": START[2]},
                "ocv": {"ocv_ref": {"base_values": OCV}},
                "r0": {"updatable": ["base_values"], "base_values": START[3]},
                "h0": {"base_values": 0.01},
            },
            "initial_transients": {"soc": START[0]},
            "covariance_transient": pair(&COVARIANCE, 0), "covariance_asoh": pair(&COVARIANCE, 2),
            "transient_process_noise": pair(&PROCESS, 0), "asoh_process_noise": pair(&PROCESS, 2),
            "sensor_noise": SENSOR,
        });
        let (document, _) = Document::from_json(&document.to_string()).expect("it is one");
        let mut estimator = Estimator::new(&document);
        let first = Observation {
            time: 0.0,
            current: 2.0,
            voltage: 3.59,
            temperature: None,
        };
        estimator.observe(&first).expect("a first row only starts");
        Self {
            estimator,
            time: 0.0,
        }
    }

    pub fn step(&mut self, row: Row) -> f64 {
        self.time += 1.0;
        let observation = Observation {
            time: self.time,
            current: row.current,
            voltage: row.voltage,
            temperature: None,
        };
        self.estimator
            .observe(&observation)
            .expect("the rows are sound");
        self.estimator.soc()
    }
}
