//! Aligns rows with the types of a battery's table.
//!
//! Rows whose types agree, nearly all, are only looked at by column. For the others the wanted
//! changes of the table are told first; what still does not fit is rejected cell by cell.

use std::borrow::Cow;

use rovi_common::rows::{Column, Columns, Value};

use super::tables::{Change, ColumnType, Table};

/// The longest piece of a text that a reason repeats.
const SHOWN_CHARS: usize = 80;

/// Rows that a table takes as it is.
#[derive(Debug)]
pub(super) struct Fitted<'a> {
    /// The rows, each column of its table's type.
    pub(super) columns: Cow<'a, Columns>,
    /// The rows that do not fit, by their place in the batch, with reasons.
    pub(super) rejected: Vec<(usize, String)>,
}

/// Tells which changes a table needs before `columns` fit, and notes them in `table`.
///
/// `most_columns` bounds the table's width; columns beyond it are not asked for.
pub(super) fn wanted(columns: &Columns, table: &mut Table, most_columns: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    for (hint, (name, column)) in columns.iter().enumerate() {
        let change = match table.place(hint, name) {
            Some(place) => widening(name, column, table, place),
            None => addition(name, column, table, most_columns),
        };
        if let Some(change) = change {
            table.note(&change);
            changes.push(change);
        }
    }
    changes
}

fn addition(name: &str, column: &Column, table: &Table, most_columns: usize) -> Option<Change> {
    if table.columns().len() >= most_columns || table.frozen.is_some() {
        return None;
    }
    let kind = ColumnType::for_new(column)?;
    Some(Change::Add(name.to_owned(), kind))
}

fn widening(name: &str, column: &Column, table: &Table, place: usize) -> Option<Change> {
    let (_, kind) = table.columns().get(place)?;
    let has_float = match column {
        Column::Float(_) => true,
        Column::Mixed(cells) => cells.iter().any(|cell| matches!(cell, Value::Float(_))),
        _ => false,
    };
    let widens = *kind == ColumnType::Int && has_float && table.can_widen(name);
    widens.then(|| Change::Widen(name.to_owned()))
}

/// Tells whether `columns` want a change of the table.
pub(super) fn wants_change(columns: &Columns, table: &Table, most_columns: usize) -> bool {
    let wants = |(hint, (name, column)): (usize, (&str, &Column))| match table.place(hint, name) {
        Some(place) => widening(name, column, table, place).is_some(),
        None => addition(name, column, table, most_columns).is_some(),
    };
    columns.iter().enumerate().any(wants)
}

/// Tells whether some of the rows may be rejected for the types of the table's columns.
pub(super) fn may_reject(columns: &Columns, table: &Table) -> bool {
    let misfits = |(hint, (name, column)): (usize, (&str, &Column))| {
        let place = table.place(hint, name);
        let kind = place.and_then(|place| table.columns().get(place));
        kind.is_some_and(|(_, kind)| {
            let converts = *kind == ColumnType::Float && matches!(column, Column::Int(_));
            !converts && !kind.is_type_of(column)
        })
    };
    columns.iter().enumerate().any(misfits)
}

/// Fits rows into a table as it is.
pub(super) fn fit<'a>(columns: &'a Columns, table: &Table) -> Fitted<'a> {
    let agrees = |(hint, (name, column)): (usize, (&str, &Column))| {
        let place = table.place(hint, name);
        match place.and_then(|place| table.columns().get(place)) {
            Some((_, kind)) => kind.is_type_of(column),
            None => matches!(column, Column::Null(_)),
        }
    };
    if !table.columns().is_empty() && columns.iter().enumerate().all(agrees) {
        return Fitted {
            columns: Cow::Borrowed(columns),
            rejected: Vec::new(),
        };
    }
    fit_cells(columns, table)
}

/// Fits rows cell by cell.
fn fit_cells(columns: &Columns, table: &Table) -> Fitted<'static> {
    let mut reasons: Vec<Option<String>> = vec![None; columns.rows()];
    let mut fitted = Vec::with_capacity(columns.width());
    for (hint, (name, column)) in columns.iter().enumerate() {
        let place = table.place(hint, name);
        let kind = place.and_then(|place| table.columns().get(place));
        let mut cells = Column::new();
        for (row, reason) in reasons.iter_mut().enumerate() {
            let value = column.get(row);
            let cell = match kind {
                Some((_, kind)) => convert(name, value, (kind, table)),
                None if value == Value::Null => Ok(value),
                None => Err(no_column(name, table)),
            };
            cells.push(cell.unwrap_or_else(|why| {
                reason.get_or_insert(why);
                Value::Null
            }));
        }
        fitted.push((name.to_owned(), cells));
    }
    if table.columns().is_empty() {
        let why = "the row has no value, and the table has no columns yet";
        for reason in &mut reasons {
            reason.get_or_insert_with(|| why.to_owned());
        }
    }
    // Names and lengths are those of `columns`, which were checked.
    let mut fitted = Columns::new(fitted).unwrap_or_default();
    let keep: Vec<bool> = reasons.iter().map(Option::is_none).collect();
    fitted.retain(&keep);
    let rejected = reasons.into_iter().enumerate();
    Fitted {
        columns: Cow::Owned(fitted),
        rejected: rejected
            .filter_map(|(row, why)| Some((row, why?)))
            .collect(),
    }
}

