//! What happens when groups are durable: connections hear of it, the relay gets the rows.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use rovi_common::rows::Columns;

use crate::{
    batch::{Batch, Ending, Uploader},
    metrics::HubMetrics,
    relayed::Place,
    store::group::{Outcome, Stored},
    stored::{StoredRows, StoredSender},
};

/// Answers batches whose outcome is known and returns those that must be written alone, each with
/// whether the change rewrites many rows.
pub(super) fn answer(
    batches: Vec<Batch>,
    outcomes: Vec<Outcome>,
    stored: Option<&StoredSender>,
    metrics: &HubMetrics,
) -> Vec<(Batch, bool)> {
    count(metrics, &batches, &outcomes);
    let mut later = Vec::new();
    let mut relay = Relay {
        stored,
        has_bus: stored.is_some_and(StoredSender::has_bus),
        metrics,
        left: 0,
        done: Vec::new(),
        open: BTreeMap::new(),
    };
    let mut receipt = Receipt::default();
    for (batch, outcome) in batches.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Later { is_slow } => later.push((batch, is_slow)),
            Outcome::Stored(stored) => {
                receipt.add(&batch, newest(&stored), rejects(&batch, &stored));
                relay.take(batch, stored);
            }
            Outcome::Before(newest) => receipt.add(&batch, Some(newest), Vec::new()),
            Outcome::Superseded => end(&batch, "a newer connection of the session took over"),
            Outcome::Removed => end(&batch, "the battery was removed"),
        }
    }
    receipt.send();
    relay.flush();
    later
}

/// Tells the connections of batches that will not be stored.
pub(super) fn refuse(batches: Vec<Batch>, ending: &Ending, metrics: &HubMetrics) {
    metrics.rows_waiting.sub(sent(&batches));
    for batch in batches {
        batch.uploader.end(ending.clone());
    }
}

fn end(batch: &Batch, reason: &str) {
    batch.uploader.end(Ending::Refused(reason.to_owned()));
}

fn sent<'b>(batches: impl IntoIterator<Item = &'b Batch>) -> i64 {
    let rows: usize = batches.into_iter().map(|batch| batch.decoded.sent).sum();
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Counts a group at once: all threads count rows, and each time one takes the counter from another.
fn count(metrics: &HubMetrics, batches: &[Batch], outcomes: &[Outcome]) {
    let answered = batches.iter().zip(outcomes);
    let answered = answered.filter(|(_, outcome)| !matches!(outcome, Outcome::Later { .. }));
    metrics
        .rows_waiting
        .sub(sent(answered.map(|(batch, _)| batch)));
    let mut rows = 0;
    for outcome in outcomes {
        let Outcome::Stored(stored) = outcome else {
            continue;
        };
        rows += stored
            .runs
            .iter()
            .map(|run| run.to - run.from)
            .sum::<usize>();
        for row in &stored.rejected {
            metrics.row_rejected(row.refused_by);
        }
    }
    metrics.rows_stored.inc_by(rows as u64);
}

fn rejects(batch: &Batch, stored: &Stored) -> Vec<(i64, String)> {
    let place = |offset: usize| batch.position + i64::try_from(offset).unwrap_or_default();
    let rejected = stored.rejected.iter();
    rejected
        .map(|row| (place(row.offset), row.reason.clone()))
        .collect()
}

/// Returns where the newest row of a batch stands; `None` if all were rejected.
fn newest(stored: &Stored) -> Option<Place> {
    let run = stored.runs.iter().rfind(|run| run.to > run.from)?;
    let after_first = i64::try_from(run.to - run.from).unwrap_or_default() - 1;
    Some(Place {
        epoch: stored.epoch,
        seq: run.first_seq + after_first,
    })
}

/// One receipt for consecutive batches of a connection: single rows come by the thousand.
#[derive(Default)]
struct Receipt {
    uploader: Option<Arc<Uploader>>,
    position: i64,
    newest: Option<Place>,
    rejects: Vec<(i64, String)>,
}

impl Receipt {
    fn add(&mut self, batch: &Batch, newest: Option<Place>, rejects: Vec<(i64, String)>) {
        let is_same = |uploader: &Arc<Uploader>| Arc::ptr_eq(uploader, &batch.uploader);
        if !self.uploader.as_ref().is_some_and(is_same) {
            self.send();
            self.uploader = Some(Arc::clone(&batch.uploader));
        }
        self.position = batch.end();
        self.newest = newest.or(self.newest);
        self.rejects.extend(rejects);
    }

    fn send(&mut self) {
        if let Some(uploader) = self.uploader.take() {
            let rejects = std::mem::take(&mut self.rejects);
            uploader.stored(self.position, self.newest.take(), rejects);
        }
    }
}

/// Joins what continues each other, so that the relay makes few frames.
struct Relay<'a> {
    stored: Option<&'a StoredSender>,
    has_bus: bool,
    metrics: &'a HubMetrics,
    /// Rows that the sweep is to find.
    left: usize,
    /// What nothing more is joined to.
    done: Vec<StoredRows>,
    open: BTreeMap<i64, StoredRows>,
}

