//! What the simulated cell is used for: the current as a function of its charge.

use rand::Rng;

use super::grid::Grid;

/// Kinds of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// A car in town: random acceleration, cruising, braking and stops; charged at C/2 when empty.
    Drive,
    /// Constant current: discharged at 1C, charged at C/2, with pauses.
    #[value(alias = "cycling")]
    Cycle,
    /// Steps down with pulses of 1C for half a minute between pauses; charged at C/2.
    Pulse,
    /// Storage of a grid: follows the frequency, gives in the evening, takes at night.
    Grid,
}

/// Discharging ends here.
pub(super) const EMPTY_SOC: f64 = 0.12;
/// Charging ends here.
pub(super) const FULL_SOC: f64 = 0.92;
/// Charging and the steady discharge, 1/h.
const CHARGE_RATE: f64 = 0.5;
const DISCHARGE_RATE: f64 = -1.0;
/// Pauses before the first use, and after charging and discharging, s.
const FIRST_PAUSE_S: f64 = 60.0;
const PAUSE_S: f64 = 600.0;
/// One round of [`Profile::Pulse`]: end of each part, s, and its rate, 1/h.
const PULSE_ROUND: [(f64, f64); 6] = [
    (240.0, -0.75),
    (600.0, 0.0),
    (630.0, -1.0),
    (900.0, 0.0),
    (930.0, 1.0),
    (1200.0, 0.0),
];
const PULSE_ROUND_S: f64 = 1200.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Discharging,
    /// What is left of the pause, s, and whether the cell is charged next.
    Pausing {
        left_s: f64,
        charge_next: bool,
    },
    Charging,
}

/// The load over time. Rates are in multiples of the capacity an hour, positive while charging.
#[derive(Debug)]
pub(super) struct Load {
    profile: Profile,
    phase: Phase,
    cycle: i64,
    /// Time within the discharge, s.
    discharging_s: f64,
    /// What is left of the present manoeuvre of [`Profile::Drive`], s, and its rate.
    manoeuvre: (f64, f64),
    grid: Grid,
}

impl Load {
    /// Begins with a charged cell that is about to be used.
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            phase: Phase::Pausing {
                left_s: FIRST_PAUSE_S,
                charge_next: false,
            },
            cycle: 0,
            discharging_s: 0.0,
            manoeuvre: (0.0, 0.0),
            grid: Grid::default(),
        }
    }

    /// Returns the number of the cycle, which begins with its discharge; of storage, the day.
    pub(super) fn cycle(&self) -> i64 {
        match self.profile {
            Profile::Grid => self.grid.day(),
            _ => self.cycle,
        }
    }

    /// Returns the rate for the next `dt` seconds.
    pub(super) fn rate(&mut self, dt: f64, soc: f64, random: &mut impl Rng) -> f64 {
        if self.profile == Profile::Grid {
            return self.grid.rate(dt, soc, random);
        }
        self.change_phase(dt, soc);
        match self.phase {
            Phase::Charging => CHARGE_RATE,
            Phase::Pausing { .. } => 0.0,
            Phase::Discharging => {
                self.discharging_s += dt;
                self.discharge_rate(dt, random)
            }
        }
    }

    fn change_phase(&mut self, dt: f64, soc: f64) {
        let pause = |charge_next| Phase::Pausing {
            left_s: PAUSE_S,
            charge_next,
        };
        self.phase = match self.phase {
            Phase::Discharging if soc <= EMPTY_SOC => pause(true),
            Phase::Charging if soc >= FULL_SOC => pause(false),
            Phase::Pausing {
                left_s,
                charge_next,
            } if left_s > 0.0 => Phase::Pausing {
                left_s: left_s - dt,
                charge_next,
            },
            Phase::Pausing {
                charge_next: true, ..
            } => Phase::Charging,
            Phase::Pausing { .. } => {
                self.cycle += i64::from(self.discharging_s > 0.0);
                self.discharging_s = 0.0;
                Phase::Discharging
            }
            phase => phase,
        };
    }

    fn discharge_rate(&mut self, dt: f64, random: &mut impl Rng) -> f64 {
        match self.profile {
            Profile::Cycle => DISCHARGE_RATE,
            Profile::Grid => 0.0,
            Profile::Pulse => {
                let within = self.discharging_s % PULSE_ROUND_S;
                let part = PULSE_ROUND.iter().find(|(end, _)| within < *end);
                part.map_or(0.0, |(_, rate)| *rate)
            }
            Profile::Drive => {
                self.manoeuvre.0 -= dt;
                if self.manoeuvre.0 <= 0.0 {
                    self.manoeuvre = manoeuvre(random);
                }
                self.manoeuvre.1
            }
        }
    }
}

/// Draws what the driver does next: for how long, s, and at what rate.
fn manoeuvre(random: &mut impl Rng) -> (f64, f64) {
    let kind: f64 = random.random();
    if kind < 0.3 {
        // Accelerating.
        (
            random.random_range(4.0..15.0),
            -random.random_range(1.0..3.0),
        )
    } else if kind < 0.65 {
        // Cruising.
        (
            random.random_range(20.0..90.0),
            -random.random_range(0.2..0.8),
        )
    } else if kind < 0.85 {
        // Braking, which charges.
        (
            random.random_range(3.0..12.0),
            random.random_range(0.2..1.2),
        )
    } else {
        // Standing, with the lights on.
        (random.random_range(10.0..60.0), -0.01)
    }
}
