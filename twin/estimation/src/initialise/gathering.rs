//! Rows kept until they tell how an estimator starts.

use crate::document::Document;
use crate::observation::Observation;

/// The most rows that are kept: then what they tell must do.
const MOST_ROWS: usize = 500_000;

/// Rows kept until they span the time that a document's `initialise` wants.
#[derive(Clone, Debug, Default)]
pub struct Gathering {
    rows: Vec<Observation>,
    required_time: f64,
}

impl Gathering {
    /// `None` where the document wants nothing; `otherwise` (s) serves where it does not say for how long.
    pub fn wanted_by(document: &Document, otherwise: f64) -> Option<Self> {
        document.initialise().map(|wanted| Self {
            rows: Vec::new(),
            required_time: wanted.required_time_s.unwrap_or(otherwise),
        })
    }

    /// Keeps a row; tells whether there are enough. Time that begins anew makes the rows before useless.
    pub fn take(&mut self, row: Observation) -> bool {
        if self.rows.last().is_some_and(|last| row.time < last.time) {
            self.rows.clear();
        }
        self.rows.push(row);
        let began = self.rows.first().map_or(row.time, |first| first.time);
        row.time - began >= self.required_time || self.rows.len() >= MOST_ROWS
    }

    /// The rows kept.
    pub fn rows(&self) -> &[Observation] {
        &self.rows
    }
}
