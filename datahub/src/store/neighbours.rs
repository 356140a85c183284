//! Batteries whose rows are written by one statement, whenever they come together.
//!
//! PostgreSQL takes longer to read and plan a statement of many tables than to carry it out, and
//! one that is prepared is for exactly these tables. So a writer puts the same batteries together
//! each time, and a statement that it needs again is prepared (`store/joined.rs`).

use std::{collections::HashMap, mem};

/// Tables of a prepared statement, for each of which PostgreSQL keeps about 10 kB.
const TOGETHER: i64 = 16;

/// Which batteries are neighbours: those of one writer whose ids follow one another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours {
    writers: i64,
}

impl Neighbours {
    pub(crate) fn of_writers(writers: usize) -> Self {
        Self {
            writers: i64::try_from(writers).unwrap_or(1).max(1),
        }
    }

    /// Numbers the place of a battery and its neighbours.
    pub(crate) fn place(self, battery: i64) -> i64 {
        battery.div_euclid(self.writers * TOGETHER)
    }

    /// Returns the ids that a battery's neighbours have, and its own.
    pub(crate) fn around(self, battery: i64) -> impl Iterator<Item = i64> {
        let first = self.place(battery) * self.writers * TOGETHER;
        let first = first + battery.rem_euclid(self.writers);
        (0..TOGETHER).map(move |number| first + number * self.writers)
    }
}

/// What decides the text of a statement: battery, form of its table, and number of rows, of each.
type Set = Vec<(i64, i64, usize)>;

/// Which neighbours came together the last two times.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<i64, [Set; 2]>);

impl Seen {
    /// Notes who comes together at a place; tells whether the same did lately.
    pub(super) fn again(&mut self, place: i64, set: Set) -> bool {
        let [last, before] = self.0.entry(place).or_default();
        let is_known = *last == set || *before == set;
        if *last != set {
            *before = mem::replace(last, set);
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_of_one_writer_and_each_others() {
        for writers in 1..=4 {
            let neighbours = Neighbours::of_writers(writers);
            let modulus = i64::try_from(writers).unwrap();
            for battery in 1..200 {
                let all: Vec<i64> = neighbours.around(battery).collect();
                assert!(all.contains(&battery) && all.len() == 16);
                for &other in &all {
                    assert_eq!(other % modulus, battery % modulus);
                    assert_eq!(neighbours.place(other), neighbours.place(battery));
                    assert!(neighbours.around(other).eq(all.iter().copied()));
                }
            }
        }
    }

    #[test]
    fn a_set_is_known_when_it_comes_again_unchanged_with_one_other_between_at_most() {
        let mut seen = Seen::default();
        assert!(!seen.again(1, vec![(1, 1, 1), (3, 1, 1)]));
        assert!(seen.again(1, vec![(1, 1, 1), (3, 1, 1)]));
        assert!(!seen.again(2, vec![(1, 1, 1), (3, 1, 1)]), "another place");
        assert!(!seen.again(1, vec![(1, 2, 1), (3, 1, 1)]), "another form");
        assert!(seen.again(1, vec![(1, 1, 1), (3, 1, 1)]), "one between");
        assert!(!seen.again(1, vec![(1, 1, 1)]));
        assert!(!seen.again(1, vec![(3, 1, 1)]));
        assert!(!seen.again(1, vec![(1, 1, 1), (3, 1, 1)]), "two between");
    }
}
