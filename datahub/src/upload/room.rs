//! Room in the queues, taken before rows may wait to be stored.
//!
//! A battery whose table is locked fills its own room; its uploaders then stop being read, and
//! nobody else notices. Batteries that are set aside share room of their own, so that however many
//! there are, the others have theirs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Why a battery is set aside, and since when.
#[derive(Debug, Clone)]
pub struct Notice {
    /// When it was set aside.
    pub since: Instant,
    /// Why, for whoever sends its rows.
    pub reason: Arc<str>,
}

/// Room for all batteries and for each.
#[derive(Debug)]
pub struct Rooms {
    pools: Arc<Pools>,
    batteries: Mutex<HashMap<i64, Weak<BatteryRoom>>>,
}

/// The room that batteries share.
#[derive(Debug)]
struct Pools {
    each_bytes: u32,
    half_bytes: u32,
    /// For batteries that are written.
    live: Arc<Semaphore>,
    /// For batteries that are set aside.
    aside: Arc<Semaphore>,
}

/// What the connections of one battery share.
#[derive(Debug)]
struct BatteryRoom {
    room: Arc<Semaphore>,
    notice: watch::Sender<Option<Notice>>,
}

/// Room for the rows of one battery, shared by its connections.
#[derive(Debug, Clone)]
pub struct Room {
    battery: Arc<BatteryRoom>,
    pools: Arc<Pools>,
}

/// Room taken for one batch.
#[derive(Debug)]
pub struct Seat {
    _battery: OwnedSemaphorePermit,
    pool: OwnedSemaphorePermit,
    is_aside: bool,
    pools: Arc<Pools>,
}

impl Rooms {
    /// Makes room for `all_bytes`, of which one battery may take `each_bytes`, and those that are
    /// set aside half.
    pub fn new(all_bytes: u32, each_bytes: u32) -> Self {
        let half_bytes = all_bytes / 2;
        let half = || Arc::new(Semaphore::new(half_bytes as usize));
        let pools = Pools {
            each_bytes,
            half_bytes,
            live: half(),
            aside: half(),
        };
        Self {
            pools: Arc::new(pools),
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
            let battery = Arc::new(BatteryRoom {
                room: Arc::new(Semaphore::new(self.pools.each_bytes as usize)),
                notice: watch::Sender::new(None),
            });
            batteries.insert(battery_id, Arc::downgrade(&battery));
            battery
        });
        Room {
            battery,
            pools: Arc::clone(&self.pools),
        }
    }
}

impl Room {
    /// Waits for room for `bytes`; what is larger than all there is takes all of it.
    ///
    /// Returns `None` only if the semaphores were closed, which nobody does.
    pub async fn take(&self, bytes: usize) -> Option<Seat> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let most = bytes.min(self.pools.each_bytes);
        let battery = Arc::clone(&self.battery.room)
            .acquire_many_owned(most)
            .await
            .ok()?;
        let most = bytes.min(self.pools.half_bytes);
        let (permit, is_aside) = match self.take_live(most) {
            Some(permit) => (permit, false),
            None => self.wait_for_pool(most).await?,
        };
        Some(Seat {
            _battery: battery,
            pool: permit,
            is_aside,
            pools: Arc::clone(&self.pools),
        })
    }

    /// Waits for room for `bytes` in the pool that is the battery's now; tells which that is.
    async fn wait_for_pool(&self, bytes: u32) -> Option<(OwnedSemaphorePermit, bool)> {
        let mut notice = self.notice();
        loop {
            let is_aside = notice.borrow_and_update().is_some();
            let pool = if is_aside {
                &self.pools.aside
            } else {
                &self.pools.live
            };
            tokio::select! {
                biased;
                permit = Arc::clone(pool).acquire_many_owned(bytes) => {
                    return Some((permit.ok()?, is_aside));
                }
                // Set aside or written again meanwhile: the room is elsewhere. The sender is ours.
                _ = notice.changed() => {}
            }
        }
    }

    /// Takes room among the batteries that are written, if this is one and there is some.
    fn take_live(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        if self.battery.notice.borrow().is_some() {
            return None;
        }
        let live = Arc::clone(&self.pools.live);
        live.try_acquire_many_owned(bytes).ok()
    }

    /// Returns why the battery is set aside, while it is, as a view that can be waited for.
    pub fn notice(&self) -> watch::Receiver<Option<Notice>> {
        self.battery.notice.subscribe()
    }

    /// Tells the battery's connections that it is set aside, or that it is no more.
    pub(crate) fn set_aside(&self, notice: Option<Notice>) {
        self.battery.notice.send_if_modified(|known| {
            let changes = known.is_some() != notice.is_some();
            *known = notice;
            changes
        });
    }
}

