//! The metrics of the service `twin`.

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use rovi_common::telemetry::Metrics;

/// Each exists at 0 from the start, save those by label, which exist from the first event.
#[derive(Debug, Clone)]
pub struct TwinMetrics {
    /// Frames taken from the partitions' consumers.
    pub frames: IntCounter,
    /// Frames that could not be read, each told in the log.
    pub bad_frames: IntCounter,
    /// Rows that estimators dealt with.
    pub rows: IntCounter,
    /// Steps that estimators made.
    pub steps: IntCounter,
    /// Rows without a step, by reason.
    pub skipped: IntCounterVec,
    /// Estimates handed to the bus.
    pub estimates: IntCounter,
    /// How often an estimator began to read past rows.
    pub catch_ups: IntCounter,
    /// Past rows read, by source: `stream` or `hub`.
    pub caught_up_rows: IntCounterVec,
    /// Checkpoints written.
    pub checkpoints: IntCounter,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: IntCounter,
    /// How often a script failed and was started again.
    pub script_failures: IntCounter,
    /// Of what the twin tells everyone.
    pub live: LiveMetrics,
    /// Partitions whose frames come to this twin.
    pub partitions: IntGauge,
    /// Registered estimators.
    pub estimators: IntGauge,
    /// Rows that the estimator furthest behind has to deal with.
    pub rows_behind: IntGauge,
    /// Age of the oldest state that is not in a checkpoint yet.
    pub checkpoint_age: IntGauge,
}

impl TwinMetrics {
    /// Makes the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            frames: metrics.counter("twin_frames_total", "Row frames taken from the bus."),
            bad_frames: metrics.counter("twin_bad_frames_total", "Row frames that cannot be read."),
            rows: metrics.counter("twin_rows_total", "Rows that estimators dealt with."),
            steps: metrics.counter("twin_steps_total", "Steps that estimators made."),
            skipped: metrics.counters(
                "twin_rows_skipped_total",
                "Rows without a step, by reason.",
                &["reason"],
            ),
            estimates: metrics.counter(
                "twin_estimates_published_total",
                "Estimates handed to the bus.",
            ),
            catch_ups: metrics.counter(
                "twin_catch_ups_total",
                "How often an estimator began to read past rows.",
            ),
            caught_up_rows: metrics.counters(
                "twin_caught_up_rows_total",
                "Past rows read, by source.",
                &["source"],
            ),
            checkpoints: metrics.counter("twin_checkpoints_total", "Checkpoints written."),
            checkpoint_failures: metrics.counter(
                "twin_checkpoint_failures_total",
                "Checkpoints that could not be written.",
            ),
            script_failures: metrics.counter(
                "twin_script_failures_total",
                "How often a Python estimator failed and was started again.",
            ),
            live: LiveMetrics::new(metrics),
            partitions: metrics.gauge(
                "twin_partitions",
                "Partitions whose frames come to this twin.",
            ),
            estimators: metrics.gauge("twin_estimators", "Registered estimators."),
            rows_behind: metrics.gauge(
                "twin_rows_behind",
                "Rows that the estimator furthest behind has to deal with.",
            ),
            checkpoint_age: metrics.gauge(
                "twin_checkpoint_age_seconds",
                "Age of the oldest state that is not in a checkpoint yet.",
            ),
        }
    }
}

/// What is told of states, on live sockets, and of alerts.
#[derive(Debug, Clone)]
pub struct LiveMetrics {
    /// States handed to the bus.
    pub states: IntCounter,
    /// Live sockets and event streams open now.
    pub sockets: IntGauge,
    /// Messages sent on them.
    pub messages: IntCounter,
    /// States that a slow one did not get because a newer one came.
    pub conflated: IntCounter,
    /// Begins and ends of alerts that this twin told.
    pub alerts: IntCounter,
    /// Tries to post them, by what became of them.
    pub webhooks: IntCounterVec,
}

impl LiveMetrics {
    fn new(metrics: &Metrics) -> Self {
        Self {
            states: metrics.counter("twin_states_published_total", "States handed to the bus."),
            sockets: metrics.gauge(
                "twin_live_sockets",
                "Live sockets and event streams open now.",
            ),
            messages: metrics.counter(
                "twin_live_messages_total",
                "Messages sent on live sockets and event streams.",
            ),
            conflated: metrics.counter(
                "twin_live_conflated_total",
                "States that slow sockets did not get because newer ones came.",
            ),
            alerts: metrics.counter(
                "twin_alert_changes_total",
                "Begins and ends of alerts that this twin told.",
            ),
            webhooks: metrics.counters(
                "twin_webhooks_total",
                "Tries to post begins and ends of alerts, by outcome.",
                &["outcome"],
            ),
        }
    }
}
