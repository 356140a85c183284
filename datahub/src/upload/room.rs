//! Room in the queues, taken before rows may wait to be stored.
//!
//! A battery whose table is locked fills its own room; its uploaders then stop being read, and
//! nobody else notices.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for all batteries and for each.
#[derive(Debug)]
pub struct Rooms {
    all: Arc<Semaphore>,
    all_bytes: u32,
    each_bytes: u32,
    batteries: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

/// Room for the rows of one battery, shared by its connections.
#[derive(Debug, Clone)]
pub struct Room {
    battery: Arc<Semaphore>,
    battery_bytes: u32,
    all: Arc<Semaphore>,
    all_bytes: u32,
}

impl Rooms {
    /// Makes room for `all_bytes`, of which one battery may take `each_bytes`.
    pub fn new(all_bytes: u32, each_bytes: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all_bytes as usize)),
            all_bytes,
            each_bytes,
            batteries: Mutex::default(),
        }
    }

    /// Returns the room of a battery.
    pub fn of(&self, battery_id: i64) -> Room {
        let mut batteries = self
            .batteries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = batteries.get(&battery_id).and_then(Weak::upgrade);
        let battery = known.unwrap_or_else(|| {
            batteries.retain(|_, room| room.strong_count() > 0);
            let room = Arc::new(Semaphore::new(self.each_bytes as usize));
            batteries.insert(battery_id, Arc::downgrade(&room));
            room
        });
        Room {
            battery,
            battery_bytes: self.each_bytes,
            all: Arc::clone(&self.all),
            all_bytes: self.all_bytes,
        }
    }
}

impl Room {
    /// Waits for room for `bytes`; what is larger than all there is takes all of it.
    pub async fn take(&self, bytes: usize) -> Vec<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut permits = Vec::with_capacity(2);
        let parts = [
            (&self.battery, self.battery_bytes),
            (&self.all, self.all_bytes),
        ];
        for (semaphore, most) in parts {
            let permit = Arc::clone(semaphore)
                .acquire_many_owned(bytes.min(most))
                .await;
            // The semaphores are never closed.
            permits.extend(permit.ok());
        }
        permits
    }
}
