//! Parameters as curves over state of charge.
//!
//! The rules are those of `scipy.interpolate.interp1d` with extrapolation: one value is a constant, state of charge
//! is never clamped, and outside the pinpoints each style continues in its own way (see [`Style`]).
//! A curve either holds fixed values or reads them from the state vector, where an estimator moves them.

#![expect(
    clippy::indexing_slicing,
    reason = "indices follow from the pinpoint count checked in `Pinpoints::new`"
)]

use crate::spline::Spline;

/// How a parameter is read between its pinpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Straight lines; the first and last segment continue outside.
    Linear,
    /// The nearest pinpoint, ties go down; the end value outside.
    Nearest,
    /// The nearest pinpoint, ties go up; the end value outside.
    NearestUp,
    /// The last pinpoint at or below; NaN below the first pinpoint.
    Previous,
    /// The first pinpoint at or above; NaN above the last pinpoint.
    Next,
    /// The last pinpoint at or below; the first value below the first pinpoint.
    Zero,
    /// A spline of degree 1, equal to `Linear`.
    Slinear,
    /// An interpolating spline of degree 2; its end polynomials continue outside.
    Quadratic,
    /// An interpolating "not-a-knot" spline of degree 3; its end polynomials continue outside.
    Cubic,
}

/// Every style with the name it has in documents.
pub(crate) const STYLES: [(&str, Style); 9] = [
    ("linear", Style::Linear),
    ("nearest", Style::Nearest),
    ("nearest-up", Style::NearestUp),
    ("previous", Style::Previous),
    ("next", Style::Next),
    ("zero", Style::Zero),
    ("slinear", Style::Slinear),
    ("quadratic", Style::Quadratic),
    ("cubic", Style::Cubic),
];

impl Style {
    /// The style of that name in a document.
    pub(crate) fn named(name: &str) -> Option<Self> {
        STYLES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, style)| style)
    }

    /// The fewest pinpoints the style can do with, a single value apart.
    pub(crate) fn fewest_pinpoints(self) -> usize {
        match self {
            Self::Quadratic => 3,
            Self::Cubic => 4,
            _ => 2,
        }
    }

    fn spline_degree(self) -> Option<usize> {
        match self {
            Self::Quadratic => Some(2),
            Self::Cubic => Some(3),
            _ => None,
        }
    }
}

/// Up to so many inner pinpoints, counting beats a binary search.
const SHORT_TABLE: usize = 16;

/// One number: fixed, or an entry of the state vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Fixed(f64),
    State(usize),
}

impl Scalar {
    #[inline]
    pub(crate) fn at(self, state: &[f64]) -> f64 {
        match self {
            Self::Fixed(value) => value,
            Self::State(index) => state[index],
        }
    }
}

/// Where a curve's values stand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// One value per pinpoint, in the document's order.
    Fixed(Vec<f64>),
    /// `count` consecutive entries of the state vector from `first`, in the document's order.
    State { first: usize, count: usize },
}

/// A parameter as a function of state of charge.
#[derive(Clone, Debug)]
pub(crate) enum Curve {
    Constant(Scalar),
    Linear(Segments),
    Fixed {
        pinpoints: Pinpoints,
        values: Vec<f64>,
    },
    Estimated {
        pinpoints: Pinpoints,
        first: usize,
    },
}

impl Curve {
    /// The entries of the state vector that hold the curve's values, if it is estimated.
    pub(crate) fn states(&self) -> Option<std::ops::Range<usize>> {
        match self {
            Self::Constant(Scalar::State(index)) => Some(*index..index + 1),
            Self::Estimated { pinpoints, first } => Some(*first..first + pinpoints.x.len()),
            Self::Constant(Scalar::Fixed(_)) | Self::Linear(_) | Self::Fixed { .. } => None,
        }
    }

