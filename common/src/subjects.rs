//! Every subject, stream and bucket on the bus: builders and parsers side by side.

use crate::{
    auth::role::Word,
    name::{BatteryName, EstimatorName},
};

/// Stream of row frames.
pub const ROWS_STREAM: &str = "ROVI_ROWS";
/// Stream of estimate frames.
pub const ESTIMATES_STREAM: &str = "ROVI_ESTIMATES";
/// Stream in memory with the newest state of each battery.
pub const STATE_STREAM: &str = "ROVI_STATE";
/// Stream of what happened to batteries: changes of estimators, alerts.
pub const EVENTS_STREAM: &str = "ROVI_EVENTS";
/// Bucket with the alert rules, kept by the hub for all twins.
pub const ALERT_RULES_BUCKET: &str = "rovi_alert_rules";
/// Bucket with the episodes of alerts, written by the twins.
pub const ALERTS_BUCKET: &str = "rovi_alerts";
/// Bucket with the registered estimators, kept by the hub for all twins.
pub const ESTIMATORS_BUCKET: &str = "rovi_estimators";
/// Bucket in memory by which twins share the partitions: who lives, and who owns which.
pub const SHARES_BUCKET: &str = "rovi_shares";
/// Bucket with what every service has to know of tokens and batteries, kept by the hub.
pub const ACCESS_BUCKET: &str = "rovi_access";
/// Bucket with the checkpoints of estimators.
pub const CHECKPOINTS_BUCKET: &str = "rovi_checkpoints";
/// The bucket that tells which stored rows were corrected or deleted.
pub const CORRECTIONS_BUCKET: &str = "rovi_corrections";
/// Object store with the checkpoints that are too large for [`CHECKPOINTS_BUCKET`].
pub const CHECKPOINTS_STORE: &str = "rovi_large_checkpoints";
/// Object store with the companion files of estimators, kept by the hub for all twins.
pub const FILES_STORE: &str = "rovi_files";
/// Request: the hub commits a registration and answers when it is durable.
pub const REGISTER: &str = "rovi.hub.register";
/// Request: the hub commits the removal of a registration.
pub const DEREGISTER: &str = "rovi.hub.deregister";
/// Request: the hub commits that an estimator is promoted, paused, resumed or reset.
pub const CONTROL: &str = "rovi.hub.control";
/// Requests that any twin answers: `rovi.twin.<command>`.
pub const TWIN_REQUESTS: &str = "rovi.twin";
/// Queue group of the twins that answer requests.
pub const TWIN_QUEUE: &str = "twins";
/// Bucket with backtests and what they found, written by the twins that run them.
pub const BACKTESTS_BUCKET: &str = "rovi_backtests";
/// Request: the hub commits an alert rule and answers when it is durable.
pub const PUT_ALERT_RULE: &str = "rovi.hub.alert_rules.put";
/// Request: the hub commits the removal of an alert rule.
pub const DELETE_ALERT_RULE: &str = "rovi.hub.alert_rules.delete";
/// Request: the hub keeps an entry of the audit and answers when it is durable.
pub const AUDIT: &str = "rovi.hub.audit";
/// Queue group of the hubs that answer requests.
pub const HUB_QUEUE: &str = "hubs";

const ROWS: &str = "rovi.rows";
const ESTIMATES: &str = "rovi.estimates";
const STATE: &str = "rovi.state";
const EVENT: &str = "rovi.event";
const TENANT: &str = "rovi.tenant";
const SERVICE: &str = "rovi.service";

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

/// Filter for the stored rows of all batteries.
pub fn all_stored_rows() -> String {
    format!("{ROWS}.*.*")
}

/// Filter for the stored rows of one partition.
pub fn partition_rows(partition: u32) -> String {
    format!("{ROWS}.{partition}.*")
}

/// The partition into which [`stored_rows_transform`] puts a battery: the server's FNV-1a hash of its
/// name, modulo their number.
pub fn partition_of(battery: &BatteryName, partitions: u32) -> u32 {
    let hash = battery
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    hash % partitions.max(1)
}

