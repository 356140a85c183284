//! Hop 7 of 7: what each estimator last said, for HTTP and metrics.
//!
//! Workers leave a [`Report`] in their [`Mailbox`](crate::mailbox::Mailbox); readers take it without
//! waiting for their work.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use rovi_common::{frame::Lineage, name::EstimatorName, registration::Registration};
use rovi_estimation::Found;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    filter::{Innovation, Position},
    fleet::Link,
    inputs::Skip,
    ring::{Reason, Recomputation},
};

mod health;

pub use health::{HealthStatus, InitialisationStatus, TrustStatus};

/// What an estimator is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its checkpoint to be read.
    #[default]
    Starting,
    /// It reads past rows by itself.
    CatchingUp,
    /// It takes rows as they come.
    Live,
    /// It takes no rows until it is resumed.
    Paused,
    /// It cannot run; the last error says why.
    Broken,
}

impl Phase {
    /// The name in states.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Paused => "paused",
            Self::Broken => "broken",
        }
    }
}

/// Whether an estimator's numbers count or are shown beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `GET /online/status`, `rovi.state` and `/ws` show its numbers.
    Champion,
    /// It runs beside the champion.
    Shadow,
}

impl Role {
    /// Tells champion and shadow apart.
    pub fn of(is_champion: bool) -> Self {
        if is_champion {
            Self::Champion
        } else {
            Self::Shadow
        }
    }
}

/// The state of an estimator, as its worker last told it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The revision of the registration that it is of.
    pub revision: i64,
    /// What it is doing.
    pub phase: Phase,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
    /// The newest correction of rows that is heeded.
    pub corrections: i64,
    /// Rows that are, or were, estimated anew.
    pub recomputation: Option<Recomputation>,
    /// What makes the estimates.
    pub lineage: Option<Arc<Lineage>>,
    /// The first row dealt with.
    pub rows_from: Option<i64>,
    /// The last row dealt with.
    pub position: Option<Position>,
    /// Names of the states.
    pub state_names: Arc<[String]>,
    /// `test_time` of the last row used, in seconds.
    pub latest_time: Option<f64>,
    /// Means of the states.
    pub mean: Vec<f64>,
    /// Covariance of the states, row-major.
    pub covariance: Vec<f64>,
    /// What the newest step showed.
    pub innovation: Option<Innovation>,
    /// How far the estimator may be believed.
    pub trust: Option<TrustStatus>,
    /// Health in the terms of users.
    pub health: Option<HealthStatus>,
    /// Rows gathered so far, while the estimator waits for what they tell.
    pub gathered: Option<usize>,
    /// What the first rows told.
    pub found: Option<Arc<Found>>,
    /// Rows without a step, by reason.
    pub skipped: BTreeMap<Skip, u64>,
    /// Rows dealt with in this epoch.
    pub rows: u64,
    /// Steps made of them.
    pub steps: u64,
    /// What last went wrong and still holds, or the newest refused row.
    pub last_error: Option<String>,
    /// Whether the last error keeps the estimator from its work, as refusing row after row does; else
    /// it is one refused row.
    pub is_troubled: bool,
    /// What is odd about the document or the first row.
    pub warnings: Vec<String>,
    /// Since when there is state that is not in a checkpoint.
    pub unsaved_since: Option<Instant>,
}

/// The state of one estimator, as `GET /online/status` and `GET /online/{battery}` show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EstimatorStatus {
    /// Whether a row was used yet.
    pub is_ready: bool,
    /// Names of the states, in the order of `mean`.
    pub state_names: Vec<String>,
    /// `test_time` of the last row used, in seconds; left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_time: Option<f64>,
    /// Means of the states, in the units of the document.
    pub mean: Vec<f64>,
    /// Covariance of the states.
    pub covariance: Vec<Vec<f64>>,
    /// The estimator's name.
    #[schema(value_type = String)]
    pub estimator: EstimatorName,
    /// Whether its numbers count.
    pub role: Role,
    /// The revision of its registration.
    pub revision: i64,
    /// Raised whenever rows already estimated are estimated anew.
    pub generation: i64,
    /// What the estimator is doing.
    pub phase: Phase,
    /// The life of the battery's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last row dealt with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// The newest correction of the battery's rows that is heeded; 0 where there was none.
    pub corrections: i64,
    /// The last recomputation, and whether it is going on: then estimates change for its sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recomputation: Option<RecomputationStatus>,
    /// What the newest estimate is made of, besides `epoch`, `seq`, `revision` and `generation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<LineageStatus>,
    /// Rows known to the twin that the estimator has yet to deal with.
    pub rows_behind: i64,
    /// Rows dealt with.
    pub rows: u64,
    /// Steps made of them.
    pub steps: u64,
    /// Measured less predicted voltage of the newest step, in volts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub innovation: Option<f64>,
    /// The same in standard deviations of the prediction: about 1 for a filter that knows itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalised_innovation: Option<f64>,
    /// How far the estimator may be believed, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustStatus>,
    /// Health in the terms of users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// How the start from the first rows stands, where the document asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialisation: Option<InitialisationStatus>,
    /// Rows without a step, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// What last went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What is odd about the document or the first row.
    pub warnings: Vec<String>,
}

