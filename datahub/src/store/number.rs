//! Numbers of rows: `seq`, and the segments they belong to.

use rovi_common::rows::Columns;

use super::batteries::Line;

/// Fitted rows of one batch.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Which batch of the group.
    pub(super) batch: usize,
    /// The rows, each column of the table's type.
    pub(super) columns: &'a Columns,
    /// When the hub took them, in microseconds since 1970.
    pub(super) received: i64,
    /// Whether the first row was asked to begin a segment.
    pub(super) begins_segment: bool,
}

/// Some rows of a piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'p, 'a> {
    pub(super) piece: &'p Piece<'a>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl<'p, 'a> Span<'p, 'a> {
    /// Returns all rows of a piece.
    pub(super) fn whole(piece: &'p Piece<'a>) -> Self {
        Self {
            piece,
            from: 0,
            to: piece.columns.rows(),
        }
    }

    /// Whether a segment begins here; so it does even where no row of the piece is left.
    fn begins_segment(&self) -> bool {
        self.piece.begins_segment && self.from == 0
    }

    pub(super) fn rows(&self) -> usize {
        self.to - self.from
    }
}

/// Consecutive rows of one batch that were stored in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Which batch of the group.
    pub(crate) batch: usize,
    /// First row, by its place in the fitted batch.
    pub(crate) from: usize,
    /// The row after the last one.
    pub(crate) to: usize,
    /// The segment of all these rows.
    pub(crate) segment: i32,
    /// `seq` of the first row.
    pub(crate) first_seq: i64,
}

/// Numbers rows and finds where segments begin.
#[derive(Debug)]
struct Counter<'l> {
    line: &'l mut Line,
    horizon_s: f64,
}

impl Counter<'_> {
    /// Begins a segment, unless the present one has no rows yet.
    fn begin_segment(&mut self) {
        if self.line.segment > 0 {
            self.line.segment += 1;
        }
        self.line.latest_test_time = None;
    }

    /// Numbers the rows of a span; those of one segment make a run.
    fn take<'p, 'a>(&mut self, span: &Span<'p, 'a>, numbered: &mut Vec<Numbered<'p, 'a>>) {
        if span.begins_segment() {
            self.begin_segment();
        }
        let piece = span.piece;
        let test_time = piece.columns.get("test_time");
        let mut open: Option<Run> = None;
        for row in span.from..span.to {
            let segment = self.next(test_time.and_then(|column| column.number(row)));
            match &mut open {
                Some(run) if run.segment == segment => run.to = row + 1,
                open => {
                    let run = open.replace(Run {
                        batch: piece.batch,
                        from: row,
                        to: row + 1,
                        segment,
                        first_seq: self.line.last_seq,
                    });
                    numbered.extend(run.map(|run| Numbered { piece, run }));
                }
            }
        }
        numbered.extend(open.map(|run| Numbered { piece, run }));
    }

    /// Takes the next `seq` for a row and returns its segment.
    fn next(&mut self, test_time: Option<f64>) -> i32 {
        self.line.last_seq += 1;
        let test_time = test_time.filter(|time| time.is_finite());
        let falls = match (test_time, self.line.latest_test_time) {
            (Some(time), Some(latest)) => latest - time > self.horizon_s,
            _ => false,
        };
        if self.line.segment == 0 || falls {
            self.line.segment += 1;
            self.line.latest_test_time = None;
        }
        if let Some(time) = test_time {
            let latest = self.line.latest_test_time.unwrap_or(time);
            self.line.latest_test_time = Some(latest.max(time));
        }
        self.line.segment
    }
}

/// Rows of one piece with their numbers.
#[derive(Debug)]
pub(super) struct Numbered<'p, 'a> {
    pub(super) piece: &'p Piece<'a>,
    pub(super) run: Run,
}

impl Numbered<'_, '_> {
    /// Returns each row's place in the piece and its `seq`.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, i64)> + use<> {
        (self.run.from..self.run.to).zip(self.run.first_seq..)
    }

    pub(super) fn len(&self) -> usize {
        self.run.to - self.run.from
    }
}

/// Numbers rows after the newest one of `line`; returns where that leaves the line.
pub(super) fn number<'p, 'a>(
    line: &Line,
    spans: &[Span<'p, 'a>],
    horizon_s: f64,
) -> (Line, Vec<Numbered<'p, 'a>>) {
    let mut moved = line.clone();
    let mut counter = Counter {
        line: &mut moved,
        horizon_s,
    };
    let mut numbered = Vec::with_capacity(spans.len());
    for span in spans {
        counter.take(span, &mut numbered);
    }
    (moved, numbered)
}

/// Begins the segments that rows were asked to begin, though the rows themselves are refused.
pub(super) fn begin_segments(line: &mut Line, spans: &[Span<'_, '_>], horizon_s: f64) {
    let mut counter = Counter { line, horizon_s };
    for _ in spans.iter().filter(|span| span.begins_segment()) {
        counter.begin_segment();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            id: 1,
            name: "b".into(),
            epoch: 1,
            last_seq: 0,
            segment: 0,
            latest_test_time: None,
            form: 1,
            first_seq: 1,
            holder: None,
            holder_attempt: 0,
            holder_offset: 0,
        }
    }

    fn segments(times: &[Option<f64>]) -> Vec<i32> {
        let mut line = line();
        let mut counter = Counter {
            line: &mut line,
            horizon_s: 3600.0,
        };
        times.iter().map(|time| counter.next(*time)).collect()
    }

    #[test]
    fn a_segment_begins_where_test_time_falls_by_more_than_the_horizon() {
        let times = [Some(7200.0), Some(3600.0), Some(3599.0), Some(3600.0)];
        assert_eq!(segments(&times), [1, 1, 2, 2]);
    }

    #[test]
    fn rows_without_test_time_stay_in_the_segment() {
        let times = [None, Some(9999.0), Some(f64::NAN), None, Some(0.0)];
        assert_eq!(segments(&times), [1, 1, 1, 1, 2]);
    }

    #[test]
    fn late_rows_do_not_lower_what_was_reached() {
        let times = [Some(7200.0), Some(3700.0), Some(100.0)];
        assert_eq!(segments(&times), [1, 1, 2]);
    }

    #[test]
    fn a_first_row_that_asks_for_a_segment_gets_the_first_one() {
        let mut line = line();
        let mut counter = Counter {
            line: &mut line,
            horizon_s: 3600.0,
        };
        counter.begin_segment();
        assert_eq!(counter.next(None), 1);
        counter.begin_segment();
        assert_eq!(counter.next(None), 2);
    }
}
