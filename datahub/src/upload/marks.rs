//! Which row of its battery stands at which position of a session: how a connection tells from
//! `(epoch, seq)` on the bus what of its own rows is there.

use std::collections::VecDeque;

use crate::relayed::{Follower, Place};

/// Most marks of a connection. Beyond it every second one is forgotten, and new ones are made half
/// as often: what is told is then rougher, and never too much.
const MOST: usize = 1024;

/// Rows below `position` are on the bus once it has the row at `place`.
#[derive(Debug, Clone, Copy)]
struct Mark {
    position: i64,
    place: Place,
}

/// The rows of one connection that are stored and not known to be on the bus.
#[derive(Debug)]
pub struct Marks {
    follower: Follower,
    waiting: VecDeque<Mark>,
    /// Least distance of marks, in positions; 0 until there are too many.
    distance: i64,
    /// All rows below are on the bus.
    relayed: i64,
}

impl Marks {
    /// Begins with the rows that were stored before: those below `position`, of which the newest
    /// stands at `newest` or before.
    pub fn new(follower: Follower, position: i64, newest: Place) -> Self {
        let mut marks = Self {
            follower,
            waiting: VecDeque::new(),
            distance: 0,
            relayed: 0,
        };
        marks.stored(position, Some(newest));
        marks
    }

    /// Notes that all rows below `position` are stored, the newest at `newest`; `None` where all
    /// rows since the last call were rejected, which makes them as good as relayed.
    pub fn stored(&mut self, position: i64, newest: Option<Place>) {
        let last = self.waiting.back().map(|mark| mark.place);
        let Some(place) = newest.or(last) else {
            self.relayed = self.relayed.max(position);
            return;
        };
        self.follower.want(place);
        let mark = Mark { position, place };
        let before_last = self.waiting.iter().rev().nth(1);
        let is_near = before_last.is_some_and(|mark| position - mark.position < self.distance);
        match self.waiting.back_mut() {
            Some(last) if is_near || last.place == place => *last = mark,
            _ => self.waiting.push_back(mark),
        }
        if self.waiting.len() > MOST {
            // The last one stays: the number is odd now.
            let mut number = 0;
            self.waiting.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            let ends = self.waiting.front().zip(self.waiting.back());
            let span = ends.map_or(0, |(first, last)| last.position - first.position);
            self.distance = span / i64::try_from(self.waiting.len()).unwrap_or(1).max(1);
        }
    }

    /// Returns the position below which all rows are on the bus or rejected.
    pub fn relayed(&mut self) -> i64 {
        while let Some(mark) = self.waiting.front()
            && self.follower.has(mark.place)
        {
            self.relayed = self.relayed.max(mark.position);
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.distance = 0;
        }
        self.relayed
    }

    /// Returns what to wait for.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relayed::Board;

    fn place(seq: i64) -> Place {
        Place { epoch: 1, seq }
    }

    #[test]
    fn rejected_rows_count_once_the_rows_before_them_are_relayed() {
        let board = Board::default();
        let mut marks = Marks::new(board.follow(1, place(0)), 0, place(0));
        marks.stored(5, None);
        assert_eq!(marks.relayed(), 5, "nothing was before");
        marks.stored(8, Some(place(3)));
        marks.stored(9, None);
        assert_eq!(marks.relayed(), 5);
        board.note(1, place(3));
        assert_eq!(marks.relayed(), 9);
    }

    #[test]
    fn rows_of_a_resumed_session_count_once_all_that_was_stored_then_is_relayed() {
        let board = Board::default();
        let mut marks = Marks::new(board.follow(1, place(40)), 10, place(50));
        assert_eq!(marks.relayed(), 0);
        board.note(1, place(50));
        assert_eq!(marks.relayed(), 10);
    }

    #[test]
    fn many_marks_stay_bounded_and_tell_never_too_much() {
        let board = Board::default();
        let mut marks = Marks::new(board.follow(1, place(0)), 0, place(0));
        for row in (10..=100_000).step_by(10) {
            marks.stored(row, Some(place(row)));
            assert!(marks.waiting.len() <= MOST);
        }
        board.note(1, place(50_000));
        let relayed = marks.relayed();
        assert!((49_000..=50_000).contains(&relayed), "{relayed}");
        board.note(1, place(100_000));
        assert_eq!(marks.relayed(), 100_000);
    }
}