    /// Builds the curve; `pinpoints` are `None` for equally spaced ones on `[0, 1]`.
    ///
    /// Answers `None` where the pinpoints do not suit the style or repeat; documents are checked for that before.
    pub(crate) fn new(style: Style, pinpoints: Option<&[f64]>, values: Values) -> Option<Self> {
        let count = match &values {
            Values::Fixed(list) => list.len(),
            Values::State { count, .. } => *count,
        };
        if count == 1 {
            return Some(Self::Constant(match values {
                Values::Fixed(list) => Scalar::Fixed(list[0]),
                Values::State { first, .. } => Scalar::State(first),
            }));
        }
        let x = pinpoints.map_or_else(|| evenly_spaced(count), <[f64]>::to_vec);
        let pinpoints = Pinpoints::new(style, &x)?;
        match values {
            Values::State { first, .. } => Some(Self::Estimated { pinpoints, first }),
            Values::Fixed(list) => {
                let sorted: Vec<f64> = pinpoints.order.iter().map(|&i| list[i]).collect();
                match (&pinpoints.spline, style) {
                    (None, Style::Linear | Style::Slinear) => {
                        Some(Self::Linear(Segments::new(&pinpoints.x, &sorted)))
                    }
                    (Some(spline), _) => {
                        let values = spline.coefficients(&sorted)?;
                        Some(Self::Fixed { pinpoints, values })
                    }
                    (None, _) => Some(Self::Fixed {
                        pinpoints,
                        values: sorted,
                    }),
                }
            }
        }
    }

    /// The parameter at state of charge `soc` (not clamped).
    #[inline]
    pub(crate) fn at(&self, soc: f64, state: &[f64]) -> f64 {
        // The two common kinds are worth inlining; a filter asks dozens of times per row.
        match self {
            Self::Constant(scalar) => scalar.at(state),
            Self::Linear(segments) => segments.at(soc),
            _ => self.at_pinpoints(soc, state),
        }
    }

    #[inline(never)]
    fn at_pinpoints(&self, soc: f64, state: &[f64]) -> f64 {
        match self {
            Self::Constant(scalar) => scalar.at(state),
            Self::Linear(segments) => segments.at(soc),
            Self::Fixed { pinpoints, values } => pinpoints.at(soc, |j| values[j]),
            Self::Estimated { pinpoints, first } => {
                let value = |j: usize| state[first + pinpoints.order[j]];
                match &pinpoints.spline {
                    None => pinpoints.at(soc, value),
                    Some(spline) => spline.at(soc, |j| spline.coefficient(j, value)),
                }
            }
        }
    }
}

/// Straight lines between fixed values, slopes worked out beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    /// Ends of the segments but the last: crossing one moves to the next segment.
    inner: Vec<f64>,
    /// Per segment: start, value there, slope.
    segments: Vec<[f64; 3]>,
}

impl Segments {
    fn new(x: &[f64], y: &[f64]) -> Self {
        let segments = x
            .windows(2)
            .zip(y.windows(2))
            .map(|(x, y)| [x[0], y[0], (y[1] - y[0]) / (x[1] - x[0])])
            .collect();
        Self {
            inner: x[1..x.len() - 1].to_vec(),
            segments,
        }
    }

    #[inline]
    fn at(&self, soc: f64) -> f64 {
        // Short tables are counted through: no branch to guess wrong, and the compiler does it two at a time.
        let segment = if self.inner.len() <= SHORT_TABLE {
            self.inner.iter().map(|&end| usize::from(end < soc)).sum()
        } else {
            self.inner.partition_point(|&end| end < soc)
        };
        let [start, value, slope] = self.segments[segment];
        slope * (soc - start) + value
    }
}

/// Sorted places on the axis of state of charge.
#[derive(Clone, Debug)]
pub(crate) struct Pinpoints {
    style: Style,
    x: Vec<f64>,
    /// `order[j]` is where the value of the j-th sorted pinpoint stands in the document.
    order: Vec<usize>,
    spline: Option<Spline>,
}

impl Pinpoints {
    fn new(style: Style, x: &[f64]) -> Option<Self> {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
        let x: Vec<f64> = order.iter().map(|&i| x[i]).collect();
        if x.len() < style.fewest_pinpoints() || !x.windows(2).all(|pair| pair[0] < pair[1]) {
            return None;
        }
        let spline = match style.spline_degree() {
            Some(degree) => Some(Spline::new(degree, &x)?),
            None => None,
        };
        Some(Self {
            style,
            x,
            order,
            spline,
        })
    }

