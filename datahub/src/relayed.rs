//! How far each battery's rows are on the bus, for the connections that want to hear of it.
//!
//! Lanes of the relay note what the bus acknowledged. What other hubs relayed is read from
//! `hub.batteries`, and only for batteries at which connections wait and no lane here moves: at
//! full rate this costs nothing. With the bus away those are all, which is much of a fleet's time;
//! so it is asked for more and more rarely while nothing moves anywhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use diesel::{ExpressionMethods, PgConnection, QueryDsl, RunQueryDsl};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::store::{Pool, StoreError, schema::batteries};

/// How often PostgreSQL is asked for batteries at which connections wait: so often while other
/// hubs get rows onto the bus, and this rarely while none does.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ASK_AT_LEAST_EVERY: Duration = Duration::from_secs(2);

/// A place in the rows of a battery; a later epoch is beyond all of the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The life of the battery's name.
    pub epoch: i64,
    /// The row.
    pub seq: i64,
}

impl Place {
    /// Tells whether the bus, which has rows up to here, has the row at `row`.
    ///
    /// Where a new epoch began, all its rows go out again under their old `seq`.
    fn covers(self, row: Self) -> bool {
        self.epoch >= row.epoch && self.seq >= row.seq
    }
}

/// The batteries that somebody follows.
#[derive(Debug, Default)]
pub struct Board {
    batteries: Mutex<HashMap<i64, Weak<Followed>>>,
}

/// One battery that connections follow.
#[derive(Debug)]
struct Followed {
    relayed: watch::Sender<Place>,
    /// The newest row that a connection waits for.
    wanted_seq: AtomicI64,
    /// How far the bus was when PostgreSQL might last have been asked.
    seen_seq: AtomicI64,
}

/// A connection's view of its battery.
#[derive(Debug, Clone)]
pub struct Follower {
    followed: Arc<Followed>,
}

impl Board {
    /// Follows a battery, whose rows were on the bus up to `relayed`.
    pub fn follow(&self, battery_id: i64, relayed: Place) -> Follower {
        let mut batteries = self.lock();
        let known = batteries.get(&battery_id).and_then(Weak::upgrade);
        let followed = known.unwrap_or_else(|| {
            batteries.retain(|_, followed| followed.strong_count() > 0);
            let followed = Arc::new(Followed {
                relayed: watch::Sender::new(relayed),
                wanted_seq: AtomicI64::new(0),
                seen_seq: AtomicI64::new(-1),
            });
            batteries.insert(battery_id, Arc::downgrade(&followed));
            followed
        });
        followed.advance(relayed);
        Follower { followed }
    }

    /// Notes that the bus has a battery's rows up to a place; tells whether that is news to somebody.
    pub fn note(&self, battery_id: i64, relayed: Place) -> bool {
        let followed = self.lock().get(&battery_id).and_then(Weak::upgrade);
        followed.is_some_and(|followed| followed.advance(relayed))
    }

    /// Asks PostgreSQL what other hubs relayed, until the service stops.
    pub async fn keep_asking(self: Arc<Self>, pool: Pool, stop: CancellationToken) {
        let asking = async {
            let mut pause = ASK_EVERY;
            loop {
                sleep(pause).await;
                let ids = self.stuck();
                let has_moved = ids.is_empty() || self.ask(&pool, ids).await;
                pause = if has_moved {
                    ASK_EVERY
                } else {
                    ASK_AT_LEAST_EVERY.min(2 * pause)
                };
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = asking => {}
        }
    }

    /// Asks PostgreSQL how far these batteries are; tells whether any of them moved.
    async fn ask(&self, pool: &Pool, ids: Vec<i64>) -> bool {
        match pool.run(move |connection| relayed(connection, &ids)).await {
            Ok(found) => {
                let news = found.into_iter();
                let news = news.filter(|&(id, place)| self.note(id, place));
                news.count() > 0
            }
            Err(error) => {
                tracing::debug!("what is relayed is not known: {error}");
                false
            }
        }
    }

    /// Lists batteries at which connections wait and nothing moved since the last call.
    fn stuck(&self) -> Vec<i64> {
        let batteries = self.lock();
        let followed = batteries
            .iter()
            .filter_map(|(id, followed)| Some((*id, followed.upgrade()?)));
        let is_stuck = |followed: &Followed| {
            let seq = followed.relayed.borrow().seq;
            let seen = followed.seen_seq.swap(seq, Ordering::Relaxed);
            seq < followed.wanted_seq.load(Ordering::Relaxed) && seen == seq
        };
        followed
            .filter(|(_, followed)| is_stuck(followed))
            .map(|(id, _)| id)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Weak<Followed>>> {
        self.batteries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    fn advance(&self, relayed: Place) -> bool {
        self.relayed.send_if_modified(|known| {
            let moves = *known < relayed;
            *known = relayed.max(*known);
            moves
        })
    }
}

impl Follower {
    /// Returns a view that can be waited for.
    pub fn watch(&self) -> watch::Receiver<Place> {
        self.followed.relayed.subscribe()
    }

    /// Tells whether the bus has a row.
    pub fn has(&self, row: Place) -> bool {
        self.followed.relayed.borrow().covers(row)
    }

    /// Says that a connection waits for a row.
    pub fn want(&self, row: Place) {
        self.followed
            .wanted_seq
            .fetch_max(row.seq, Ordering::Relaxed);
    }
}

fn relayed(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<(i64, Place)>, StoreError> {
    let lines: Vec<(i64, i64, i64)> = batteries::table
        .filter(batteries::id.eq_any(ids))
        .select((batteries::id, batteries::epoch, batteries::relayed_seq))
        .load(connection)?;
    let place = |(id, epoch, seq)| (id, Place { epoch, seq });
    Ok(lines.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(epoch: i64, seq: i64) -> Place {
        Place { epoch, seq }
    }

    #[test]
    fn a_new_epoch_has_a_row_once_it_went_out_again() {
        assert!(place(1, 5).covers(place(1, 5)));
        assert!(!place(2, 4).covers(place(1, 5)));
        assert!(place(2, 5).covers(place(1, 5)));
        assert!(!place(1, 9).covers(place(2, 1)));
    }

    #[test]
    fn only_batteries_that_stand_still_are_asked_for() {
        let board = Board::default();
        let follower = board.follow(7, place(1, 3));
        follower.want(place(1, 9));
        assert_eq!(board.stuck(), Vec::<i64>::new());
        assert_eq!(board.stuck(), [7]);
        assert!(board.note(7, place(1, 6)) && !board.note(7, place(1, 6)));
        assert_eq!(board.stuck(), Vec::<i64>::new());
        board.note(7, place(1, 9));
        assert!(follower.has(place(1, 9)));
        assert_eq!((board.stuck(), board.stuck()), (vec![], vec![]));
        drop(follower);
        board.note(7, place(1, 10));
    }
}
