//! Logs and metrics.

use std::io::IsTerminal;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector, proto::MetricFamily,
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Libraries that log URLs with passwords, messages and credentials of requests at finer levels.
const INDISCREET: [&str; 2] = ["async_nats=info", "tungstenite=info"];

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for shipping.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Starts logging to standard error; `filter` is `tracing`'s (`info`, `datahub=debug` …).
///
/// Returns false where logging was already started, as in tests.
pub fn init(format: LogFormat, filter: &str) -> bool {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(careful(filter))
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init().is_ok(),
        LogFormat::Text => builder
            .with_target(false)
            // Colours are for terminals, not for log files.
            .with_ansi(std::io::stderr().is_terminal())
            .try_init()
            .is_ok(),
    }
}

/// Reads a filter, and keeps it from what libraries tell of secrets.
fn careful(filter: &str) -> EnvFilter {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let finest = filter.max_level_hint();
    if finest.is_some_and(|finest| finest <= LevelFilter::INFO) {
        return filter;
    }
    let directives = INDISCREET.iter().filter_map(|one| one.parse().ok());
    directives.fold(filter, EnvFilter::add_directive)
}

/// The metrics of one service; each exists at 0 from the start.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    registry: Registry,
}

/// Makes a metric and registers it; names are written once, in constants of the service.
macro_rules! metric {
    ($self:ident, $made:expr) => {{
        let metric = $made.expect("metric names and labels are constants of valid form");
        $self.register(&metric);
        metric
    }};
}

impl Metrics {
    /// Returns an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a counter; the name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        metric!(self, IntCounter::new(name, help))
    }

    /// Makes a family of counters by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        metric!(self, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Makes a gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        metric!(self, IntGauge::new(name, help))
    }

    /// Makes a family of gauges by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        metric!(self, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Makes a histogram of seconds from 0.1 ms to 10 s.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        let buckets = vec![
            0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
            2.5, 5.0, 10.0,
        ];
        metric!(
            self,
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        )
    }

    /// Reads a gauge or counter without labels; `None` where there is none of this name.
    pub fn read(&self, name: &str) -> Option<i64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metric = family.get_metric().first()?;
        let value = match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
            prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
            _ => return None,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both count whole things, which fit"
        )]
        Some(value as i64)
    }

    /// Reads a family of counters by one label: the label's values with what was counted.
    pub fn read_by_label(&self, name: &str) -> Vec<(String, i64)> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(MetricFamily::get_metric).unwrap_or_default();
        let read = metrics.iter().filter_map(|metric| {
            let label = metric.get_label().first()?.value().to_owned();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "counters count whole things, which fit"
            )]
            let counted = metric.get_counter().get_value() as i64;
            Some((label, counted))
        });
        read.collect()
    }

    /// Writes all metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!("metrics cannot be written: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    fn register(&self, metric: &(impl Collector + Clone + 'static)) {
        let registered = self.registry.register(Box::new(metric.clone()));
        registered.expect("each metric of a service is made once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_lets_libraries_tell_secrets() {
        for fine in ["trace", "info,async_nats=trace", "debug,tungstenite=trace"] {
            let filter = careful(fine).to_string();
            for kept in INDISCREET {
                assert!(filter.contains(kept), "{fine}: {filter}");
            }
            assert!(!filter.contains("async_nats=trace"), "{filter}");
        }
        assert_eq!(careful("warn").to_string(), "warn");
    }

    #[test]
    fn a_counter_shows_at_0_before_anything_happened() {
        let metrics = Metrics::new();
        metrics.counter("rows_stored_total", "Rows stored.");
        assert_eq!(metrics.read("rows_stored_total"), Some(0));
        assert!(
            metrics.render().contains("rows_stored_total 0"),
            "{}",
            metrics.render()
        );
    }
}
