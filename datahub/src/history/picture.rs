//! What a picture of history shows: a panel for each column, over one axis.

use rovi_common::http::Problem;
use rovi_pictures::{Chart, Line, Panel, Point, estimate_label, estimate_rank, time_unit};

use super::{picks::Picks, range::Axis};
use crate::store::{rows::Selected, source::Source, tables::ColumnType};

const MOST_PANELS: usize = 8;
/// How many panels there are where nobody chose.
const USUAL_PANELS: usize = 6;
/// What a history shows where nobody chose.
const USUAL: [&str; 3] = ["voltage", "current", "temperature"];
/// What the column of an estimate's standard deviation ends in.
const STD: &str = "__std";
const US_PER_S: f64 = 1e6;

/// A column that gets a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    name: String,
    label: String,
}

/// Chooses columns where nobody did: of rows those that every battery has, else the first numbers;
/// of estimates those that tell most and have a standard deviation.
pub(crate) fn usual(source: &Source) -> Picks {
    let is_number = |kind: &ColumnType| matches!(kind, ColumnType::Int | ColumnType::Float);
    let numbers = || {
        let columns = source.columns().iter();
        columns.filter(|(name, kind)| is_number(kind) && name != Axis::TestTime.name())
    };
    let is_known = |name: &str| source.column(name).is_some();
    let mut chosen: Vec<_> = if source.is_rows() {
        let usual = USUAL.iter().filter_map(|name| source.column(name));
        usual.filter(|(_, kind)| is_number(kind)).collect()
    } else {
        numbers()
            .filter(|(name, _)| is_known(&format!("{name}{STD}")))
            .collect()
    };
    if !source.is_rows() {
        chosen.sort_by_key(|(name, _)| estimate_rank(name));
    }
    let mut picks = Picks::default();
    let chosen = if chosen.is_empty() {
        numbers().collect()
    } else {
        chosen
    };
    for column in chosen.into_iter().take(USUAL_PANELS) {
        picks.add_column(column);
    }
    picks
}

/// Returns the columns that get a panel.
///
/// # Errors
/// 400 where they are too many.
pub(crate) fn shown(picks: &Picks, source: &Source) -> Result<Vec<Shown>, Problem> {
    let has_panel = |name: &str| source.is_rows() || !name.ends_with(STD);
    let shown: Vec<Shown> = picks
        .iter()
        .filter(|pick| has_panel(pick.name))
        .map(|pick| Shown {
            name: pick.name.to_owned(),
            label: match pick.unit.or(source.unit(pick.name)) {
                Some(unit) => format!("{} ({unit})", pick.name),
                None if source.is_rows() => pick.name.to_owned(),
                None => estimate_label(pick.name),
            },
        })
        .collect();
    if shown.len() > MOST_PANELS {
        let detail = format!(
            "{} columns are too many for a picture: at most {MOST_PANELS}; choose with columns=",
            shown.len()
        );
        return Err(Problem::bad_request(detail).at("columns"));
    }
    Ok(shown)
}

/// Returns what must be read besides: standard deviations, and places on the axis.
pub(crate) fn beside<'a>(
    shown: &'a [Shown],
    axis: Axis,
    source: &'a Source,
) -> impl Iterator<Item = &'a (String, ColumnType)> {
    let deviations = shown.iter().map(|shown| format!("{}{STD}", shown.name));
    let names = deviations.chain([axis.name().to_owned()]);
    names.filter_map(|name| source.column(&name))
}

