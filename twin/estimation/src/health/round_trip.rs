//! Round-trip efficiency: energy out over energy in, from one passage of the same net charge to the next.
//!
//! Such a loop begins and ends with the same charge in the cell, whatever the profile between. The place at which loops
//! are cut is the middle of the range of charge met at first; a battery that does not come back to it for three full
//! capacities of throughput gets another one.

use serde::{Deserialize, Serialize};

/// The least range that fixes the place, of the nominal capacity.
const LEAST_RANGE: f64 = 0.2;
/// The least distance from the place that makes a loop, of the nominal capacity.
const LEAST_DISTANCE: f64 = 0.1;
/// Throughput without a passage after which the place is given up, of the nominal capacity.
const PATIENCE: f64 = 3.0;

/// Loops of charge; charges in C, energies in J.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RoundTrip {
    net: f64,
    lowest: f64,
    highest: f64,
    place: Option<f64>,
    is_open: bool,
    energy_in: f64,
    energy_out: f64,
    distance: f64,
    throughput: f64,
    pub(super) efficiency: Option<f64>,
}

impl RoundTrip {
    /// Counts a charge of one sign and its energy.
    #[inline]
    pub(super) fn take(&mut self, charge: f64, energy: f64, nominal: f64) {
        let before = self.net;
        self.net += charge;
        let Some(place) = self.place else {
            self.look_for_place(nominal);
            return;
        };
        self.throughput += charge.abs();
        if (before - place) * (self.net - place) <= 0.0 && (before - place).abs() > 0.0 {
            let share = (place - before) / charge;
            self.add(energy * share);
            self.pass(nominal);
            self.add(energy * (1.0 - share));
        } else {
            self.add(energy);
            self.distance = self.distance.max((self.net - place).abs());
            if self.throughput > PATIENCE * nominal {
                self.interrupt();
            }
        }
    }

    /// Begins anew with what comes, keeping what was found.
    pub(super) fn interrupt(&mut self) {
        *self = Self {
            efficiency: self.efficiency,
            ..Self::default()
        };
    }

    fn look_for_place(&mut self, nominal: f64) {
        self.lowest = self.lowest.min(self.net);
        self.highest = self.highest.max(self.net);
        if self.highest - self.lowest >= LEAST_RANGE * nominal {
            self.place = Some(f64::midpoint(self.lowest, self.highest));
        }
    }

    fn pass(&mut self, nominal: f64) {
        if self.is_open && self.distance < LEAST_DISTANCE * nominal {
            // A small loop stays part of a larger one.
            return;
        }
        if self.is_open && self.energy_in > 0.0 {
            self.efficiency = Some(self.energy_out / self.energy_in);
        }
        self.is_open = true;
        (self.energy_in, self.energy_out) = (0.0, 0.0);
        (self.distance, self.throughput) = (0.0, 0.0);
    }

    fn add(&mut self, energy: f64) {
        if energy > 0.0 {
            self.energy_in += energy;
        } else {
            self.energy_out -= energy;
        }
    }
}
