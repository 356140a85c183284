//! What a writer knows from its groups before: what tables look like, where their lines are, which
//! of them were written together, and whether one battery has the writer to itself.

use std::collections::HashMap;

use super::{batteries::Line, layout::Layouts, neighbours::Seen, tables::Table};

/// Groups that found a battery's line where the one before left it, after which the next is expected
/// to find it so, too.
const STEADY_AFTER: u32 = 2;

/// What is known of tables; each writer has its own. `form` tells whether it still holds: of the line
/// that is held, or of the one that is expected and that the database compares.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    known: HashMap<i64, Known>,
    layouts: Layouts,
    seen: Seen,
    /// Whose the last groups all were, and how many of them, where they were of one battery.
    only: Option<(i64, u32)>,
}

/// What is known of one battery.
#[derive(Debug, Default)]
struct Known {
    table: Table,
    left: Option<Left>,
}

/// Where a group left a battery's line.
#[derive(Debug)]
struct Left {
    line: Line,
    /// How many groups in a row found it where the one before left it.
    times: u32,
}

impl Known {
    fn steady(&self) -> Option<&Line> {
        let left = self.left.as_ref()?;
        (left.times >= STEADY_AFTER).then_some(&left.line)
    }
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
        Some(&self.known.get(&battery)?.table)
    }

    /// Returns what is known of a table; nothing where it was not known.
    pub(super) fn entry(&mut self, battery: i64) -> &mut Table {
        &mut self.known.entry(battery).or_default().table
    }

    pub(super) fn note(&mut self, tables: impl IntoIterator<Item = (i64, Table)>) {
        for (battery, mut table) in tables {
            table.share(&mut self.layouts);
            *self.entry(battery) = table;
        }
    }

    /// Forgets a table, and where its line is.
    pub(super) fn forget(&mut self, battery: i64) {
        self.known.remove(&battery);
        self.only = None;
    }

    /// Returns where the line of a battery is expected, and what its table looks like.
    pub(super) fn steady(&self, battery: i64) -> Option<(&Line, &Table)> {
        let known = self.known.get(&battery)?;
        Some((known.steady()?, &known.table))
    }

    /// Returns where the line is expected of the battery that the last groups were all of.
    pub(crate) fn steadiest(&self) -> Option<&Line> {
        let (battery, times) = self.only?;
        let line = self.known.get(&battery)?.steady();
        line.filter(|_| times > STEADY_AFTER)
    }

    /// Tells whether the last group was all of one battery.
    pub(crate) fn is_of_one(&self) -> bool {
        self.only.is_some()
    }

    /// Notes that nothing is known of where the line of the last groups' only battery is.
    pub(crate) fn unsettle_only(&mut self) {
        let only = self.only.map(|(battery, _)| battery);
        self.unsettle(only);
    }

    /// Notes that nothing is known of where some lines are.
    pub(super) fn unsettle(&mut self, batteries: impl IntoIterator<Item = i64>) {
        self.only = None;
        for battery in batteries {
            if let Some(known) = self.known.get_mut(&battery) {
                known.left = None;
            }
        }
    }

    /// Notes that a group of many is committed that found all lines where they were expected.
    pub(super) fn moved(&mut self, lines: Vec<Line>) {
        self.only = None;
        for line in lines {
            if let Some(left) = self
                .known
                .get_mut(&line.id)
                .and_then(|known| known.left.as_mut())
            {
                left.line = line;
            }
        }
    }

    /// Notes that a group is committed: where it found lines, some of which it moved, and where it
    /// left those; both in the order of ids.
    pub(super) fn left(&mut self, found: &[Line], left: Vec<Line>) {
        self.only = match (self.only, found) {
            (Some((only, times)), [line]) if only == line.id => {
                Some((only, times.saturating_add(1)))
            }
            (_, [line]) => Some((line.id, 1)),
            _ => None,
        };
        let mut found = found.iter();
        for line in left {
            let before = found.find(|found| found.id == line.id);
            let known = self.known.entry(line.id).or_default();
            let times = match &known.left {
                Some(left) if Some(&left.line) == before => left.times.saturating_add(1),
                _ => 0,
            };
            known.left = Some(Left { line, times });
        }
    }
}
