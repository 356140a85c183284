//! Formula and columns to cells.

use rovi_common::rows::Columns;

use super::{Expression, Function, Node, Operator};

type Cells = Vec<Option<f64>>;

impl Expression {
    /// Computes the cell of each of `rows` rows, which a formula without columns has, too; a column
    /// that is missing or holds no numbers is null.
    pub(crate) fn evaluate(&self, columns: &Columns, rows: usize) -> Vec<Option<f64>> {
        let cells = cells(&self.0, columns, rows);
        cells.into_iter().map(|cell| finite(cell?)).collect()
    }
}

fn cells(node: &Node, columns: &Columns, rows: usize) -> Cells {
    match node {
        Node::Number(number) => vec![Some(*number); rows],
        Node::Column(name) => match columns.get(name) {
            Some(column) => (0..rows).map(|row| column.number(row)).collect(),
            None => vec![None; rows],
        },
        Node::Negative(inner) => {
            let inner = cells(inner, columns, rows);
            inner.into_iter().map(|cell| cell.map(|x| -x)).collect()
        }
        Node::Binary(operator, left, right) => {
            let (left, right) = (cells(left, columns, rows), cells(right, columns, rows));
            let pairs = left.into_iter().zip(right);
            pairs
                .map(|(left, right)| finite(apply(*operator, left?, right?)))
                .collect()
        }
        Node::Call(function, arguments) => {
            let arguments: Vec<Cells> = arguments
                .iter()
                .map(|node| cells(node, columns, rows))
                .collect();
            let values = |row: usize| -> Option<Vec<f64>> {
                arguments
                    .iter()
                    .map(|cells| cells.get(row).copied().flatten())
                    .collect()
            };
            (0..rows)
                .map(|row| finite(call(*function, &values(row)?)?))
                .collect()
        }
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn apply(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Power => left.powf(right),
    }
}

/// Applies a function; the parser saw to the number of values.
fn call(function: Function, values: &[f64]) -> Option<f64> {
    let x = *values.first()?;
    Some(match function {
        Function::Abs => x.abs(),
        Function::Sqrt => x.sqrt(),
        Function::Exp => x.exp(),
        Function::Ln => x.ln(),
        Function::Log10 => x.log10(),
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        Function::Floor => x.floor(),
        Function::Ceil => x.ceil(),
        Function::Round => x.round(),
        Function::Sign if x == 0.0 => 0.0,
        Function::Sign => x.signum(),
        Function::Min => values.iter().copied().fold(x, f64::min),
        Function::Max => values.iter().copied().fold(x, f64::max),
        // `f64::clamp` panics where the bounds are swapped.
        Function::Clamp => x.max(*values.get(1)?).min(*values.get(2)?),
    })
}

#[cfg(test)]
mod tests {
    use rovi_common::rows::Column;

    use super::*;

    fn evaluate(text: &str) -> Cells {
        let columns = Columns::new(vec![
            (
                "v".to_owned(),
                Column::Float(vec![Some(4.0), Some(-2.0), None]),
            ),
            (
                "odd".to_owned(),
                Column::Float(vec![Some(f64::NAN), Some(f64::INFINITY), None]),
            ),
            ("n".to_owned(), Column::Int(vec![Some(0), Some(2), Some(3)])),
            ("t".to_owned(), Column::Text(vec![None, None, None])),
        ]);
        text.parse::<Expression>()
            .unwrap()
            .evaluate(&columns.unwrap(), 3)
    }

    #[test]
    fn operators_bind_as_in_a_textbook() {
        for (text, value) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("8 / 4 / 2", 1.0),
            ("5 - 3 - 1", 1.0),
            ("1.5e1 + 2E-1", 15.2),
            ("clamp(9, 0, 5) + min(3, 1, 2) + max(1, 2)", 8.0),
            ("sqrt(16) + abs(-1) + ln(exp(2)) + log10(100)", 9.0),
            ("floor(1.5) + ceil(1.5) + round(1.4) + sign(-3)", 3.0),
        ] {
            let cell = evaluate(text)[0].unwrap();
            assert!((cell - value).abs() < 1e-12, "{text}: {cell}");
        }
    }

    #[test]
    fn null_and_what_is_not_finite_give_null() {
        assert_eq!(evaluate("v * n"), [Some(0.0), Some(-4.0), None]);
        assert_eq!(evaluate("v / n"), [None, Some(-1.0), None]);
        assert_eq!(evaluate("sqrt(v)"), [Some(2.0), None, None]);
        assert_eq!(evaluate("exp(1000)")[0], None);
        assert_eq!(
            evaluate("1 / (1 / n)")[0],
            None,
            "nothing goes on from infinity"
        );
        assert_eq!(evaluate("t + 1"), [None; 3]);
        assert_eq!(
            (evaluate("odd"), evaluate("-odd")),
            (vec![None; 3], vec![None; 3])
        );
    }
}
