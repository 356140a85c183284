//! Alerts: when a battery breaks a rule, it is told once, and once when that ends.
//!
//! Rules belong to the hub; `follow` reads them from its bucket. `judge` says of one state
//! whether it breaks a rule. `engine` waits as long as the rule says and then writes an
//! [`Episode`] by compare-and-set into the bucket of alerts: whoever writes it tells it as an event.
//! So an episode begins and ends once, whichever twins come, go or see it at the same time.
//! `webhook` posts those events, from the stream, until they are taken; `reach` says where to.

mod engine;
mod follow;
mod judge;
mod reach;
mod webhook;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rovi_common::{
    alerts::{AlertRule, Episode},
    name::{BatteryName, EstimatorName},
};

pub(crate) use self::{engine::run, follow::follow, webhook::deliver};
pub use self::{reach::Reach, webhook::Hooks};

/// An episode, and where it stands in the bucket.
type Placed = (u64, Episode);

/// The rules in force and the newest episode of each rule and battery, as the buckets have them.
#[derive(Debug, Default)]
pub struct Alerts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rules: BTreeMap<EstimatorName, Arc<AlertRule>>,
    episodes: BTreeMap<(EstimatorName, BatteryName), Placed>,
}

impl Alerts {
    /// Returns the rules in force, by name.
    pub fn rules(&self) -> Vec<Arc<AlertRule>> {
        self.inner().rules.values().map(Arc::clone).collect()
    }

    /// Returns a rule in force.
    pub fn rule(&self, name: &EstimatorName) -> Option<Arc<AlertRule>> {
        self.inner().rules.get(name).map(Arc::clone)
    }

    /// Returns the newest episode of each rule and battery.
    pub fn episodes(&self) -> Vec<Episode> {
        let inner = self.inner();
        let episodes = inner.episodes.values();
        episodes.map(|(_, episode)| episode.clone()).collect()
    }

    /// Puts a rule or tombstone into force.
    pub fn apply(&self, rule: AlertRule) {
        let mut inner = self.inner();
        let is_older = inner
            .rules
            .get(&rule.rule)
            .is_some_and(|known| known.revision > rule.revision);
        if rule.definition.is_none() {
            inner.rules.remove(&rule.rule);
        } else if !is_older {
            inner.rules.insert(rule.rule.clone(), Arc::new(rule));
        }
    }

    fn forget(&self, rule: &EstimatorName) {
        self.inner().rules.remove(rule);
    }

    fn placed(&self) -> Vec<Placed> {
        self.inner().episodes.values().cloned().collect()
    }

    fn find(&self, rule: &EstimatorName, battery: &BatteryName) -> Option<Placed> {
        let key = (rule.clone(), battery.clone());
        self.inner().episodes.get(&key).cloned()
    }

    /// Takes an episode, unless a newer one is known.
    fn place(&self, place: u64, episode: Episode) {
        let key = (episode.rule.clone(), episode.battery.clone());
        let mut inner = self.inner();
        let known = inner.episodes.get(&key);
        if known.is_none_or(|(known, _)| *known < place) {
            inner.episodes.insert(key, (place, episode));
        }
    }

    /// Begins to read the buckets anew, after they were lost.
    fn begin(&self) {
        self.inner().episodes.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
