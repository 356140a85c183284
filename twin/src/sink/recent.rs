//! The newest estimates of every battery, and what a picture shows of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rovi_common::{
    frame::EstimateFrame,
    name::{BatteryName, EstimatorName},
    news::BatteryState,
};
use rovi_pictures::{Chart, Line, Panel, Point, estimate_label, estimate_rank, time_unit};

/// Estimates that are kept of each estimator, and shown of the champion: some 120 KiB.
const KEPT: usize = 500;
/// Panels of a picture.
const PANELS: usize = 6;
/// What the column of a standard deviation ends in.
const STD: &str = "__std";

/// What is known of all batteries.
#[derive(Debug, Default)]
pub(super) struct Recent {
    batteries: BTreeMap<BatteryName, Battery>,
    changed: BTreeSet<BatteryName>,
}

#[derive(Debug, Default)]
struct Battery {
    champion: Option<EstimatorName>,
    estimators: BTreeMap<EstimatorName, Series>,
}

/// The newest estimates of one estimator.
#[derive(Debug, Default)]
struct Series {
    epoch: i64,
    /// By row.
    estimates: BTreeMap<i64, Estimate>,
}

#[derive(Debug)]
struct Estimate {
    /// Revision and generation: a newer one counts instead.
    version: (i64, i64),
    test_time: f64,
    /// The panels; the same for all estimates of a frame.
    names: Arc<[String]>,
    /// Value and standard deviation for each.
    values: Vec<(f64, Option<f64>)>,
}

impl Recent {
    /// Takes estimates.
    pub(super) fn take(&mut self, frame: &EstimateFrame) {
        let battery = self.batteries.entry(frame.battery.clone()).or_default();
        let series = battery.estimators.entry(frame.estimator.clone());
        series.or_default().take(frame);
        self.changed.insert(frame.battery.clone());
    }

    /// Notes whose numbers count.
    pub(super) fn name_champion(&mut self, state: &BatteryState) {
        let battery = self.batteries.entry(state.battery.clone()).or_default();
        let champion = Some(state.champion());
        if battery.champion != champion {
            battery.champion = champion;
            self.changed.insert(state.battery.clone());
        }
    }

    /// Forgets a battery that was deleted.
    pub(super) fn forget(&mut self, battery: &BatteryName) {
        if self.batteries.remove(battery).is_some() {
            self.changed.insert(battery.clone());
        }
    }

    /// Says that a battery is to be drawn again.
    pub(super) fn again(&mut self, battery: BatteryName) {
        self.changed.insert(battery);
    }

    /// Returns the batteries that changed since the last call.
    pub(super) fn changed(&mut self) -> BTreeSet<BatteryName> {
        std::mem::take(&mut self.changed)
    }

    /// Tells whether the battery was deleted.
    pub(super) fn is_gone(&self, battery: &BatteryName) -> bool {
        !self.batteries.contains_key(battery)
    }

    /// Makes the chart of a battery, if its champion said anything.
    pub(super) fn chart(&self, battery: &BatteryName) -> Option<Chart> {
        let known = self.batteries.get(battery)?;
        let champion = known.champion.as_ref()?;
        let series = known.estimators.get(champion)?;
        series.chart(battery, champion)
    }
}

impl Series {
    fn take(&mut self, frame: &EstimateFrame) {
        if frame.epoch < self.epoch {
            return;
        }
        if frame.epoch > self.epoch {
            self.epoch = frame.epoch;
            self.estimates.clear();
        }
        let version = (frame.revision, frame.generation);
        if let Some((first, last)) = frame.replaces {
            let is_replaced =
                |seq: i64, old: &Estimate| (first..=last).contains(&seq) && old.version < version;
            self.estimates.retain(|seq, old| !is_replaced(*seq, old));
        }
        let shown = shown(frame);
        let newest = frame.seq.iter().zip(&frame.test_time).enumerate();
        let skipped = frame.seq.len().saturating_sub(KEPT);
        for (row, (seq, test_time)) in newest.skip(skipped) {
            let known = self.estimates.get(seq);
            if known.is_some_and(|known| known.version > version) {
                continue;
            }
            let number = |name: &str| frame.columns.get(name)?.number(row);
            let value = |name: &String| {
                let value = number(name).unwrap_or(f64::NAN);
                (value, number(&format!("{name}{STD}")))
            };
            let estimate = Estimate {
                version,
                test_time: *test_time,
                names: Arc::clone(&shown),
                values: shown.iter().map(value).collect(),
            };
            self.estimates.insert(*seq, estimate);
        }
        while self.estimates.len() > KEPT {
            self.estimates.pop_first();
        }
    }

