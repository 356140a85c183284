//! Hop 7 of 7, for everyone at once: the newest row of each battery and what its estimators say, on
//! `rovi.state.<battery>`.
//!
//! In: frames as partitions hand them over, and the word of workers that something changed. Out: a
//! state on the bus, at most five a second of each battery. On failure: the battery is tried again.
//!
//! Any twin may speak for any battery. It joins what the bus says with what it knows itself
//! (`join`), and sends that only if it says more, by compare-and-set of the subject's last
//! message: a twin that is behind, or was frozen and comes back, has nothing to add.

mod fill;
pub(crate) mod join;
pub(crate) mod newest;
mod publish;

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use litemap::LiteMap;
use rovi_common::{name::BatteryName, news::Estimated};
use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

pub(crate) use self::{fill::fill, publish::publish};
use crate::{filter::Position, status::HealthStatus};

/// The shortest time between two states of a battery.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a row waits for the estimate that it causes, so that both go out together.
const WAIT_FOR_ESTIMATE: Duration = Duration::from_millis(100);
/// How soon a state that could not be sent is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The newest frame of a battery, not decoded: most frames are overtaken before anybody looks.
#[derive(Debug, Clone)]
pub(crate) struct Newest {
    pub(crate) last: Position,
    pub(crate) payload: Bytes,
}

/// Batteries with something to say.
#[derive(Debug, Default)]
pub struct Outlet {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: HashMap<BatteryName, Slot>,
    due: BTreeSet<(Instant, BatteryName)>,
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Instant>,
    last: Option<Instant>,
    newest: Option<Newest>,
}

impl Outlet {
    /// Takes a frame of a battery; `is_estimated` tells whether an estimator is about to take it.
    pub fn row(&self, battery: &BatteryName, last: Position, payload: &Bytes, is_estimated: bool) {
        let wait = if is_estimated {
            WAIT_FOR_ESTIMATE
        } else {
            Duration::ZERO
        };
        let mut waiting = self.waiting();
        let slot = waiting.slots.entry(battery.clone()).or_default();
        if slot.newest.as_ref().is_none_or(|known| known.last < last) {
            let payload = payload.clone();
            slot.newest = Some(Newest { last, payload });
        }
        waiting.set_due(battery, Instant::now() + wait, false);
        drop(waiting);
        self.wake.notify_one();
    }

    /// Tells that an estimator of a battery has something new to say.
    pub fn touch(&self, battery: &BatteryName) {
        self.waiting().set_due(battery, Instant::now(), true);
        self.wake.notify_one();
    }

    /// Has a battery looked at again after a failure; a newer frame that came since stays.
    fn retry(&self, battery: &BatteryName, newest: Option<Newest>, after: Duration) {
        let mut waiting = self.waiting();
        let slot = waiting.slots.entry(battery.clone()).or_default();
        let is_newer = |kept: &Newest| newest.as_ref().is_none_or(|back| back.last < kept.last);
        if !slot.newest.as_ref().is_some_and(is_newer) {
            slot.newest = newest;
        }
        waiting.set_due(battery, Instant::now() + after, false);
    }

    /// Takes what is due, and tells when the next will be.
    fn take_due(&self, most: usize) -> (Vec<(BatteryName, Option<Newest>)>, Option<Instant>) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((due, _)) = waiting.due.first()
            && *due <= now
            && let Some((_, battery)) = waiting.due.pop_first()
        {
            let Some(slot) = waiting.slots.get_mut(&battery) else {
                continue;
            };
            slot.due = None;
            slot.last = Some(now);
            let newest = mem::take(&mut slot.newest);
            taken.push((battery, newest));
        }
        let next = waiting.due.first().map(|(due, _)| *due);
        (taken, next)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Makes a battery due, never within the interval; an earlier time stands, and a later one gives
    /// way only to `sooner`.
    fn set_due(&mut self, battery: &BatteryName, at: Instant, sooner: bool) {
        let slot = self.slots.entry(battery.clone()).or_default();
        let at = slot.last.map_or(at, |last| at.max(last + INTERVAL));
        if let Some(known) = slot.due {
            if known <= at || !sooner {
                return;
            }
            self.due.remove(&(known, battery.clone()));
        }
        slot.due = Some(at);
        self.due.insert((at, battery.clone()));
    }
}

/// Names what an estimator says: each state, besides `state_of_charge` (0 to 1) and, where the
/// capacity is estimated, `state_of_health` (capacity over nominal).
pub(crate) fn values_of(
    states: &[String],
    (mean, covariance): (&[f64], &[f64]),
    health: Option<&HealthStatus>,
) -> LiteMap<String, Estimated> {
    let variances = covariance.iter().step_by(mean.len() + 1);
    let numbers = mean.iter().zip(variances);
    let mut values: LiteMap<String, Estimated> = states
        .iter()
        .zip(numbers)
        .map(|(name, (&mean, variance))| (name.clone(), Estimated::new(mean, variance.sqrt())))
        .collect();
    if let Some(charge) = values.get("soc").copied() {
        values.insert("state_of_charge".to_owned(), charge);
    }
    if let Some(health) = health
        && let Some(deviation) = health.state_of_health_std
    {
        let health = Estimated::new(health.state_of_health, deviation);
        values.insert("state_of_health".to_owned(), health);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: i64) -> (Position, Bytes) {
        (Position { epoch: 1, seq }, Bytes::from_static(b"frame"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_battery_speaks_at_most_five_times_a_second_with_its_newest_row() {
        let (outlet, battery) = (Outlet::default(), "b7".parse().unwrap());
        let mut spoken = Vec::new();
        for seq in 1..=1000 {
            let (last, payload) = frame(seq);
            outlet.row(&battery, last, &payload, false);
            let (due, _) = outlet.take_due(10);
            spoken.extend(due.into_iter().filter_map(|(_, newest)| newest));
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        assert_eq!(spoken.len(), 10);
        let seqs: Vec<i64> = spoken.iter().map(|newest| newest.last.seq).collect();
        assert_eq!(seqs[..3], [1, 101, 201]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_waits_for_its_estimate_but_not_for_ever() {
        let (outlet, battery) = (Outlet::default(), "b7".parse().unwrap());
        let (last, payload) = frame(1);
        outlet.row(&battery, last, &payload, true);
        assert!(outlet.take_due(10).0.is_empty());
        outlet.touch(&battery);
        assert_eq!(outlet.take_due(10).0.len(), 1);
        tokio::time::advance(INTERVAL).await;
        outlet.row(&battery, last, &payload, true);
        tokio::time::advance(WAIT_FOR_ESTIMATE).await;
        assert_eq!(outlet.take_due(10).0.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_sent_does_not_replace_what_came_since() {
        let (outlet, battery) = (Outlet::default(), "b7".parse().unwrap());
        let (last, payload) = frame(1);
        outlet.row(&battery, last, &payload, false);
        let (_, old) = outlet.take_due(1).0.remove(0);
        let (last, payload) = frame(2);
        outlet.row(&battery, last, &payload, false);
        outlet.retry(&battery, old, TRY_AGAIN);
        tokio::time::advance(TRY_AGAIN).await;
        let (_, newest) = outlet.take_due(1).0.remove(0);
        assert_eq!(newest.unwrap().last.seq, 2);
    }
}
