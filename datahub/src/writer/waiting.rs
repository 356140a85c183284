//! Batches that wait for a writer, by battery.
//!
//! Batteries take turns in the order in which their oldest batches came, each with all that it
//! has, and with its neighbours, which the same statement writes: so the longer a turn takes to
//! come, the more rows each table gets by one statement, and the less a row costs. Taken in the
//! order in which they came, rows of thousands of batteries would get a statement each, however
//! many wait.

use std::{
    collections::{HashMap, VecDeque},
    iter,
    time::{Duration, Instant},
};

use crate::{batch::Batch, store::neighbours::Neighbours};

/// The bounds of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Rows after which it takes no more.
    pub(super) rows: usize,
    /// Bytes of decoded rows after which it takes no more.
    pub(super) bytes: usize,
    /// Most tables.
    pub(super) tables: usize,
}

/// One battery's batches.
#[derive(Debug)]
struct Queue {
    batches: VecDeque<Batch>,
    /// When the battery began to wait for its turn, and which turn that is.
    since: Instant,
    turn: u64,
}

/// Batches that are taken together.
#[derive(Debug, Default)]
struct Group {
    batches: Vec<Batch>,
    rows: usize,
    bytes: usize,
    tables: usize,
}

impl Group {
    fn has_room(&self, most: Bounds) -> bool {
        self.rows < most.rows && self.bytes < most.bytes && self.tables < most.tables
    }
}

/// All batches that wait for a writer.
#[derive(Debug)]
pub(super) struct Waiting {
    neighbours: Neighbours,
    queues: HashMap<i64, Queue>,
    /// Turns, and whose they are, in order. A battery that was hurried, or went with a neighbour, has
    /// no queue any more when this turn comes, or one that waits for a later turn.
    turns: VecDeque<(i64, u64)>,
    last_turn: u64,
    /// Batteries for whose rows somebody waits before doing anything else.
    hurried: VecDeque<i64>,
    batches: usize,
}