/// Reads the number of partitions from a destination that [`stored_rows_transform`] made.
pub fn parse_partitions(transform: &str) -> Option<u32> {
    let (_, rest) = transform.split_once("{{partition(")?;
    rest.split_once(',')?.0.parse().ok()
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

/// Subject of a battery's newest state: `rovi.state.<battery>`.
pub fn state_of(battery: &BatteryName) -> String {
    format!("{STATE}.{battery}")
}

/// Filter for the states of all batteries.
pub fn all_states() -> String {
    format!("{STATE}.*")
}

/// Reads the battery of a state's subject.
pub fn parse_state(subject: &str) -> Option<BatteryName> {
    battery_after(STATE, subject)
}

/// Subject of a battery's states for those who may hear of one tenant alone:
/// `rovi.tenant.<tenant>.state.<battery>`.
pub fn tenant_state_of(tenant: &Word, battery: &BatteryName) -> String {
    format!("{TENANT}.{tenant}.state.{battery}")
}

/// Subject of what happened to a battery: `rovi.event.<battery>`.
pub fn event_of(battery: &BatteryName) -> String {
    format!("{EVENT}.{battery}")
}

/// Filter for the events of all batteries.
pub fn all_events() -> String {
    format!("{EVENT}.*")
}

/// Reads the battery of an event's subject.
pub fn parse_event(subject: &str) -> Option<BatteryName> {
    battery_after(EVENT, subject)
}

/// Subject of a service's heartbeats: `rovi.service.<service>.<instance>`.
pub fn heartbeat_of(service: &str, instance: &str) -> String {
    format!("{SERVICE}.{service}.{instance}")
}

/// Filter for the heartbeats of all services.
pub fn all_heartbeats() -> String {
    format!("{SERVICE}.*.*")
}

/// Request to one run of a twin: what it knows of the estimators that it runs. It lies beside
/// [`TWIN_REQUESTS`], whose listeners would answer it, too.
pub fn twin(instance: &str) -> String {
    format!("rovi.peer.{instance}")
}

/// Reads service and instance of a heartbeat's subject.
pub fn parse_heartbeat(subject: &str) -> Option<(&str, &str)> {
    let (service, instance) = subject
        .strip_prefix(SERVICE)?
        .strip_prefix('.')?
        .split_once('.')?;
    let is_whole = !service.is_empty() && !instance.is_empty() && !instance.contains('.');
    is_whole.then_some((service, instance))
}

fn battery_after(prefix: &str, subject: &str) -> Option<BatteryName> {
    let battery = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    battery.parse().ok()
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
        assert_eq!(parse_state(&state_of(&battery)), Some(battery.clone()));
        assert_eq!(parse_event(&event_of(&battery)), Some(battery.clone()));
        let heartbeat = heartbeat_of("twin", "a1b2");
        assert_eq!(parse_heartbeat(&heartbeat), Some(("twin", "a1b2")));
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
    fn foreign_subjects_are_not_taken_for_news() {
        for subject in [
            "rovi.state",
            "rovi.state.a.b",
            "rovi.states.a",
            "rovi.event.*",
        ] {
            assert_eq!(parse_state(subject), None, "{subject}");
        }
        for subject in [
            "rovi.service.twin",
            "rovi.service.twin.",
            "rovi.service.a.b.c",
        ] {
            assert_eq!(parse_heartbeat(subject), None, "{subject}");
        }
    }

    #[test]
    fn the_number_of_partitions_can_be_read_from_the_stream() {
        assert_eq!(parse_partitions(&stored_rows_transform(16)), Some(16));
        assert_eq!(parse_partitions("rovi.rows.{{wildcard(1)}}"), None);
    }

    #[test]
    fn the_transform_spreads_batteries_over_partitions() {
        assert_eq!(
            stored_rows_transform(16),
            "rovi.rows.{{partition(16,1)}}.{{wildcard(1)}}"
        );
    }
}