impl Relay<'_> {
    fn take(&mut self, batch: Batch, stored: Stored) {
        if !self.has_bus {
            let rows: usize = stored.runs.iter().map(|run| run.to - run.from).sum();
            self.left += rows;
            return;
        }
        let mut columns = stored.fitted.unwrap_or(batch.decoded.columns);
        let mut row = 0;
        for run in stored.runs {
            let _refused = cut(&mut columns, run.from - row);
            let rows = cut(&mut columns, run.to - run.from);
            row = run.to;
            self.append(StoredRows {
                battery_id: batch.uploader.claim.battery_id,
                battery: batch.uploader.battery.clone(),
                epoch: stored.epoch,
                segment: run.segment,
                first_seq: run.first_seq,
                received: vec![batch.received; run.to - run.from],
                columns: rows,
            });
        }
    }

    fn append(&mut self, rows: StoredRows) {
        match self.open.entry(rows.battery_id) {
            Entry::Vacant(entry) => {
                entry.insert(rows);
            }
            // Between two groups others may have written.
            Entry::Occupied(mut entry) if is_next(entry.get(), &rows) => {
                let open = entry.get_mut();
                open.received.extend(rows.received);
                open.columns.append(rows.columns);
            }
            Entry::Occupied(mut entry) => {
                self.done.push(entry.insert(rows));
            }
        }
    }

    /// Hands all over at once: one by one, hundreds of batteries would not fit.
    fn flush(mut self) {
        let Some(stored) = self.stored else {
            return;
        };
        let mut all = self.done;
        all.extend(self.open.into_values());
        let rows: usize = all.iter().map(|rows| rows.received.len()).sum();
        if rows > 0 && !stored.send(all) {
            self.left += rows;
        }
        self.metrics.rows_left_to_sweep.inc_by(self.left as u64);
    }
}

/// Tells whether rows follow others of their battery without a gap, in the same segment.
fn is_next(rows: &StoredRows, next: &StoredRows) -> bool {
    let count = i64::try_from(rows.received.len()).unwrap_or(i64::MAX);
    (next.epoch, next.segment) == (rows.epoch, rows.segment)
        && next.first_seq == rows.first_seq.saturating_add(count)
}

/// Takes the first `rows` rows off.
fn cut(columns: &mut Columns, rows: usize) -> Columns {
    if rows >= columns.rows() {
        return std::mem::take(columns);
    }
    let rest = columns.split_off(rows);
    std::mem::replace(columns, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(epoch: i64, segment: i32, first_seq: i64, count: usize) -> StoredRows {
        StoredRows {
            battery_id: 1,
            battery: "b".parse().unwrap(),
            epoch,
            segment,
            first_seq,
            received: vec![0; count],
            columns: Columns::default(),
        }
    }

    #[test]
    fn rows_between_which_others_wrote_are_not_joined() {
        let known = rows(1, 1, 1, 100);
        assert!(is_next(&known, &rows(1, 1, 101, 5)));
        assert!(!is_next(&known, &rows(1, 1, 201, 5)), "another hub's rows");
        assert!(!is_next(&known, &rows(2, 1, 101, 5)), "another epoch");
        assert!(!is_next(&known, &rows(1, 2, 101, 5)), "another segment");
    }
}
