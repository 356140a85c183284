//! Moving `hub.batteries.relayed_seq` after the bus acknowledged, never in anybody's way.
//!
//! Writers take the hints of the lines that they move anyway ([`Hints::hand_over`]), which costs
//! nothing. The others are written by themselves, many batteries at once: those of few batteries
//! soon, those of a fleet only where no rows came that would have taken them along. A line that a
//! writer holds is passed over and gets its hint a little later; a hint that gets lost is found
//! again by the sweep.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rovi_common::error::ErrorChain;
use uuid::Uuid;

use super::table::{self, Behind, Relayed};
use crate::store::{Pool, batteries::Line};

/// How often a hint is tried. Too rarely, and the sweep looks for rows that are on the bus; more
/// often helps nobody, since what does not move for so long is further already.
const MOST_TRIES: u32 = 5;
/// How much longer than writing took the rest after it is, and its end: hints of thousands of
/// batteries are as much work as their rows, and a later hint says what those before did.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(3);

/// Batteries whose hints wait for no writer.
pub(super) const FEW: usize = 256;
/// How long hints of more batteries wait for their batteries' next rows; one that a writer took, to
/// be written again in case that it failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was acknowledged and is not written yet: one line for each battery.
#[derive(Debug, Default)]
pub(crate) struct Hints {
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
    /// When it began to wait, or a writer took it.
    since: Instant,
    is_taken: bool,
}

/// How far the bus of an epoch is, for each of some lines; 0 where nothing new is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// None where nothing is to be marked.
    pub(crate) bus_epoch: Option<Uuid>,
    /// In the order of the lines.
    pub(crate) seqs: Vec<i64>,
}

impl Hints {
    /// Notes that the bus of `bus_epoch` has a battery's rows up to a place.
    pub(super) fn note(&self, bus_epoch: Uuid, relayed: Relayed) {
        self.keep(Hint {
            bus_epoch,
            relayed,
            tries: 0,
            since: Instant::now(),
            is_taken: false,
        });
    }

    /// Knows of one battery how far a bus is.
    #[cfg(test)]
    pub(crate) fn of_one(bus_epoch: Uuid, (battery_id, epoch, seq): (i64, i64, i64)) -> Self {
        let hints = Self::default();
        hints.note(
            bus_epoch,
            Relayed {
                battery_id,
                epoch,
                seq,
            },
        );
        hints
    }

    /// Gives what waits for these lines, each once, to a writer that moves them.
    pub(crate) fn hand_over<'l>(&self, lines: impl IntoIterator<Item = &'l Line>) -> Marks {
        let (mut waiting, now) = (lock(&self.waiting), Instant::now());
        let mut marks = Marks::default();
        for line in lines {
            let hint = waiting.get_mut(&line.id).filter(|hint| {
                !hint.is_taken
                    && hint.relayed.epoch == line.epoch
                    && marks.bus_epoch.is_none_or(|epoch| epoch == hint.bus_epoch)
            });
            marks.seqs.push(hint.map_or(0, |hint| {
                marks.bus_epoch = Some(hint.bus_epoch);
                (hint.since, hint.is_taken) = (now, true);
                hint.relayed.seq
            }));
        }
        marks
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
                    // One that is passed over again and again is as old as the first of them.
                    let since = match place.get() {
                        known if known.is_taken => hint.since,
                        known => known.since,
                    };
                    place.insert(Hint { since, ..hint });
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

    /// Writes what is not left to writers, on the bus of `bus_epoch`.
    pub(super) async fn flush_due(&self, pool: &Pool, bus_epoch: Uuid) {
        let due = self.take_in_hand(|waiting| take_due(waiting, Instant::now()));
        self.write(due, pool, bus_epoch).await;
    }

    /// Writes all that was noted on the bus of `bus_epoch`.
    pub(super) async fn flush(&self, pool: &Pool, bus_epoch: Uuid) {
        self.write(self.take_in_hand(mem::take), pool, bus_epoch)
            .await;
    }

    /// Takes hints to write them; so they are known in one place or the other at any time.
    fn take_in_hand(
        &self,
        take: impl FnOnce(&mut HashMap<i64, Hint>) -> HashMap<i64, Hint>,
    ) -> Vec<Hint> {
        let mut waiting = lock(&self.waiting);
        let taken = take(&mut waiting);
        let hints = taken.values().copied().collect();
        *lock(&self.in_hand) = taken;
        hints
    }

    /// Writes hints. What finds its line held waits for the next time; all else is forgotten,
    /// whether that works or not.
    async fn write(&self, mut hints: Vec<Hint>, pool: &Pool, bus_epoch: Uuid) {
        hints.retain(|hint| hint.bus_epoch == bus_epoch);
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

    /// Keeps hints whose lines did not move for another try, but those that writers took, whose lines
    /// hardly need it.
    fn keep_others(&self, hints: Vec<Hint>, moved: &HashSet<i64>) {
        for mut hint in hints {
            hint.tries += 1;
            let is_done = hint.is_taken || moved.contains(&hint.relayed.battery_id);
            if hint.tries < MOST_TRIES && !is_done {
                self.keep(hint);
            }
        }
    }
}

/// Takes the hints that wait for no writer any more.
fn take_due(waiting: &mut HashMap<i64, Hint>, now: Instant) -> HashMap<i64, Hint> {
    let are_few = waiting.len() <= FEW;
    let is_due = |hint: &Hint| (are_few && !hint.is_taken) || now - hint.since >= PATIENCE;
    waiting.extract_if(|_, hint| is_due(hint)).collect()
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

    fn line(id: i64, epoch: i64) -> Line {
        Line {
            id,
            name: "b7".to_owned(),
            epoch,
            last_seq: 9,
            segment: 1,
            latest_test_time: None,
            form: 1,
            first_seq: 1,
            holder: None,
            holder_attempt: 0,
            holder_offset: 0,
        }
    }

    #[test]
    fn a_writer_gets_each_hint_once_and_only_of_the_life_that_it_writes() {
        let hints = Hints::default();
        hints.note(Uuid::max(), relayed(7));
        assert_eq!(
            hints.hand_over(&[line(1, 2)]),
            Marks {
                bus_epoch: None,
                seqs: vec![0]
            }
        );
        let marks = Marks {
            bus_epoch: Some(Uuid::max()),
            seqs: vec![0, 7],
        };
        assert_eq!(hints.hand_over(&[line(2, 1), line(1, 1)]), marks);
        assert_eq!(hints.hand_over(&[line(1, 1)]).seqs, [0]);
        hints.note(Uuid::max(), relayed(8));
        assert_eq!(hints.hand_over(&[line(1, 1)]).seqs, [8]);
    }

    #[test]
    fn hints_of_a_fleet_and_those_that_a_writer_took_are_written_only_when_they_are_old() {
        let now = Instant::now();
        let due = |hints: &Hints, now| take_due(&mut lock(&hints.waiting).clone(), now).len();
        let hints = Hints::default();
        hints.note(Uuid::nil(), relayed(7));
        assert_eq!(due(&hints, now), 1);
        hints.hand_over(&[line(1, 1)]);
        assert_eq!(due(&hints, now), 0);
        assert_eq!(due(&hints, Instant::now() + PATIENCE), 1);
        let fleet = Hints::default();
        for battery_id in 0..=i64::try_from(FEW).unwrap() {
            fleet.note(
                Uuid::nil(),
                Relayed {
                    battery_id,
                    ..relayed(7)
                },
            );
        }
        assert_eq!(due(&fleet, now), 0);
        assert_eq!(due(&fleet, Instant::now() + PATIENCE), FEW + 1);
    }
}
