//! Moving `hub.batteries.relayed_seq` after the bus acknowledged: many batteries at once, and
//! never in anybody's way. A hint that gets lost is found again by the sweep.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{Mutex, PoisonError},
};

use rovi_common::error::ErrorChain;
use uuid::Uuid;

use super::table::{self, Relayed};
use crate::store::Pool;

/// What was acknowledged since the last flush: one line for each battery.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: Mutex<HashMap<i64, (Uuid, Relayed)>>,
}

impl Hints {
    /// Notes that the bus of `bus_epoch` has a battery's rows up to a place.
    pub(super) fn note(&self, bus_epoch: Uuid, relayed: Relayed) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.entry(relayed.battery_id) {
            Entry::Vacant(place) => {
                place.insert((bus_epoch, relayed));
            }
            Entry::Occupied(mut place) => {
                let (_, known) = place.get();
                if (known.epoch, known.seq) <= (relayed.epoch, relayed.seq) {
                    place.insert((bus_epoch, relayed));
                }
            }
        }
    }

    /// Writes what was noted on the bus of `bus_epoch`, and forgets it whether that works or not.
    pub(super) async fn flush(&self, pool: &Pool, bus_epoch: Uuid) {
        let noted = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let relayed: Vec<Relayed> = noted
            .into_values()
            .filter(|(noted_on, _)| *noted_on == bus_epoch)
            .map(|(_, relayed)| relayed)
            .collect();
        if relayed.is_empty() {
            return;
        }
        let count = relayed.len();
        let written = pool.run(move |conn| table::mark_relayed(conn, bus_epoch, &relayed));
        match written.await {
            Ok(moved) => tracing::debug!("marked {moved} of {count} batteries as relayed"),
            Err(error) => tracing::debug!(
                "{count} batteries were not marked as relayed: {}",
                ErrorChain(&error)
            ),
        }
    }
}
