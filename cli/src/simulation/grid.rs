//! Storage of a grid over its days.

use rand::Rng;

use super::{
    SECONDS_PER_DAY,
    noise::gaussian,
    profile::{EMPTY_SOC, FULL_SOC},
};

/// The first row is at noon.
const BEGINS_S: f64 = 12.0 * 3600.0;
/// Hours of the day in which it gives, and in which it takes.
const GIVES: std::ops::Range<f64> = 17.0..20.0;
const TAKES: std::ops::Range<f64> = 0.0..5.0;
/// How much it gives and takes then, 1/h.
const GIVING_RATE: f64 = -0.2;
const TAKING_RATE: f64 = 0.15;
/// Standard deviation of what the frequency asks for, 1/h, and how long it remembers, s.
const FREQUENCY_RATE: f64 = 0.15;
const FREQUENCY_MEMORY_S: f64 = 60.0;

/// What the grid asks for: the hours of the day, and its frequency (an Ornstein-Uhlenbeck process).
#[derive(Debug, Default)]
pub(super) struct Grid {
    passed_s: f64,
    frequency: f64,
}

impl Grid {
    /// Returns the number of the day, from 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a fleet does not live 10^15 days"
    )]
    pub(super) fn day(&self) -> i64 {
        ((BEGINS_S + self.passed_s) / SECONDS_PER_DAY) as i64
    }

    /// Returns the rate for the next `dt` seconds, 1/h; none beyond empty and full.
    pub(super) fn rate(&mut self, dt: f64, soc: f64, random: &mut impl Rng) -> f64 {
        let hour = (BEGINS_S + self.passed_s) % SECONDS_PER_DAY / 3600.0;
        self.passed_s += dt;
        let kept = libm::exp(-dt / FREQUENCY_MEMORY_S);
        let pushed = libm::sqrt(1.0 - kept * kept) * gaussian(random);
        self.frequency = kept * self.frequency + pushed;
        let planned = if GIVES.contains(&hour) {
            GIVING_RATE
        } else if TAKES.contains(&hour) {
            TAKING_RATE
        } else {
            0.0
        };
        let rate = planned + FREQUENCY_RATE * self.frequency;
        match soc {
            soc if soc <= EMPTY_SOC => rate.max(0.0),
            soc if soc >= FULL_SOC => rate.min(0.0),
            _ => rate,
        }
    }
}
