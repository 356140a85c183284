//! What a frame's columns give an estimator, and why a row gives nothing.

use std::fmt;

use rovi_common::{frame::RowFrame, rows::Column};
use serde::{Deserialize, Serialize};

/// Why a row made no step. Rows that only start the estimator are no such rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// `test_time` is null or the battery has no such column.
    MissingTestTime,
    /// `current` is null or the battery has no such column.
    MissingCurrent,
    /// `voltage` is null or the battery has no such column.
    MissingVoltage,
    /// `test_time` is NaN or infinite.
    NotFiniteTestTime,
    /// `current` is NaN or infinite.
    NotFiniteCurrent,
    /// `voltage` is NaN or infinite.
    NotFiniteVoltage,
    /// `test_time` holds text or truth values.
    NotNumericTestTime,
    /// `current` holds text or truth values.
    NotNumericCurrent,
    /// `voltage` holds text or truth values.
    NotNumericVoltage,
    /// `test_time` lies before the registration's `valid_from`.
    BeforeValidFrom,
    /// `test_time` lies before that of an earlier row of the segment, within the horizon.
    Late,
    /// `test_time` lies before that of an earlier row of the segment by more than the horizon.
    LateBeyondHorizon,
    /// The estimator had taken a later time already.
    TimeWentBack,
    /// The estimator does not define a step for two rows at one time.
    ZeroTimeStep,
    /// The step would have made the state infinite.
    Diverged,
    /// The estimator refused the row for another reason.
    Refused,
    /// The row was forgotten by bus and hub before the estimator came to it.
    Gone,
}

impl Skip {
    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingTestTime => "missing_test_time",
            Self::MissingCurrent => "missing_current",
            Self::MissingVoltage => "missing_voltage",
            Self::NotFiniteTestTime => "not_finite_test_time",
            Self::NotFiniteCurrent => "not_finite_current",
            Self::NotFiniteVoltage => "not_finite_voltage",
            Self::NotNumericTestTime => "not_numeric_test_time",
            Self::NotNumericCurrent => "not_numeric_current",
            Self::NotNumericVoltage => "not_numeric_voltage",
            Self::BeforeValidFrom => "before_valid_from",
            Self::Late => "late",
            Self::LateBeyondHorizon => "late_beyond_horizon",
            Self::TimeWentBack => "time_went_back",
            Self::ZeroTimeStep => "zero_time_step",
            Self::Diverged => "diverged",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The columns of a frame that estimators read.
pub(crate) struct Inputs<'a> {
    pub(crate) test_time: Quantity<'a>,
    pub(crate) current: Quantity<'a>,
    pub(crate) voltage: Quantity<'a>,
    pub(crate) temperature: Option<&'a Column>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn of(frame: &'a RowFrame) -> Self {
        let quantity = |name, reasons| Quantity {
            column: frame.columns.get(name),
            reasons,
        };
        Self {
            test_time: quantity("test_time", &TEST_TIME),
            current: quantity("current", &CURRENT),
            voltage: quantity("voltage", &VOLTAGE),
            temperature: frame.columns.get("temperature"),
        }
    }
}

/// A column without which there is no step, and what is said where it has no number.
pub(crate) struct Quantity<'a> {
    column: Option<&'a Column>,
    reasons: &'static Reasons,
}

struct Reasons {
    missing: Skip,
    not_finite: Skip,
    not_numeric: Skip,
}

const TEST_TIME: Reasons = Reasons {
    missing: Skip::MissingTestTime,
    not_finite: Skip::NotFiniteTestTime,
    not_numeric: Skip::NotNumericTestTime,
};
const CURRENT: Reasons = Reasons {
    missing: Skip::MissingCurrent,
    not_finite: Skip::NotFiniteCurrent,
    not_numeric: Skip::NotNumericCurrent,
};
const VOLTAGE: Reasons = Reasons {
    missing: Skip::MissingVoltage,
    not_finite: Skip::NotFiniteVoltage,
    not_numeric: Skip::NotNumericVoltage,
};

impl Quantity<'_> {
    pub(crate) fn read(&self, row: usize) -> Result<f64, Skip> {
        let Some(column) = self.column else {
            return Err(self.reasons.missing);
        };
        match column.number(row) {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => Err(self.reasons.not_finite),
            None if matches!(column, Column::Null(_) | Column::Int(_) | Column::Float(_)) => {
                Err(self.reasons.missing)
            }
            None => Err(self.reasons.not_numeric),
        }
    }
}
