//! The connections that are open, so that those of a deleted battery hear of it at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use uuid::Uuid;

use crate::batch::{Ending, Uploader};

/// Open connections by battery; as many as there are sockets and posts.
#[derive(Debug, Default)]
pub struct OpenUploads {
    by_battery: Mutex<HashMap<i64, Vec<Weak<Uploader>>>>,
}

impl OpenUploads {
    /// Notes a connection.
    pub fn add(&self, uploader: &Arc<Uploader>) {
        let mut open = self
            .by_battery
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let of_battery = open.entry(uploader.claim.battery_id).or_default();
        of_battery.retain(|known| known.strong_count() > 0);
        of_battery.push(Arc::downgrade(uploader));
    }

    /// Tells all connections of a battery that nothing more is stored.
    pub fn end(&self, battery_id: i64, reason: &str) {
        let mut open = self
            .by_battery
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ended = open.remove(&battery_id).unwrap_or_default();
        drop(open);
        for uploader in ended.iter().filter_map(Weak::upgrade) {
            uploader.end(Ending::Refused(reason.to_owned()));
        }
    }

    /// Returns the sessions of all connections.
    pub fn sessions(&self) -> Vec<Uuid> {
        let open = self
            .by_battery
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = open.values().flatten().filter_map(Weak::upgrade);
        open.map(|uploader| uploader.claim.session).collect()
    }

    /// Forgets batteries without connections.
    pub fn prune(&self) {
        let mut open = self
            .by_battery
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, uploaders| uploaders.iter().any(|known| known.strong_count() > 0));
    }
}
