//! The hub's own metrics; each exists at 0 from the start.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use rovi_common::telemetry::Metrics;

use crate::upload::RefusedBy;

/// Counters of the ingest path.
#[derive(Debug, Clone)]
pub struct HubMetrics {
    /// Rows that came in, before anything is known of them.
    pub rows_received: IntCounter,
    /// Rows committed to tables of batteries.
    pub rows_stored: IntCounter,
    rows_rejected: IntCounterVec,
    /// Frames that could not be decoded.
    pub frames_refused: IntCounter,
    /// Bytes of bodies that are not decoded yet.
    pub body_bytes: IntGauge,
    /// Groups committed.
    pub groups: IntCounter,
    /// Seconds from the begin to the end of a group's transaction.
    pub commit_seconds: Histogram,
    /// Upload sockets open now.
    pub sockets: IntGauge,
    /// Rows received and not stored yet.
    pub rows_waiting: IntGauge,
    /// Batteries set aside because their tables are locked, refuse changes or are being rewritten.
    pub batteries_parked: IntGauge,
    /// Committed rows that were left to the relay's sweep, because it was behind.
    pub rows_left_to_sweep: IntCounter,
}

impl HubMetrics {
    /// Makes and registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let rows_rejected = metrics.counters(
            "datahub_rows_rejected_total",
            "Rows kept in hub.rejected_rows instead of their table, by who refused them.",
            &["refused_by"],
        );
        for by in [RefusedBy::Form, RefusedBy::Type, RefusedBy::Database] {
            rows_rejected.with_label_values(&[label(by)]).reset();
        }
        Self {
            rows_received: metrics.counter("datahub_rows_received_total", "Rows received."),
            rows_stored: metrics.counter("datahub_rows_stored_total", "Rows committed."),
            rows_rejected,
            frames_refused: metrics.counter(
                "datahub_frames_refused_total",
                "Frames and bodies that cannot be decoded.",
            ),
            body_bytes: metrics.gauge(
                "datahub_body_bytes",
                "Bytes of bodies of POSTs that came and are not decoded yet.",
            ),
            groups: metrics.counter("datahub_groups_total", "Groups committed."),
            commit_seconds: metrics
                .seconds("datahub_commit_seconds", "Time of a group's transaction."),
            sockets: metrics.gauge("datahub_upload_sockets", "Upload sockets open now."),
            rows_waiting: metrics.gauge("datahub_rows_waiting", "Rows received, not stored yet."),
            batteries_parked: metrics.gauge(
                "datahub_batteries_parked",
                "Batteries set aside because their tables cannot be written now, or are being rewritten.",
            ),
            rows_left_to_sweep: metrics.counter(
                "datahub_rows_left_to_sweep_total",
                "Committed rows that came while the bus was away, or for which the relay's queue had no \
                 room; its sweep sends them.",
            ),
        }
    }

    /// Counts a rejected row.
    pub fn row_rejected(&self, by: RefusedBy) {
        self.rows_rejected.with_label_values(&[label(by)]).inc();
    }
}

fn label(by: RefusedBy) -> &'static str {
    match by {
        RefusedBy::Form => "form",
        RefusedBy::Type => "type",
        RefusedBy::Database => "database",
    }
}
