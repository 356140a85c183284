//! What a writer knows from its groups before: what tables look like, which of them were written
//! together, and whether one battery has the writer to itself.

use std::collections::HashMap;

use super::{batteries::Line, neighbours::Seen, tables::Table};

/// Groups of the same battery, each of which found the line where the one before left it, after
/// which the next is expected to find it, too.
const STEADY_AFTER: u32 = 2;

/// What is known of tables; each writer has its own, checked against `form` under the line's lock.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    known: HashMap<i64, Table>,
    seen: Seen,
    last: Option<Last>,
}

/// The last group, where it was of one battery.
#[derive(Debug)]
struct Last {
    /// Where it left the battery's line.
    line: Line,
    /// How many such groups came in a row.
    times: u32,
}

impl Tables {
    /// Counts the tables.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes away who was written together; [`Tables::keep_seen`] gives it back.
    pub(super) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn keep_seen(&mut self, seen: Seen) {
        self.seen = seen;
    }

    pub(super) fn get(&self, battery: i64) -> Option<&Table> {
        self.known.get(&battery)
    }

    /// Returns what is known of a table; nothing where it was not known.
    pub(super) fn entry(&mut self, battery: i64) -> &mut Table {
        self.known.entry(battery).or_default()
    }

    pub(super) fn note(&mut self, tables: impl IntoIterator<Item = (i64, Table)>) {
        self.known.extend(tables);
    }

    /// Forgets a table, and where its line is.
    pub(super) fn forget(&mut self, battery: i64) {
        self.known.remove(&battery);
        self.unsettle();
    }

    /// Returns where the line of a battery is expected, if the last groups were all of it.
    pub(super) fn steady(&self, battery: i64) -> Option<&Line> {
        let last = self.last.as_ref()?;
        (last.line.id == battery && last.times >= STEADY_AFTER).then_some(&last.line)
    }

    /// Returns where the line is expected of the battery that the last groups were all of.
    pub(crate) fn steadiest(&self) -> Option<&Line> {
        self.steady(self.last.as_ref()?.line.id)
    }

    /// Tells whether the last group was all of one battery.
    pub(crate) fn is_of_one(&self) -> bool {
        self.last.is_some()
    }

    /// Notes that nothing is known of where lines are.
    pub(crate) fn unsettle(&mut self) {
        self.last = None;
    }

    /// Notes that a group of one battery is committed: where it found the line and where it left it.
    pub(super) fn left(&mut self, found: &Line, left: Line) {
        let times = match &self.last {
            Some(last) if last.line == *found => last.times.saturating_add(1),
            _ => 0,
        };
        self.last = Some(Last { line: left, times });
    }
}
