//! Derived signals: small formulas over the columns of a row, such as `voltage * current`.
//!
//! Evaluated here over columns that were read, never in SQL: the same rules hold for rows,
//! statistics, reduction and exports, and no formula can make a query fail.

mod evaluate;
mod parse;

/// The longest text of an expression, in bytes.
pub(crate) const MAX_EXPRESSION_BYTES: usize = 512;

/// A checked formula.
///
/// Null in any argument gives null; so does every result that is not finite, as of a division by
/// zero, a root of a negative number or an overflow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Column(String),
    Negative(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Abs,
    Sqrt,
    Exp,
    Ln,
    Log10,
    Sin,
    Cos,
    Floor,
    Ceil,
    Round,
    Sign,
    Min,
    Max,
    Clamp,
}

impl Function {
    /// Every function: its name and the number of arguments that it takes, at least and at most.
    const ALL: [(Self, &'static str, (usize, usize)); 14] = [
        (Self::Abs, "abs", (1, 1)),
        (Self::Sqrt, "sqrt", (1, 1)),
        (Self::Exp, "exp", (1, 1)),
        (Self::Ln, "ln", (1, 1)),
        (Self::Log10, "log10", (1, 1)),
        (Self::Sin, "sin", (1, 1)),
        (Self::Cos, "cos", (1, 1)),
        (Self::Floor, "floor", (1, 1)),
        (Self::Ceil, "ceil", (1, 1)),
        (Self::Round, "round", (1, 1)),
        (Self::Sign, "sign", (1, 1)),
        (Self::Min, "min", (2, 16)),
        (Self::Max, "max", (2, 16)),
        (Self::Clamp, "clamp", (3, 3)),
    ];
}

impl Expression {
    /// Returns the names of the columns that the formula needs, each once.
    pub(crate) fn columns(&self) -> Vec<&str> {
        fn gather<'a>(node: &'a Node, names: &mut Vec<&'a str>) {
            match node {
                Node::Number(_) => {}
                Node::Column(name) if names.contains(&name.as_str()) => {}
                Node::Column(name) => names.push(name),
                Node::Negative(inner) => gather(inner, names),
                Node::Binary(_, left, right) => {
                    gather(left, names);
                    gather(right, names);
                }
                Node::Call(_, arguments) => arguments.iter().for_each(|node| gather(node, names)),
            }
        }
        let mut names = Vec::new();
        gather(&self.0, &mut names);
        names
    }
}