impl Waiting {
    pub(super) fn new(neighbours: Neighbours) -> Self {
        Self {
            neighbours,
            queues: HashMap::new(),
            turns: VecDeque::new(),
            last_turn: 0,
            hurried: VecDeque::new(),
            batches: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Counts the batches.
    pub(super) fn len(&self) -> usize {
        self.batches
    }

    /// Appends a batch to its battery's queue.
    pub(super) fn push(&mut self, batch: Batch) {
        let battery = batch.battery_id();
        let (turns, turn) = (&mut self.turns, &mut self.last_turn);
        let queue = self.queues.entry(battery).or_insert_with(|| {
            *turn += 1;
            turns.push_back((battery, *turn));
            Queue {
                batches: VecDeque::new(),
                since: Instant::now(),
                turn: *turn,
            }
        });
        queue.batches.push_back(batch);
        self.batches += 1;
    }

    /// Has a battery that waits go before all others.
    pub(super) fn hurry(&mut self, battery: i64) {
        if self.queues.contains_key(&battery) {
            self.hurried.push_back(battery);
        }
    }

    /// Tells whether a battery was hurried, or one waited for so long.
    pub(super) fn is_due(&self, patience: Duration) -> bool {
        let mut turns = self.turns.iter();
        let first = turns.find_map(|turn| of_turn(&self.queues, *turn));
        !self.hurried.is_empty() || first.is_some_and(|queue| queue.since.elapsed() >= patience)
    }

    /// Takes the next batteries' batches; those of one battery stand together, in order.
    pub(super) fn take(&mut self, most: Bounds) -> Vec<Batch> {
        let mut group = Group::default();
        while group.has_room(most)
            && let Some((battery, turn)) = self.next_turn()
        {
            let around = self.neighbours.around(battery);
            let waits = |id: &i64| self.queues.contains_key(id);
            let together: Vec<i64> = around.filter(waits).collect();
            if let Some(turn) = turn
                && group.tables > 0
                && group.tables + together.len() > most.tables
            {
                // They would be torn apart: the next group begins with them.
                self.turns.push_front((battery, turn));
                break;
            }
            for battery in iter::once(battery).chain(together) {
                if group.has_room(most) {
                    self.take_battery(battery, &mut group, most);
                }
            }
        }
        self.batches -= group.batches.len();
        group.batches
    }

    /// Takes a battery's batches, as far as there is room.
    fn take_battery(&mut self, battery: i64, group: &mut Group, most: Bounds) {
        let Some(queue) = self.queues.get_mut(&battery) else {
            return;
        };
        while group.has_room(most)
            && let Some(batch) = queue.batches.pop_front()
        {
            group.rows += batch.decoded.sent;
            group.bytes += batch.weight;
            group.batches.push(batch);
        }
        group.tables += 1;
        if queue.batches.is_empty() {
            self.queues.remove(&battery);
        } else {
            self.last_turn += 1;
            (queue.since, queue.turn) = (Instant::now(), self.last_turn);
            self.turns.push_back((battery, self.last_turn));
        }
    }

    /// Returns the battery that goes next, and which turn that is; none where it was hurried.
    fn next_turn(&mut self) -> Option<(i64, Option<u64>)> {
        let queues = &self.queues;
        let waits = |battery: &i64| queues.contains_key(battery);
        if let Some(hurried) = iter::from_fn(|| self.hurried.pop_front()).find(waits) {
            return Some((hurried, None));
        }
        let mut turns = iter::from_fn(|| self.turns.pop_front());
        let (battery, turn) = turns.find(|turn| of_turn(queues, *turn).is_some())?;
        Some((battery, Some(turn)))
    }
}

/// Returns the queue of a battery, if it waits for this turn.
fn of_turn(queues: &HashMap<i64, Queue>, (battery, turn): (i64, u64)) -> Option<&Queue> {
    queues.get(&battery).filter(|queue| queue.turn == turn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Decoded;

    const ALL: Bounds = Bounds {
        rows: 1000,
        bytes: 1000,
        tables: 1000,
    };

    /// Makes a batch of `rows` rows and as many bytes.
    fn batch(battery_id: i64, position: i64, rows: usize) -> Batch {
        let decoded = Decoded {
            sent: rows,
            ..Decoded::default()
        };
        Batch::sample(battery_id, position, decoded)
    }

    fn waiting(batches: &[(i64, i64, usize)]) -> Waiting {
        let mut waiting = Waiting::new(Neighbours::of_writers(1));
        for &(battery, position, rows) in batches {
            waiting.push(batch(battery, position, rows));
        }
        waiting
    }

    /// Takes a group and names its batches by battery and position.
    fn take(waiting: &mut Waiting, most: Bounds) -> Vec<(i64, i64)> {
        let group = waiting.take(most).into_iter();
        group
            .map(|batch| (batch.battery_id(), batch.position))
            .collect()
    }

    #[test]
    fn a_battery_whose_turn_it_is_goes_with_all_that_it_has_in_order() {
        let mut waiting = waiting(&[
            (700, 0, 1),
            (300, 0, 1),
            (700, 1, 1),
            (500, 0, 1),
            (700, 2, 1),
        ]);
        let two = Bounds { tables: 2, ..ALL };
        assert_eq!(
            take(&mut waiting, two),
            [(700, 0), (700, 1), (700, 2), (300, 0)]
        );
        assert_eq!(waiting.len(), 1);
        assert_eq!(take(&mut waiting, two), [(500, 0)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_battery_with_more_than_a_group_takes_waits_behind_the_others_for_the_rest() {
        let mut waiting = waiting(&[(100, 0, 6), (100, 6, 6), (100, 12, 6), (200, 0, 1)]);
        let ten = Bounds { rows: 10, ..ALL };
        assert_eq!(take(&mut waiting, ten), [(100, 0), (100, 6)]);
        assert_eq!(take(&mut waiting, ten), [(200, 0), (100, 12)]);
        assert_eq!(take(&mut waiting, ten), []);
    }

    #[test]
    fn neighbours_are_torn_apart_only_where_a_group_has_no_room_for_all() {
        let mut waiting = waiting(&[(100, 0, 1), (3, 0, 1), (1, 0, 1), (5, 0, 1)]);
        let three = Bounds { tables: 3, ..ALL };
        assert_eq!(take(&mut waiting, three), [(100, 0)]);
        let two = Bounds { tables: 2, ..ALL };
        assert_eq!(take(&mut waiting, two), [(3, 0), (1, 0)]);
        assert_eq!(take(&mut waiting, two), [(5, 0)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn neighbours_go_with_the_one_whose_turn_it_is_and_lose_no_turn_by_it() {
        let mut waiting = waiting(&[(3, 0, 1), (100, 0, 1), (200, 0, 1), (1, 0, 1), (5, 0, 1)]);
        let four = Bounds { tables: 4, ..ALL };
        assert_eq!(take(&mut waiting, four), [(3, 0), (1, 0), (5, 0), (100, 0)]);
        waiting.push(batch(1, 1, 1));
        assert_eq!(take(&mut waiting, ALL), [(200, 0), (1, 1)]);
        assert_eq!((take(&mut waiting, ALL), waiting.len()), (Vec::new(), 0));
    }

    #[test]
    fn a_battery_that_is_hurried_goes_first_and_only_once() {
        let mut waiting = waiting(&[(100, 0, 1), (200, 0, 1), (300, 0, 1)]);
        assert!(!waiting.is_due(Duration::MAX));
        waiting.hurry(300);
        waiting.hurry(900);
        assert!(waiting.is_due(Duration::MAX));
        let one = Bounds { tables: 1, ..ALL };
        assert_eq!(take(&mut waiting, one), [(300, 0)]);
        waiting.push(batch(300, 1, 1));
        assert!(!waiting.is_due(Duration::MAX));
        assert_eq!(take(&mut waiting, ALL), [(100, 0), (200, 0), (300, 1)]);
    }

    #[test]
    fn turns_are_no_more_than_batteries_however_often_they_go_with_neighbours() {
        let mut waiting = waiting(&[]);
        let group = Bounds { tables: 20, ..ALL };
        for step in 0_i64..20_000 {
            // In an order that is never that of the ids.
            let battery = step * 389 % 331;
            waiting.push(batch(battery, step, 1));
            if step % 15 == 0 {
                take(&mut waiting, group);
            }
            let turns = waiting.turns.len();
            assert!(turns <= 2 * 331, "{turns} turns after {step} rows");
        }
    }

    #[test]
    fn rows_that_have_waited_long_enough_are_due() {
        let mut waiting = waiting(&[]);
        assert!(!waiting.is_due(Duration::ZERO));
        waiting.push(batch(100, 0, 1));
        assert!(waiting.is_due(Duration::ZERO));
        assert!(!waiting.is_due(Duration::MAX));
    }
}
