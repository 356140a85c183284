//! The newest state of every battery, and who waits for the next.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rovi_common::{
    auth::{Access, Role},
    name::BatteryName,
    news::BatteryState,
};

use super::{
    inbox::Inbox,
    shape::{Fields, Shapes},
};

/// Where a state stands on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The life of the stream of states: when it was made, in nanoseconds since 1970.
    pub life: i128,
    /// The sequence within the stream.
    pub sequence: u64,
}

/// One state of a battery, with what was written of it for watchers.
#[derive(Debug)]
pub struct Version {
    /// The state.
    pub state: BatteryState,
    /// Where it stands.
    pub place: Place,
    pub(super) shapes: Shapes,
}

#[cfg(test)]
impl Version {
    /// Makes one of a state that stands nowhere.
    pub(crate) fn of(state: BatteryState) -> Arc<Self> {
        let (life, sequence) = (0, 0);
        Arc::new(Self {
            state,
            place: Place { life, sequence },
            shapes: Shapes::default(),
        })
    }
}

/// The newest state of every battery.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    life: Option<i128>,
    newest: BTreeMap<BatteryName, Arc<Version>>,
    /// Batteries that were deleted.
    ended: HashSet<BatteryName>,
    next_watcher: u64,
    of_all: HashMap<u64, Arc<Inbox>>,
    of_one: HashMap<BatteryName, HashMap<u64, Arc<Inbox>>>,
}

/// What somebody watches, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    board: Arc<Board>,
    id: u64,
    batteries: Option<Vec<BatteryName>>,
    /// Where newer states arrive.
    pub(super) inbox: Arc<Inbox>,
}

impl Board {
    /// Returns the life of the stream that is followed, if one is.
    pub fn life(&self) -> Option<i128> {
        self.inner().life
    }

    /// Begins to follow a stream; returns the batteries that it may lack.
    pub(super) fn begin(&self, life: i128) -> Vec<BatteryName> {
        let mut inner = self.inner();
        inner.life = Some(life);
        let lost = inner.newest.values();
        lost.filter(|version| version.place.life != life)
            .map(|version| version.state.battery.clone())
            .collect()
    }

    /// Returns the newest state of a battery.
    pub fn newest(&self, battery: &BatteryName) -> Option<Arc<Version>> {
        self.inner().newest.get(battery).map(Arc::clone)
    }

    /// Returns the newest state of every battery, in the order of names.
    pub fn all(&self) -> Vec<Arc<Version>> {
        self.inner().newest.values().map(Arc::clone).collect()
    }

    /// Takes a state, unless a newer one is known, and tells those who watch its battery.
    pub fn offer(&self, mut state: BatteryState, place: Place) {
        let mut inner = self.inner();
        if inner.life != Some(place.life) {
            return;
        }
        let battery = state.battery.clone();
        let known = inner.newest.get(&battery);
        let is_old = known.is_some_and(|known| {
            known.place.life == place.life && known.place.sequence >= place.sequence
        });
        if is_old {
            return;
        }
        state.shrink();
        let version = Arc::new(Version {
            state,
            place,
            shapes: Shapes::default(),
        });
        let of_one = inner.of_one.get(&battery).into_iter().flatten();
        for (_, inbox) in inner.of_all.iter().chain(of_one) {
            inbox.put(&battery, Some(Arc::clone(&version)));
        }
        inner.ended.remove(&battery);
        inner.newest.insert(battery, version);
    }

    /// Tells whether a battery was deleted, and its name has no new life.
    pub(crate) fn has_ended(&self, battery: &BatteryName) -> bool {
        self.inner().ended.contains(battery)
    }

    /// Forgets a battery that is no more, and tells those who watch it.
    pub(super) fn remove(&self, battery: &BatteryName) {
        let mut inner = self.inner();
        inner.ended.insert(battery.clone());
        if inner.newest.remove(battery).is_none() {
            return;
        }
        let of_one = inner.of_one.get(battery).into_iter().flatten();
        for (_, inbox) in inner.of_all.iter().chain(of_one) {
            inbox.put(battery, None);
        }
    }