/// Makes the chart of what was read.
pub(crate) fn chart(source: &Source, axis: Axis, shown: &[Shown], rows: &Selected) -> Chart {
    let places = Places::of(axis, rows);
    let panel = |shown: &Shown| {
        let values = rows.columns.get(&shown.name);
        let deviations = rows.columns.get(&format!("{}{STD}", shown.name));
        let point = |(row, x): (usize, &f64)| Point {
            x: *x,
            y: values
                .and_then(|column| column.number(row))
                .unwrap_or(f64::NAN),
            std: deviations.and_then(|column| column.number(row)),
        };
        Panel {
            label: shown.label.clone(),
            line: Line {
                points: places.values.iter().enumerate().map(point).collect(),
            },
        }
    };
    let (first, last) = (rows.seq.first(), rows.seq.last());
    Chart {
        title: source.battery.to_string(),
        subtitle: match first.zip(last) {
            Some((first, last)) => format!("rows {first} to {last} of {}", source.line.last_seq),
            None => "no rows".to_owned(),
        },
        axis: places.label,
        panels: shown.iter().map(panel).collect(),
    }
}

/// Where rows stand on the axis.
struct Places {
    values: Vec<f64>,
    label: String,
}

impl Places {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds since 1970 and row numbers"
    )]
    fn of(axis: Axis, rows: &Selected) -> Self {
        let count = rows.seq.len();
        let column = |name: &str| -> Vec<f64> {
            let column = rows.columns.get(name);
            let number = |row| column.and_then(|column| column.number(row));
            (0..count)
                .map(|row| number(row).unwrap_or(f64::NAN))
                .collect()
        };
        let since_first = |mut seconds: Vec<f64>, what: &str| {
            let first = seconds
                .iter()
                .copied()
                .find(|x| x.is_finite())
                .unwrap_or_default();
            for x in &mut seconds {
                *x -= first;
            }
            Self::of_seconds(seconds, what)
        };
        match axis {
            Axis::Seq => Self {
                values: rows.seq.iter().map(|seq| *seq as f64).collect(),
                label: "row".to_owned(),
            },
            Axis::TestTime => Self::of_seconds(column("test_time"), "test time"),
            Axis::Time if rows.columns.get("time").is_some() => {
                since_first(column("time"), "time since the first row shown")
            }
            Axis::Time | Axis::Received => {
                let seconds = |at: &Option<i64>| at.map_or(f64::NAN, |us| us as f64 / US_PER_S);
                let received = rows.received.iter().map(seconds).collect();
                since_first(received, "received since the first row shown")
            }
        }
    }

    /// Chooses the unit that suits a span of time.
    fn of_seconds(mut values: Vec<f64>, what: &str) -> Self {
        let finite = || values.iter().filter(|x| x.is_finite());
        let most = finite().fold(0.0, |most: f64, x| most.max(x.abs()));
        let (unit, seconds) = time_unit(most);
        for x in &mut values {
            *x /= seconds;
        }
        let label = format!("{what} ({unit})");
        Self { values, label }
    }
}

#[cfg(test)]
mod tests {
    use rovi_common::rows::{Column, Columns};

    use super::*;

    fn rows(test_time: &[Option<f64>]) -> Selected {
        let count = i64::try_from(test_time.len()).unwrap();
        let column = Column::Float(test_time.to_vec());
        Selected {
            seq: (1..=count).collect(),
            received: (0..count)
                .map(|n| Some(1_700_000_000_000_000 + n * 500_000))
                .collect(),
            columns: Columns::new(vec![("test_time".to_owned(), column)]).unwrap(),
            ..Selected::default()
        }
    }

    #[test]
    fn the_axis_of_time_has_the_unit_that_suits_its_span() {
        for (last, label, place) in [
            (100.0, "test time (s)", 100.0),
            (36_000.0, "test time (h)", 10.0),
            (1_728_000.0, "test time (d)", 20.0),
        ] {
            let places = Places::of(Axis::TestTime, &rows(&[Some(0.0), Some(last)]));
            assert_eq!((places.label.as_str(), places.values[1]), (label, place));
        }
    }

    #[test]
    fn moments_are_counted_from_the_first_row_shown() {
        let places = Places::of(Axis::Received, &rows(&[None, None, None]));
        assert_eq!(places.values, [0.0, 0.5, 1.0]);
        assert!(places.label.starts_with("received since"));
    }
}
