//! What an estimator tells of itself and of its battery, in the form of the status.

use rovi_estimation::{Estimator, Figure, Found, Health, NominalFrom, Quality, TrustState};
use serde::Serialize;
use utoipa::ToSchema;

/// How far an estimator may be believed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TrustStatus {
    /// `healthy`, `suspect` or `diverged`.
    #[schema(value_type = String)]
    pub state: TrustState,
    /// Why, unless healthy, such as `innovations_too_large` or `voltage_stuck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<rovi_estimation::Reason>,
    /// `test_time` of the row at which that began, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
    /// Average normalised innovation squared of the last whole window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nis_average: Option<f64>,
    /// Where that lies while the filter knows its errors.
    pub nis_band: [f64; 2],
    /// Autocorrelation of the innovations of the last whole window at lag 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autocorrelation: Option<f64>,
    /// How often the policy on divergence acted.
    pub interventions: u64,
    /// Whether the voltage is left aside, by the policy `hold`.
    pub is_holding: bool,
}

impl TrustStatus {
    /// Shows what `estimator` says of itself.
    pub fn of(estimator: &Estimator) -> Self {
        let trust = estimator.trust();
        Self {
            state: trust.state,
            reason: trust.reason,
            since: trust.since,
            nis_average: trust.nis_average,
            nis_band: estimator.trust_band(),
            autocorrelation: trust.autocorrelation,
            interventions: trust.interventions,
            is_holding: trust.is_holding,
        }
    }
}

/// Health of a battery; `…_std` are standard deviations of what is estimated.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HealthStatus {
    /// Capacity over the nominal one.
    pub state_of_health: f64,
    /// The same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_of_health_std: Option<f64>,
    /// The nominal capacity, in ampere-hours.
    pub nominal_capacity_ah: f64,
    /// Where it comes from: `document`, `metadata`, or `initial` for the capacity that the estimator starts from.
    #[schema(value_type = String)]
    pub nominal_capacity_from: NominalFrom,
    /// Series resistance over the initial one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resistance_growth: Option<f64>,
    /// The same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resistance_growth_std: Option<f64>,
    /// Charge that went in, in ampere-hours.
    pub charged_ah: f64,
    /// Charge that came out, in ampere-hours.
    pub discharged_ah: f64,
    /// Energy that went in, in watt-hours.
    pub charged_wh: f64,
    /// Energy that came out, in watt-hours.
    pub discharged_wh: f64,
    /// Energy that went in or came out, in watt-hours.
    pub energy_throughput_wh: f64,
    /// Charge in and out over twice the nominal capacity.
    pub equivalent_full_cycles: f64,
    /// Energy out over energy in of the last closed loop of charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_efficiency: Option<f64>,
    /// Share of the capacity lost in 30 days, from the last long rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_discharge_per_month: Option<f64>,
    /// The same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_discharge_per_month_std: Option<f64>,
}

impl From<&Health> for HealthStatus {
    fn from(health: &Health) -> Self {
        let value = |figure: Option<Figure>| figure.map(|figure| figure.value);
        let deviation = |figure: Option<Figure>| figure.and_then(|figure| figure.deviation);
        Self {
            state_of_health: health.state_of_health.value,
            state_of_health_std: health.state_of_health.deviation,
            nominal_capacity_ah: health.nominal_capacity_ah,
            nominal_capacity_from: health.nominal_capacity_from,
            resistance_growth: value(health.resistance_growth),
            resistance_growth_std: deviation(health.resistance_growth),
            charged_ah: health.charged_ah,
            discharged_ah: health.discharged_ah,
            charged_wh: health.charged_wh,
            discharged_wh: health.discharged_wh,
            energy_throughput_wh: health.charged_wh + health.discharged_wh,
            equivalent_full_cycles: health.equivalent_full_cycles,
            round_trip_efficiency: health.round_trip_efficiency,
            self_discharge_per_month: value(health.self_discharge_per_month),
            self_discharge_per_month_std: deviation(health.self_discharge_per_month),
        }
    }
}

/// How an estimator starts from its first rows.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct InitialisationStatus {
    /// Rows gathered so far; left out once the estimator has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gathered_rows: Option<usize>,
    /// What was found: `what`, `values`, `rmse` with its unit, `rows`, and `reason` where it was not.
    #[schema(value_type = Vec<Object>)]
    pub found: Vec<Quality>,
}

impl InitialisationStatus {
    pub(super) fn of(gathered_rows: Option<usize>, found: Option<&Found>) -> Option<Self> {
        if gathered_rows.is_none() && found.is_none() {
            return None;
        }
        Some(Self {
            gathered_rows,
            found: found
                .map(|found| found.qualities.clone())
                .unwrap_or_default(),
        })
    }
}