    /// Begins to watch, and returns what there is at that moment: nothing is missed or comes twice.
    pub(super) fn watch(
        self: &Arc<Self>,
        batteries: Option<Vec<BatteryName>>,
        (fields, access): (Arc<Fields>, Access),
    ) -> (Watch, Vec<Arc<Version>>) {
        let may_see = |name: &BatteryName| access.may(Role::Reader, name);
        let inbox = Arc::new(Inbox::new(fields, access.clone()));
        let mut inner = self.inner();
        inner.next_watcher += 1;
        let id = inner.next_watcher;
        let present = if let Some(batteries) = &batteries {
            for battery in batteries {
                let watchers = inner.of_one.entry(battery.clone()).or_default();
                watchers.insert(id, Arc::clone(&inbox));
            }
            let seen = batteries.iter().filter(|name| may_see(name));
            let known = seen.filter_map(|name| inner.newest.get(name));
            known.map(Arc::clone).collect()
        } else {
            inner.of_all.insert(id, Arc::clone(&inbox));
            let seen = inner.newest.iter().filter(|(name, _)| may_see(name));
            seen.map(|(_, version)| Arc::clone(version)).collect()
        };
        let board = Arc::clone(self);
        let watch = Watch {
            board,
            id,
            batteries,
            inbox,
        };
        (watch, present)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = self.board.inner();
        let Some(batteries) = &self.batteries else {
            inner.of_all.remove(&self.id);
            return;
        };
        for battery in batteries {
            if let Some(watchers) = inner.of_one.get_mut(battery) {
                watchers.remove(&self.id);
                if watchers.is_empty() {
                    inner.of_one.remove(battery);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: i128 = 7;

    fn state(battery: &str, seq: i64) -> BatteryState {
        BatteryState {
            seq,
            ..BatteryState::unknown(battery.parse().unwrap())
        }
    }

    fn everything() -> (Arc<Fields>, Access) {
        (Arc::default(), Access::everyone())
    }

    fn board() -> Arc<Board> {
        let board = Arc::new(Board::default());
        assert!(board.begin(LIFE).is_empty());
        board
    }

    fn put(board: &Board, battery: &str, sequence: u64) {
        let seq = i64::try_from(sequence).unwrap();
        let life = LIFE;
        board.offer(state(battery, seq), Place { life, sequence });
    }

    fn taken(watch: &Watch) -> Vec<(String, i64)> {
        let taken = std::iter::from_fn(|| watch.inbox.take());
        taken
            .map(|(battery, version)| (battery.to_string(), version.map_or(-1, |v| v.state.seq)))
            .collect()
    }

    #[test]
    fn nothing_is_missed_between_snapshot_and_news_and_nothing_comes_twice() {
        let board = board();
        put(&board, "a", 1);
        let (watch, present) = board.watch(None, everything());
        assert_eq!(present.len(), 1);
        put(&board, "a", 1);
        assert_eq!(taken(&watch), []);
        put(&board, "a", 2);
        put(&board, "new", 3);
        assert_eq!(taken(&watch), [("a".to_owned(), 2), ("new".to_owned(), 3)]);
    }

    #[test]
    fn a_slow_watcher_gets_the_newest_state_of_each_battery_and_hears_how_many_it_did_not_get() {
        let board = board();
        let (slow, _) = board.watch(None, everything());
        let (quick, _) = board.watch(Some(vec!["a".parse().unwrap()]), everything());
        for sequence in 1..=100 {
            let battery = if sequence % 2 == 0 { "a" } else { "b" };
            put(&board, battery, sequence);
            let expected = i64::try_from(sequence).unwrap();
            if sequence % 2 == 0 {
                assert_eq!(taken(&quick), [("a".to_owned(), expected)]);
            }
        }
        assert_eq!(slow.inbox.take_conflated(), 98);
        assert_eq!(taken(&slow), [("b".to_owned(), 99), ("a".to_owned(), 100)]);
        assert_eq!(
            (slow.inbox.take_conflated(), quick.inbox.take_conflated()),
            (0, 0)
        );
    }

    #[test]
    fn a_battery_that_is_no_more_is_told() {
        let board = board();
        put(&board, "a", 1);
        let (watch, _) = board.watch(Some(vec!["a".parse().unwrap()]), everything());
        board.remove(&"a".parse().unwrap());
        assert_eq!(taken(&watch), [("a".to_owned(), -1)]);
        assert!(board.all().is_empty());
    }

    #[test]
    fn one_watcher_that_leaves_changes_nothing_for_the_others() {
        let board = board();
        let only = || Some(vec!["a".parse().unwrap()]);
        let (first, _) = board.watch(only(), everything());
        let (second, _) = board.watch(only(), everything());
        drop(first);
        put(&board, "a", 1);
        assert_eq!(taken(&second), [("a".to_owned(), 1)]);
        drop(second);
        assert!(board.inner().of_one.is_empty());
    }

    #[test]
    fn states_of_an_earlier_life_of_the_stream_are_known_to_be_lacking() {
        let board = board();
        put(&board, "a", 9);
        let lacking = board.begin(LIFE + 1);
        assert_eq!(lacking, ["a".parse().unwrap()]);
        let place = Place {
            life: LIFE + 1,
            sequence: 1,
        };
        board.offer(state("a", 9), place);
        assert!(board.begin(LIFE + 1).is_empty());
    }
}