    /// The curve at `soc`; `value(j)` is the value, or the spline coefficient, of sorted pinpoint `j`.
    fn at(&self, soc: f64, value: impl Fn(usize) -> f64) -> f64 {
        let x = &self.x;
        let last = x.len() - 1;
        let at_or_below = || x.partition_point(|&knot| knot <= soc);
        let below = || x.partition_point(|&knot| knot < soc);
        match self.style {
            Style::Linear | Style::Slinear => {
                let j = below().clamp(1, last);
                (value(j) - value(j - 1)) / (x[j] - x[j - 1]) * (soc - x[j - 1]) + value(j - 1)
            }
            Style::Nearest => value(self.midpoints_before(|middle| middle < soc)),
            Style::NearestUp => value(self.midpoints_before(|middle| middle <= soc)),
            Style::Zero => value(at_or_below().max(1) - 1),
            Style::Previous => at_or_below().checked_sub(1).map_or(f64::NAN, value),
            Style::Next => Some(below()).filter(|&j| j <= last).map_or(f64::NAN, value),
            Style::Quadratic | Style::Cubic => match &self.spline {
                Some(spline) => spline.at(soc, value),
                None => f64::NAN,
            },
        }
    }

    fn midpoints_before(&self, is_before: impl Fn(f64) -> bool) -> usize {
        // Halves are added, not the sum halved: ties fall as they do in scipy.
        self.x
            .windows(2)
            .take_while(|pair| is_before(pair[0] / 2.0 + pair[1] / 2.0))
            .count()
    }
}

