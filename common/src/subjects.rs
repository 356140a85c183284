//! Every subject, stream and bucket on the bus: builders and parsers side by side.

use crate::name::{BatteryName, EstimatorName};

/// Stream of row frames.
pub const ROWS_STREAM: &str = "ROVI_ROWS";
/// Stream of estimate frames.
pub const ESTIMATES_STREAM: &str = "ROVI_ESTIMATES";
/// Bucket with the registered estimators, kept by the hub for all twins.
pub const ESTIMATORS_BUCKET: &str = "rovi_estimators";
/// Bucket with the checkpoints of estimators.
pub const CHECKPOINTS_BUCKET: &str = "rovi_checkpoints";
/// Object store with the companion files of estimators, kept by the hub for all twins.
pub const FILES_STORE: &str = "rovi_files";
/// Request: the hub commits a registration and answers when it is durable.
pub const REGISTER: &str = "rovi.hub.register";
/// Request: the hub commits the removal of a registration.
pub const DEREGISTER: &str = "rovi.hub.deregister";
/// Queue group of the hubs that answer requests.
pub const HUB_QUEUE: &str = "hubs";

const ROWS: &str = "rovi.rows";
const ESTIMATES: &str = "rovi.estimates";

/// What producers and plain subscribers use: `rovi.rows.<battery>`.
pub fn rows_of(battery: &BatteryName) -> String {
    format!("{ROWS}.{battery}")
}

/// The subjects that the rows stream takes in.
pub fn all_rows() -> String {
    format!("{ROWS}.*")
}

/// How the stream stores what [`rows_of`] names: `rovi.rows.<partition>.<battery>`.
pub fn stored_rows_transform(partitions: u32) -> String {
    format!("{ROWS}.{{{{partition({partitions},1)}}}}.{{{{wildcard(1)}}}}")
}

/// Filter for the stored rows of one battery, whatever its partition.
pub fn stored_rows_of(battery: &BatteryName) -> String {
    format!("{ROWS}.*.{battery}")
}

/// Filter for the stored rows of one partition.
pub fn partition_rows(partition: u32) -> String {
    format!("{ROWS}.{partition}.*")
}

/// Reads partition and battery of a stored row frame's subject.
pub fn parse_stored_rows(subject: &str) -> Option<(u32, BatteryName)> {
    let (partition, battery) = subject
        .strip_prefix(ROWS)?
        .strip_prefix('.')?
        .split_once('.')?;
    Some((partition.parse().ok()?, battery.parse().ok()?))
}

/// Subject of an estimator's frames: `rovi.estimates.<battery>.<estimator>`.
pub fn estimates_of(battery: &BatteryName, estimator: &EstimatorName) -> String {
    format!("{ESTIMATES}.{battery}.{estimator}")
}

/// Filter for the estimates of every estimator of one battery.
pub fn all_estimates_of(battery: &BatteryName) -> String {
    format!("{ESTIMATES}.{battery}.*")
}

/// Filter for the estimates of every estimator of every battery.
pub fn all_estimates() -> String {
    format!("{ESTIMATES}.*.*")
}

/// Name of the durable consumer that the twins share for one partition.
pub fn partition_consumer(partition: u32) -> String {
    format!("twin-{partition}")
}

/// Key of an estimator in [`ESTIMATORS_BUCKET`] and [`CHECKPOINTS_BUCKET`].
pub fn estimator_key(battery: &BatteryName, estimator: &EstimatorName) -> String {
    format!("{battery}.{estimator}")
}

/// Reads a key that [`estimator_key`] made.
pub fn parse_estimator_key(key: &str) -> Option<(BatteryName, EstimatorName)> {
    let (battery, estimator) = key.split_once('.')?;
    Some((battery.parse().ok()?, estimator.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_and_parsers_agree() {
        let battery: BatteryName = "batch_B10A-3".parse().unwrap();
        let estimator = EstimatorName::default();
        let stored = format!("rovi.rows.7.{battery}");
        assert_eq!(parse_stored_rows(&stored), Some((7, battery.clone())));
        let key = estimator_key(&battery, &estimator);
        assert_eq!(parse_estimator_key(&key), Some((battery, estimator)));
    }

    #[test]
    fn foreign_subjects_are_not_taken_for_rows() {
        for subject in [
            "rovi.rows.b7",
            "rovi.rows.7.a.b",
            "rovi.rowsx.7.a",
            "rovi.rows.x.a",
        ] {
            assert_eq!(parse_stored_rows(subject), None, "{subject}");
        }
    }

    #[test]
    fn the_transform_spreads_batteries_over_partitions() {
        assert_eq!(
            stored_rows_transform(16),
            "rovi.rows.{{partition(16,1)}}.{{wildcard(1)}}"
        );
    }
}
