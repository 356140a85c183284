//! Moving `hub.batteries.relayed_seq` after the bus acknowledged: many batteries at once, and
//! never in anybody's way. A line that a writer holds is passed over and gets its hint a little
//! later; a hint that gets lost is found again by the sweep.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rovi_common::error::ErrorChain;
use uuid::Uuid;

use super::table::{self, Behind, Relayed};
use crate::store::Pool;

/// How often a hint is tried. Too rarely, and the sweep looks for rows that are on the bus; more
/// often helps nobody, since what does not move for so long is further already.
const MOST_TRIES: u32 = 5;
/// How much longer than writing took the rest after it is, and its end: hints of thousands of
/// batteries are as much work as their rows, and a later hint says what those before did.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(3);

/// What was acknowledged and is not written yet: one line for each battery.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: Mutex<HashMap<i64, Hint>>,
    /// What is being written.
    in_hand: Mutex<HashMap<i64, Hint>>,
    /// Until when nothing is written.
    rests_until: Mutex<Option<Instant>>,
}

/// How far a battery is on a bus.
#[derive(Debug, Clone, Copy)]
struct Hint {
    bus_epoch: Uuid,
    relayed: Relayed,
    tries: u32,
}

impl Hints {
    /// Notes that the bus of `bus_epoch` has a battery's rows up to a place.
    pub(super) fn note(&self, bus_epoch: Uuid, relayed: Relayed) {
        self.keep(Hint {
            bus_epoch,
            relayed,
            tries: 0,
        });
    }

    /// Keeps a hint, unless a later one is known.
    fn keep(&self, hint: Hint) {
        match lock(&self.waiting).entry(hint.relayed.battery_id) {
            Entry::Vacant(place) => {
                place.insert(hint);
            }
            Entry::Occupied(mut place) => {
                let known = place.get().relayed;
                if (known.epoch, known.seq) <= (hint.relayed.epoch, hint.relayed.seq) {
                    place.insert(hint);
                }
            }
        }
    }

    /// Returns the newest row of a battery that the bus of `bus_epoch` acknowledged and that is about
    /// to be marked; 0 where there is none.
    pub(super) fn unmarked_seq(&self, bus_epoch: Uuid, battery: &Behind) -> i64 {
        let seq = |hints: &Mutex<HashMap<i64, Hint>>| {
            let hint = lock(hints).get(&battery.id).copied();
            let hint = hint.filter(|hint| hint.bus_epoch == bus_epoch);
            let relayed = hint.map(|hint| hint.relayed);
            relayed.filter(|relayed| relayed.epoch == battery.epoch)
        };
        // In this order: what is taken in hand meanwhile is seen in one of them.
        let known = [seq(&self.waiting), seq(&self.in_hand)];
        let seqs = known.into_iter().flatten().map(|relayed| relayed.seq);
        seqs.max().unwrap_or(0)
    }

    /// Tells whether it is too early to write again.
    pub(super) fn is_resting(&self) -> bool {
        lock(&self.rests_until).is_some_and(|end| Instant::now() < end)
    }

    /// Writes what was noted on the bus of `bus_epoch`. What finds its line held waits for the
    /// next call; all else is forgotten, whether that works or not.
    pub(super) async fn flush(&self, pool: &Pool, bus_epoch: Uuid) {
        let hints: Vec<Hint> = {
            let mut waiting = lock(&self.waiting);
            let noted = mem::take(&mut *waiting);
            lock(&self.in_hand).clone_from(&noted);
            let hints = noted.into_values();
            hints.filter(|hint| hint.bus_epoch == bus_epoch).collect()
        };
        if hints.is_empty() {
            return;
        }
        let relayed: Vec<Relayed> = hints.iter().map(|hint| hint.relayed).collect();
        let (begun, count) = (Instant::now(), hints.len());
        let written = pool.run(move |conn| table::mark_relayed(conn, bus_epoch, &relayed));
        let written = written.await;
        let rest = (begun.elapsed() * REST).min(LONGEST_REST);
        *lock(&self.rests_until) = Some(Instant::now() + rest);
        match written {
            Ok(moved) => {
                tracing::debug!("marked {} of {count} batteries as relayed", moved.len());
                self.keep_others(hints, &moved);
            }
            Err(error) => tracing::debug!(
                "{count} batteries were not marked as relayed: {}",
                ErrorChain(&error)
            ),
        }
        lock(&self.in_hand).clear();
    }

    /// Keeps hints whose lines did not move for another try.
    fn keep_others(&self, hints: Vec<Hint>, moved: &HashSet<i64>) {
        for mut hint in hints {
            hint.tries += 1;
            if hint.tries < MOST_TRIES && !moved.contains(&hint.relayed.battery_id) {
                self.keep(hint);
            }
        }
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(hints: &Hints) -> Vec<i64> {
        let waiting = hints.waiting.lock().unwrap();
        waiting.values().map(|hint| hint.relayed.seq).collect()
    }

    fn relayed(seq: i64) -> Relayed {
        Relayed {
            battery_id: 1,
            epoch: 1,
            seq,
        }
    }

    fn taken(hints: &Hints) -> Vec<Hint> {
        mem::take(&mut *hints.waiting.lock().unwrap())
            .into_values()
            .collect()
    }

    #[test]
    fn a_hint_whose_line_was_held_waits_for_the_next_flush_and_not_for_ever() {
        let hints = Hints::default();
        hints.note(Uuid::nil(), relayed(7));
        for _ in 1..MOST_TRIES {
            hints.keep_others(taken(&hints), &HashSet::new());
            assert_eq!(waiting(&hints), [7]);
        }
        hints.keep_others(taken(&hints), &HashSet::new());
        assert_eq!(waiting(&hints), [0; 0]);
    }

    #[test]
    fn what_waits_to_be_marked_is_known_by_bus_and_epoch() {
        let hints = Hints::default();
        let behind = |epoch| Behind {
            id: 1,
            name: "b7".to_owned(),
            epoch,
            last_seq: 9,
            relayed_seq: 3,
        };
        assert_eq!(hints.unmarked_seq(Uuid::nil(), &behind(1)), 0);
        hints.note(Uuid::nil(), relayed(7));
        assert_eq!(hints.unmarked_seq(Uuid::nil(), &behind(1)), 7);
        assert_eq!(hints.unmarked_seq(Uuid::nil(), &behind(2)), 0);
        assert_eq!(hints.unmarked_seq(Uuid::max(), &behind(1)), 0);
        *lock(&hints.in_hand) = mem::take(&mut *lock(&hints.waiting));
        assert_eq!(hints.unmarked_seq(Uuid::nil(), &behind(1)), 7);
    }

    #[test]
    fn a_hint_that_was_held_up_never_replaces_a_later_one() {
        let hints = Hints::default();
        hints.note(Uuid::nil(), relayed(7));
        let held_up = taken(&hints);
        hints.note(Uuid::nil(), relayed(9));
        hints.keep_others(held_up, &HashSet::new());
        assert_eq!(waiting(&hints), [9]);
        hints.keep_others(taken(&hints), &HashSet::from([1]));
        assert_eq!(waiting(&hints), [0; 0]);
    }
}