/// `count` places from 0 to 1, computed as `numpy.linspace` does.
#[expect(
    clippy::cast_precision_loss,
    reason = "pinpoint counts are far below 2^52"
)]
pub(crate) fn evenly_spaced(count: usize) -> Vec<f64> {
    let last = count - 1;
    let step = 1.0 / last as f64;
    (0..count)
        .map(|i| if i == last { 1.0 } else { i as f64 * step })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn curve(style: &str, x: &[f64], y: &[f64]) -> Option<Curve> {
        Curve::new(
            Style::named(style).unwrap(),
            Some(x),
            Values::Fixed(y.to_vec()),
        )
    }

    /// Pinpoints 0, 1/4, 1/2, 1 with values 1, 2, 4, 3.
    fn small(style: &str) -> Curve {
        curve(style, &[0.0, 0.25, 0.5, 1.0], &[1.0, 2.0, 4.0, 3.0]).unwrap()
    }

    fn assert_at(style: &str, places: &[(f64, f64)]) {
        for &(soc, expected) in places {
            let got = small(style).at(soc, &[]);
            let is_same = (got - expected).abs() < 1e-14 || (got.is_nan() && expected.is_nan());
            assert!(is_same, "{style} at {soc}: {got}, not {expected}");
        }
    }

    #[test]
    fn each_style_ties_and_continues_in_its_own_way() {
        assert_at(
            "linear",
            &[(-0.5, -1.0), (0.125, 1.5), (0.25, 2.0), (1.5, 2.0)],
        );
        assert_at(
            "slinear",
            &[(-0.5, -1.0), (0.125, 1.5), (0.25, 2.0), (1.5, 2.0)],
        );
        assert_at(
            "nearest",
            &[
                (-0.5, 1.0),
                (0.125, 1.0),
                (0.375, 2.0),
                (0.75, 4.0),
                (1.5, 3.0),
            ],
        );
        assert_at("nearest-up", &[(0.125, 2.0), (0.375, 4.0), (0.75, 3.0)]);
        assert_at("zero", &[(-0.5, 1.0), (0.25, 2.0), (0.74, 4.0), (1.5, 3.0)]);
        assert_at("previous", &[(-0.5, f64::NAN), (0.25, 2.0), (1.5, 3.0)]);
        assert_at(
            "next",
            &[(-0.5, 1.0), (0.25, 2.0), (0.26, 4.0), (1.5, f64::NAN)],
        );
        assert_at("quadratic", &[(0.75, 4.473_684_210_526_316), (1.0, 3.0)]);
        assert_at("cubic", &[(-0.5, 10.0), (0.75, 5.0), (1.5, -18.0)]);
    }

    #[test]
    fn unsorted_pinpoints_are_sorted_with_their_values() {
        let sorted = curve("linear", &[0.0, 0.4, 1.0], &[1.0, 2.0, 4.0]).unwrap();
        let unsorted = curve("linear", &[1.0, 0.0, 0.4], &[4.0, 1.0, 2.0]).unwrap();
        for soc in [-0.1, 0.2, 0.4, 0.9, 1.2] {
            assert_eq!(
                sorted.at(soc, &[]).to_bits(),
                unsorted.at(soc, &[]).to_bits()
            );
        }
    }

    #[test]
    fn an_estimated_curve_reads_the_state_and_equals_the_fixed_one() {
        let (x, y) = ([0.5, 0.0, 0.3, 1.0, 0.8], [0.7, 0.1, 0.4, 0.9, 0.2]);
        for (name, style) in STYLES {
            let fixed = Curve::new(style, Some(&x), Values::Fixed(y.to_vec())).unwrap();
            let values = Values::State { first: 2, count: 5 };
            let estimated = Curve::new(style, Some(&x), values).unwrap();
            let mut state = vec![9.0, 9.0];
            state.extend(y);
            for soc in [0.0, 0.1, 0.3, 0.65, 1.0] {
                let (a, b) = (fixed.at(soc, &[]), estimated.at(soc, &state));
                assert!((a - b).abs() < 1e-14, "{name} at {soc}: {a} and {b}");
            }
        }
    }

    #[test]
    fn long_tables_are_searched_as_short_ones_are() {
        let x = evenly_spaced(101);
        let y: Vec<f64> = x.iter().map(|s| s * s).collect();
        let long = curve("linear", &x, &y).unwrap();
        for soc in [-0.2, 0.0, 0.005, 0.5, 0.777, 1.0, 1.3] {
            let at = x.partition_point(|&knot| knot < soc).clamp(1, 100);
            let slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1]);
            let expected = slope * (soc - x[at - 1]) + y[at - 1];
            assert_eq!(long.at(soc, &[]).to_bits(), expected.to_bits());
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "only a test knows where the references stand"
    )]
    fn reference_cases() -> Option<Value> {
        let folder = std::env::var("ROVI_REFERENCE").ok()?;
        let text = std::fs::read_to_string(format!("{folder}/trajectories/interp_cases.json"));
        Some(serde_json::from_str(&text.unwrap()).unwrap())
    }

    #[test]
    fn all_recorded_cases_agree_with_scipy() {
        let Some(reference) = reference_cases() else {
            println!("skipped: ROVI_REFERENCE does not name the folder of reference data");
            return;
        };
        let numbers = |list: &Value| -> Vec<f64> {
            list.as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap_or(f64::NAN))
                .collect()
        };
        let mut worst = 0.0_f64;
        for case in reference["cases"].as_array().unwrap() {
            let kind = case["kind"].as_str().unwrap();
            let curve = curve(kind, &numbers(&case["x"]), &numbers(&case["y"]));
            if case.get("error").is_some() {
                assert!(curve.is_none());
                continue;
            }
            let curve = curve.unwrap();
            for (soc, expected) in numbers(&case["q"]).into_iter().zip(numbers(&case["v"])) {
                let got = curve.at(soc, &[]);
                assert_eq!(got.is_nan(), expected.is_nan(), "{kind} at {soc}");
                if !got.is_nan() {
                    worst = worst.max((got - expected).abs() / expected.abs().max(1.0));
                }
            }
        }
        println!("interpolation: {worst:e}");
        assert!(worst <= 1e-13, "off by {worst:e}");
    }
}
