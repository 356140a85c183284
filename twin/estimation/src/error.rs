//! Why a row was not used.

/// A row the estimator or simulator did not take; what it held before still holds, to the bit.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The result of the step would not be finite, or its predicted variance not positive.
    #[error("the step at {time} s gives numbers that are not finite; the row is left out")]
    Diverged {
        /// s.
        time: f64,
    },
    /// An input is NaN or infinite.
    #[error("{what} is not a finite number")]
    NotFinite {
        /// `time`, `current`, `voltage`, or a simulator's `temperature`.
        what: &'static str,
    },
    /// The row's time lies before that of the row before it.
    #[error("time went back from {latest} s to {time} s")]
    TimeWentBack {
        /// s, of the row before.
        latest: f64,
        /// s, of this row.
        time: f64,
    },
    /// Two rows at one time, with linear current and `compat: "moirae-0.3"`, where Moirae divides by zero.
    #[error("two rows at {time} s: Moirae's linear current does not define that step")]
    ZeroTimeStep {
        /// s.
        time: f64,
    },
}