/// What an estimate is made of.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineageStatus {
    /// The first row; the last is `seq`.
    pub rows_from: i64,
    /// SHA-256 of the document or script, in hexadecimal.
    pub definition: String,
    /// Version of the twin.
    pub code_version: String,
}

/// Rows that are, or were, estimated anew.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RecomputationStatus {
    /// Why.
    pub reason: Reason,
    /// The first row that is estimated anew.
    pub from_seq: i64,
    /// The newest row that there was then.
    pub to_seq: i64,
    /// Whether the estimator has come there again.
    pub is_done: bool,
}

impl RecomputationStatus {
    /// Returns nothing where nobody knows whether anything was estimated before.
    fn of(report: &Report) -> Option<Self> {
        let is_known = |anew: &Recomputation| anew.reason != Reason::UnknownPast;
        let Recomputation {
            reason,
            from_seq,
            to_seq,
        } = report.recomputation.filter(is_known)?;
        Some(Self {
            reason,
            from_seq,
            to_seq,
            is_done: report
                .position
                .is_some_and(|position| position.seq >= to_seq),
        })
    }
}

impl LineageStatus {
    fn of(report: &Report) -> Option<Self> {
        let made_by = report.lineage.as_ref()?;
        Some(Self {
            rows_from: report.rows_from?,
            definition: made_by.definition.clone(),
            code_version: made_by.code_version.clone(),
        })
    }
}

impl EstimatorStatus {
    /// Shows what the worker of `link` last said; `newest` is the battery's newest known row.
    pub fn of(
        estimator: &EstimatorName,
        (link, role): (&Link, Role),
        newest: Option<Position>,
    ) -> Self {
        let revision = link.registration.revision;
        Self::shown(estimator, (revision, role), &link.report(), newest)
    }

    /// Shows an estimator of which nothing is heard, since its twin starts or ends.
    pub fn unknown(registration: &Registration, role: Role) -> Self {
        let (name, revision) = (&registration.estimator, registration.revision);
        Self::shown(name, (revision, role), &Report::default(), None)
    }

    fn shown(
        estimator: &EstimatorName,
        (revision, role): (i64, Role),
        report: &Report,
        newest: Option<Position>,
    ) -> Self {
        let states = report.state_names.len().max(1);
        let skipped = report.skipped.iter();
        Self {
            is_ready: report.latest_time.is_some(),
            state_names: report.state_names.to_vec(),
            latest_time: report.latest_time,
            mean: report.mean.clone(),
            covariance: report
                .covariance
                .chunks(states)
                .map(<[f64]>::to_vec)
                .collect(),
            estimator: estimator.clone(),
            role,
            revision,
            generation: report.generation,
            phase: report.phase,
            epoch: report.position.map(|position| position.epoch),
            seq: report.position.map(|position| position.seq),
            corrections: report.corrections,
            recomputation: RecomputationStatus::of(report),
            lineage: LineageStatus::of(report),
            rows_behind: rows_behind(report.position, newest),
            rows: report.rows,
            steps: report.steps,
            innovation: report.innovation.map(|innovation| innovation.voltage),
            normalised_innovation: report.innovation.map(|innovation| innovation.normalised),
            trust: report.trust.clone(),
            health: report.health.clone(),
            initialisation: InitialisationStatus::of(report.gathered, report.found.as_deref()),
            skipped: skipped
                .map(|(skip, &count)| (skip.as_str(), count))
                .collect(),
            last_error: report.last_error.clone(),
            warnings: report.warnings.clone(),
        }
    }
}

/// Counts the rows from a position to the newest known one.
pub fn rows_behind(position: Option<Position>, newest: Option<Position>) -> i64 {
    let Some(newest) = newest else { return 0 };
    match position {
        Some(position) if position.epoch > newest.epoch => 0,
        Some(position) if position.epoch == newest.epoch => (newest.seq - position.seq).max(0),
        _ => newest.seq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_new_epoch_are_all_ahead() {
        let at = |epoch, seq| Some(Position { epoch, seq });
        assert_eq!(rows_behind(at(1, 40), at(1, 100)), 60);
        assert_eq!(rows_behind(at(1, 40), at(2, 7)), 7);
        assert_eq!(rows_behind(at(2, 1), at(1, 100)), 0);
        assert_eq!(rows_behind(None, at(1, 100)), 100);
        assert_eq!(rows_behind(at(1, 40), None), 0);
    }
}