impl Seat {
    /// Whether this is in the room of batteries that are set aside.
    pub fn is_aside(&self) -> bool {
        self.is_aside
    }

    /// Moves into the room of batteries that are set aside; tells whether there is room.
    pub fn move_aside(&mut self) -> bool {
        if self.is_aside {
            return true;
        }
        let bytes = u32::try_from(self.pool.num_permits()).unwrap_or(u32::MAX);
        match Arc::clone(&self.pools.aside).try_acquire_many_owned(bytes) {
            Ok(permit) => {
                self.pool = permit;
                self.is_aside = true;
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn set_aside(room: &Room) {
        room.set_aside(Some(Notice {
            since: Instant::now(),
            reason: "its table is locked".into(),
        }));
    }

    #[tokio::test(start_paused = true)]
    async fn batteries_set_aside_leave_the_others_their_room() {
        let rooms = Rooms::new(1000, 200);
        let mut seats = Vec::new();
        for id in 0..100 {
            let room = rooms.of(id);
            set_aside(&room);
            seats.push(timeout(Duration::from_secs(1), room.take(100)).await.ok());
        }
        assert_eq!(seats.iter().flatten().count(), 5);
        let free = rooms.of(1000);
        let taken = timeout(Duration::from_secs(1), free.take(200)).await;
        assert!(taken.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_a_battery_that_is_set_aside_move_there_while_there_is_room() {
        let rooms = Rooms::new(400, 200);
        let (first, second) = (rooms.of(1), rooms.of(2));
        let mut seats = [
            first.take(150).await.unwrap(),
            second.take(50).await.unwrap(),
        ];
        assert!(seats[0].move_aside() && seats[1].move_aside());
        let mut third = rooms.of(3).take(200).await.unwrap();
        assert!(!third.move_aside(), "200 of 200 bytes are taken");
        drop(seats);
        assert!(third.move_aside());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_among_those_set_aside_takes_nothing_from_the_others() {
        let rooms = Rooms::new(400, 200);
        let (stuck, next) = (rooms.of(1), rooms.of(2));
        set_aside(&stuck);
        set_aside(&next);
        let _all = stuck.take(200).await;
        let waiting = next.take(200);
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        let free = rooms.of(3);
        assert!(
            timeout(Duration::from_secs(1), free.take(200))
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn few_rows_do_not_overtake_many_that_wait_for_room() {
        let rooms = Rooms::new(400, 200);
        let (first, second) = (rooms.of(1).take(100).await, rooms.of(2).take(100).await);
        let (large, small) = (rooms.of(3), rooms.of(4));
        let (large, small) = (large.take(200), small.take(50));
        tokio::pin!(large, small);
        assert!(timeout(Duration::from_secs(1), &mut large).await.is_err());
        assert!(timeout(Duration::from_secs(1), &mut small).await.is_err());
        drop(second);
        assert!(timeout(Duration::from_secs(1), &mut small).await.is_err());
        drop(first);
        let large = timeout(Duration::from_secs(1), large).await.unwrap();
        drop(large);
        assert!(timeout(Duration::from_secs(1), small).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_there_again_when_whoever_waited_for_it_went_away() {
        let rooms = Rooms::new(400, 200);
        let _first = rooms.of(1).take(100).await;
        let (large, small) = (rooms.of(2), rooms.of(3));
        let mut waiting = Box::pin(large.take(200));
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        drop(waiting);
        let taken = timeout(Duration::from_secs(1), small.take(100)).await;
        assert!(taken.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_battery_that_is_written_again_waits_no_more_for_the_others() {
        let rooms = Rooms::new(400, 200);
        let (stuck, freed) = (rooms.of(1), rooms.of(2));
        set_aside(&stuck);
        set_aside(&freed);
        let _all = stuck.take(200).await;
        let waiting = freed.take(10);
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        freed.set_aside(None);
        assert!(timeout(Duration::from_secs(1), waiting).await.is_ok());
    }
}