fn no_column(name: &str, table: &Table) -> String {
    if let Some(why) = &table.frozen {
        return format!("column `{name}` cannot be added: {why}");
    }
    let width = table.columns().len();
    format!("column `{name}` is not added: the table has {width} columns, the limit")
}

/// Makes a cell the type of its column, or tells why it cannot.
fn convert(
    column: &str,
    value: Value,
    (kind, table): (&ColumnType, &Table),
) -> Result<Value, String> {
    match (value, kind) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Int(value), ColumnType::Float) => exact(value).map(Value::Float).ok_or_else(|| {
            format!("column `{column}` is float, which cannot keep the integer {value} exactly")
        }),
        (Value::Float(value), ColumnType::Int) => {
            let loss = "a stored value would lose digits";
            let why = table.frozen.as_deref().unwrap_or(loss);
            Err(format!(
                "column `{column}` is integer and cannot become float, because {why}; the row has \
                 the float {value:?}"
            ))
        }
        (value @ Value::Bool(_), ColumnType::Bool)
        | (value @ Value::Int(_), ColumnType::Int)
        | (value @ Value::Float(_), ColumnType::Float)
        | (value @ Value::Text(_), ColumnType::Text)
        | (value @ Value::Time(_), ColumnType::Time) => Ok(value),
        (value, kind) => Err(format!(
            "column `{column}` is {}, the row has {}",
            kind.noun(),
            shown(&value)
        )),
    }
}

/// Returns the float that equals an integer, where there is one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the loss is what is tested for, in 128 bits, since 2^63 is no i64"
)]
fn exact(value: i64) -> Option<f64> {
    let float = value as f64;
    (float as i128 == i128::from(value)).then_some(float)
}

/// Says what a cell holds, in few words.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) if text.chars().count() > SHOWN_CHARS => {
            let start: String = text.chars().take(SHOWN_CHARS).collect();
            format!("text {start:?} …")
        }
        Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            format!("{} {value}", value.kind())
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, ColumnType)]) -> Table {
        let mut table = Table::default();
        for (name, kind) in columns {
            table.note(&Change::Add((*name).to_owned(), kind.clone()));
        }
        table
    }

    fn columns(json: &str) -> Columns {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rows_of_the_tables_types_are_not_copied() {
        let table = table(&[("a", ColumnType::Int), ("b", ColumnType::Float)]);
        let rows = columns(r#"{"b": [0.5, null], "a": [1, 2]}"#);
        assert!(matches!(fit(&rows, &table).columns, Cow::Borrowed(_)));
    }

    #[test]
    fn integers_fit_a_float_column_where_they_are_exact() {
        let table = table(&[("a", ColumnType::Float)]);
        let rows = columns(r#"{"a": [1, 9007199254740993, 0.5, null]}"#);
        let fitted = fit(&rows, &table);
        let expected = Column::Float(vec![Some(1.0), Some(0.5), None]);
        assert_eq!(fitted.columns.get("a"), Some(&expected));
        assert_eq!(fitted.rejected[0].0, 1);
    }

    #[test]
    fn only_rows_that_may_be_rejected_are_worth_a_look_at_the_table() {
        let table = table(&[("a", ColumnType::Float), ("b", ColumnType::Int)]);
        for rows in [
            r#"{"a": [1]}"#,
            r#"{"a": [0.5], "b": [null]}"#,
            r#"{"new": ["x"]}"#,
        ] {
            assert!(!may_reject(&columns(rows), &table), "{rows}");
        }
        for rows in [r#"{"a": ["x"]}"#, r#"{"b": [0.5]}"#, r#"{"a": [1, true]}"#] {
            assert!(may_reject(&columns(rows), &table), "{rows}");
        }
    }

    #[test]
    fn a_misfit_says_column_type_and_value() {
        let table = table(&[("voltage", ColumnType::Float)]);
        let rows = columns(r#"{"voltage": [3.5, "x"]}"#);
        let fitted = fit(&rows, &table);
        assert_eq!(fitted.columns.rows(), 1);
        assert_eq!(
            fitted.rejected,
            [(
                1,
                "column `voltage` is float, the row has text \"x\"".to_owned()
            )]
        );
    }

    #[test]
    fn floats_ask_an_integer_column_to_widen_and_new_columns_to_be_added() {
        let mut table = table(&[("a", ColumnType::Int)]);
        let rows = columns(r#"{"a": [1, 0.5], "b": [null, true], "c": [null, null]}"#);
        assert!(wants_change(&rows, &table, 800));
        let changes = wanted(&rows, &mut table, 800);
        let expected = [
            Change::Widen("a".into()),
            Change::Add("b".into(), ColumnType::Bool),
        ];
        assert_eq!(changes, expected);
        assert!(!wants_change(&rows, &table, 800));
        assert_eq!(fit(&rows, &table).rejected, []);
    }

    #[test]
    fn a_full_table_takes_no_more_columns() {
        let mut table = table(&[("a", ColumnType::Int)]);
        let rows = columns(r#"{"a": [1, 2], "b": [null, 5]}"#);
        assert_eq!(wanted(&rows, &mut table, 1), []);
        let fitted = fit(&rows, &table);
        assert!(fitted.rejected[0].1.contains("1 columns, the limit"));
        assert_eq!(fitted.columns.rows(), 1);
    }

    #[test]
    fn rows_without_any_value_make_no_table() {
        let rows = columns(r#"{"a": [null]}"#);
        assert_eq!(fit(&rows, &Table::default()).rejected.len(), 1);
    }
}