    fn chart(&self, battery: &BatteryName, estimator: &EstimatorName) -> Option<Chart> {
        let (first, _) = self.estimates.first_key_value()?;
        let (last, newest) = self.estimates.last_key_value()?;
        let times = || self.estimates.values().map(|estimate| estimate.test_time);
        let most = times().filter(|time| time.is_finite()).fold(0.0, f64::max);
        let (unit, seconds) = time_unit(most);
        let panel = |name: &String| Panel {
            label: estimate_label(name),
            line: Line {
                points: self
                    .estimates
                    .values()
                    .map(|estimate| estimate.point(name, seconds))
                    .collect(),
            },
        };
        Some(Chart {
            title: battery.to_string(),
            subtitle: format!("estimates of {estimator}, rows {first} to {last}"),
            axis: format!("test time ({unit})"),
            panels: newest.names.iter().map(panel).collect(),
        })
    }
}

impl Estimate {
    fn point(&self, name: &str, seconds: f64) -> Point {
        let place = self.names.iter().position(|known| known == name);
        let value = place.and_then(|place| self.values.get(place));
        Point {
            x: self.test_time / seconds,
            y: value.map_or(f64::NAN, |(value, _)| *value),
            std: value.and_then(|(_, std)| *std),
        }
    }
}

/// Chooses the columns that are shown: those that tell most and have a standard deviation, as the hub does.
fn shown(frame: &EstimateFrame) -> Arc<[String]> {
    let names = || frame.columns.iter().map(|(name, _)| name);
    let has_deviation = |name: &&str| frame.columns.get(&format!("{name}{STD}")).is_some();
    let mut shown: Vec<&str> = names().filter(has_deviation).collect();
    shown.sort_by_key(|name| estimate_rank(name));
    shown.into_iter().take(PANELS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use rovi_common::{
        frame::FRAME_VERSION,
        rows::{Column, Columns},
    };

    use super::*;

    fn frame(seqs: std::ops::RangeInclusive<i64>, generation: i64, soc: f64) -> EstimateFrame {
        let rows = usize::try_from(seqs.end() - seqs.start() + 1).unwrap();
        let column = |value| Column::Float(vec![Some(value); rows]);
        let columns = vec![
            ("soc".to_owned(), column(soc)),
            ("soc__std".to_owned(), column(0.1)),
            ("trust".to_owned(), column(0.0)),
        ];
        EstimateFrame {
            v: FRAME_VERSION,
            battery: "b7".parse().unwrap(),
            estimator: "default".parse().unwrap(),
            revision: 1,
            generation,
            epoch: 1,
            seq: seqs.collect(),
            test_time: vec![1.0; rows],
            columns: Columns::new(columns).unwrap(),
            replaces: None,
            lineage: None,
        }
    }

    /// What is drawn of the battery once its champion is known.
    fn drawn(recent: &mut Recent) -> (String, Vec<String>, Vec<f64>) {
        let battery: BatteryName = "b7".parse().unwrap();
        recent.name_champion(&BatteryState::unknown(battery.clone()));
        let chart = recent.chart(&battery).unwrap();
        let labels = chart.panels.iter().map(|panel| panel.label.clone());
        let values = chart.panels[0].line.points.iter().map(|point| point.y);
        (chart.subtitle.clone(), labels.collect(), values.collect())
    }

    #[test]
    fn only_the_newest_estimates_are_kept_and_those_with_a_deviation_shown() {
        let mut recent = Recent::default();
        recent.take(&frame(1..=400, 1, 0.5));
        recent.take(&frame(401..=1400, 1, 0.6));
        let (subtitle, labels, values) = drawn(&mut recent);
        assert_eq!(subtitle, "estimates of default, rows 901 to 1400");
        assert_eq!(
            (labels, values.len()),
            (vec!["state of charge".to_owned()], KEPT)
        );
    }

    #[test]
    fn what_is_estimated_anew_counts_instead_whenever_it_comes() {
        let mut recent = Recent::default();
        recent.take(&frame(1..=3, 1, 0.5));
        recent.take(&frame(2..=2, 7, 0.7));
        recent.take(&frame(2..=3, 1, 0.5));
        assert_eq!(drawn(&mut recent).2, [0.5, 0.7, 0.5]);
        let mut replacing = frame(1..=1, 9, 0.9);
        replacing.replaces = Some((1, 3));
        recent.take(&replacing);
        assert_eq!(drawn(&mut recent).2, [0.9]);
    }

    #[test]
    fn a_new_epoch_begins_anew_and_a_deleted_battery_is_forgotten() {
        let mut recent = Recent::default();
        recent.take(&frame(1..=3, 1, 0.5));
        recent.take(&EstimateFrame {
            epoch: 2,
            ..frame(1..=1, 1, 0.2)
        });
        recent.take(&frame(4..=4, 1, 0.5));
        assert_eq!(drawn(&mut recent).2, [0.2]);
        let battery = "b7".parse().unwrap();
        recent.changed();
        recent.forget(&battery);
        assert!(recent.is_gone(&battery) && recent.changed().contains(&battery));
    }
}
