//! What is drawn.

use std::ops::Range;

/// A point of a line: its place on the axis, its value, and a standard deviation where it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Place on the axis.
    pub x: f64,
    /// Value; NaN interrupts the line.
    pub y: f64,
    /// Standard deviation: a band of twice its width is drawn around the line.
    pub std: Option<f64>,
}

/// Points that are joined in their order; one whose place lies before the one before begins anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    /// The points.
    pub points: Vec<Point>,
}

/// One panel: a quantity over the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Name and unit.
    pub label: String,
    /// Its line.
    pub line: Line,
}

/// Panels over a common axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Stands above all.
    pub title: String,
    /// Stands below the title, fainter.
    pub subtitle: String,
    /// Name and unit of the axis.
    pub axis: String,
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

/// Numbers beyond this have no place on an axis: their differences would not be finite.
const MOST: f64 = 1e150;

impl Point {
    fn is_drawn(&self) -> bool {
        self.x.abs() < MOST && self.y.abs() < MOST
    }

    fn reach(&self) -> f64 {
        self.std
            .map(f64::abs)
            .filter(|std| *std < MOST)
            .map_or(0.0, |std| 2.0 * std)
    }

    pub(crate) fn low(&self) -> f64 {
        self.y - self.reach()
    }

    pub(crate) fn high(&self) -> f64 {
        self.y + self.reach()
    }
}

impl Line {
    /// Cuts the line where points are missing or the axis falls back.
    pub(crate) fn runs(&self) -> Vec<&[Point]> {
        let joined = |a: &Point, b: &Point| a.is_drawn() && b.is_drawn() && b.x >= a.x;
        let runs = self.points.chunk_by(joined);
        runs.filter(|run| run.iter().all(Point::is_drawn)).collect()
    }

    /// Returns the range of values, bands included, with room around it.
    pub(crate) fn heights(&self) -> Range<f64> {
        let drawn = || self.points.iter().filter(|point| point.is_drawn());
        let middle = span(drawn().map(|point| point.y));
        let whole = span(drawn().flat_map(|point| [point.low(), point.high()]));
        // What an estimator does not know at first would make the line itself flat.
        let most = 3.0 * (middle.end - middle.start).max(1e-9 * middle.end.abs());
        let low = whole.start.max(middle.start - most);
        let high = whole.end.min(middle.end + most);
        widened(low..high)
    }
}

impl Chart {
    /// Returns the range of the axis over all panels.
    pub(crate) fn widths(&self) -> Range<f64> {
        let points = self.panels.iter().flat_map(|panel| &panel.line.points);
        let range = span(points.filter(|point| point.is_drawn()).map(|point| point.x));
        if range.end > range.start {
            range
        } else {
            widened(range)
        }
    }
}

/// Returns least and greatest; 0 and 1 where there is nothing.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let ends = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.fold(ends, |(low, high), x| (low.min(x), high.max(x)));
    if low <= high { low..high } else { 0.0..1.0 }
}

/// Adds room at both ends; a range of no width gets some.
fn widened(range: Range<f64>) -> Range<f64> {
    let width = range.end - range.start;
    let room = if width > 0.0 {
        0.06 * width
    } else {
        (0.05 * range.start.abs()).max(1e-6)
    };
    range.start - room..range.end + room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        let point = |&(x, y): &(f64, f64)| Point { x, y, std: None };
        Line {
            points: points.iter().map(point).collect(),
        }
    }

    #[test]
    fn a_line_is_cut_at_missing_values_and_at_a_new_test() {
        let cut = line(&[
            (0.0, 1.0),
            (1.0, 1.0),
            (2.0, f64::NAN),
            (3.0, 1.0),
            (0.0, 1.0),
            (1.0, 1.0),
        ]);
        let lengths: Vec<usize> = cut.runs().iter().map(|run| run.len()).collect();
        assert_eq!(lengths, [2, 1, 2]);
    }

    #[test]
    fn a_line_of_one_value_has_a_height_around_it() {
        let heights = line(&[(0.0, 3.7), (1.0, 3.7)]).heights();
        assert!(heights.start < 3.7 && heights.end > 3.7);
        assert!(line(&[]).heights().start < line(&[]).heights().end);
    }

    #[test]
    fn a_band_far_wider_than_the_line_does_not_hide_it() {
        let mut unsure = line(&[(0.0, 1.0), (1.0, 1.1)]);
        unsure.points[0].std = Some(100.0);
        let heights = unsure.heights();
        assert!(heights.end - heights.start < 1.0, "{heights:?}");
    }
}
