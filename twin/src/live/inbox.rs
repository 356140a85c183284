//! What one watcher has not got yet: at most one state of each battery.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rovi_common::{
    auth::{Access, Role},
    name::BatteryName,
};
use tokio::sync::Notify;

use super::{board::Version, shape::Fields};

/// A battery and its newest state, or nothing where the battery is no more.
pub(super) type News = (BatteryName, Option<Arc<Version>>);

/// The newest states that wait for one watcher.
#[derive(Debug)]
pub(super) struct Inbox {
    /// What the watcher wants to see.
    pub(super) fields: Arc<Fields>,
    /// Whom it is for, and so what it holds; asked for each state, since that may change.
    access: Access,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<BatteryName>,
    newest: HashMap<BatteryName, Option<Arc<Version>>>,
    conflated: u64,
}

impl Inbox {
    pub(super) fn new(fields: Arc<Fields>, access: Access) -> Self {
        Self {
            fields,
            access,
            waiting: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Puts a state, in place of an older one of its battery.
    pub(super) fn put(&self, battery: &BatteryName, version: Option<Arc<Version>>) {
        if !self.access.may(Role::Reader, battery) {
            return;
        }
        let mut waiting = self.waiting();
        if let Some(older) = waiting.newest.get_mut(battery) {
            *older = version;
            waiting.conflated += 1;
            return;
        }
        waiting.newest.insert(battery.clone(), version);
        waiting.order.push_back(battery.clone());
        drop(waiting);
        self.wake.notify_one();
    }

    /// Takes the state that waits longest.
    pub(super) fn take(&self) -> Option<News> {
        let mut waiting = self.waiting();
        let battery = waiting.order.pop_front()?;
        let version = waiting.newest.remove(&battery)?;
        if waiting.order.is_empty() {
            // An idle watcher keeps no room for a burst of the past.
            waiting.order = VecDeque::new();
            waiting.newest = HashMap::new();
        }
        Some((battery, version))
    }

    /// Tells how many states were replaced since this was asked last.
    pub(super) fn take_conflated(&self) -> u64 {
        mem::take(&mut self.waiting().conflated)
    }

    /// Waits until something may be there; may be dropped while waiting.
    pub(super) async fn arrived(&self) {
        if self.waiting().order.is_empty() {
            self.wake.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
