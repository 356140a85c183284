//! Text to formula, by recursive descent.
//!
//! `^` binds strongest and to the right, then the sign, then `*` and `/`, then `+` and `-`.
//! Columns stand by name, or in double quotes where the name has other characters than letters,
//! digits and `_` (`""` within is one quote).

use super::{Expression, Function, MAX_EXPRESSION_BYTES, Node, Operator};

/// How deep parentheses, signs and calls may stand in each other; recursion goes no deeper.
const MAX_DEPTH: usize = 32;

/// Why a text is no formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {reason}")]
pub(crate) struct ExpressionError {
    /// Where, counted in characters from 1.
    pub(crate) position: usize,
    /// What is wrong, and what could stand there.
    pub(crate) reason: String,
}

type Parsed = Result<Node, ExpressionError>;

impl std::str::FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(ExpressionError {
                position: 1,
                reason: format!(
                    "the expression has {} bytes, at most {MAX_EXPRESSION_BYTES} are taken",
                    text.len()
                ),
            });
        }
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let node = parser.sum()?;
        match parser.peek() {
            None => Ok(Self(node)),
            Some(other) => Err(parser.error(format!(
                "`{other}` is not expected; an operator or the end could stand here"
            ))),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => return Ok(left),
            };
            self.skip(1);
            left = binary(operator, left, self.product()?);
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Multiply,
                Some('/') => Operator::Divide,
                _ => return Ok(left),
            };
            self.skip(1);
            left = binary(operator, left, self.signed()?);
        }
    }

    fn signed(&mut self) -> Parsed {
        self.deeper(|parser| match parser.peek() {
            Some('-') => {
                parser.skip(1);
                Ok(Node::Negative(Box::new(parser.signed()?)))
            }
            Some('+') => {
                parser.skip(1);
                parser.signed()
            }
            _ => parser.power(),
        })
    }

    fn power(&mut self) -> Parsed {
        let base = self.atom()?;
        if self.peek() != Some('^') {
            return Ok(base);
        }
        self.skip(1);
        Ok(binary(Operator::Power, base, self.signed()?))
    }

    fn atom(&mut self) -> Parsed {
        match self.peek() {
            Some('(') => {
                self.skip(1);
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some('"') => self.quoted(),
            Some(first) if first.is_ascii_digit() || first == '.' => self.number(),
            Some(first) if is_of_name(first) => self.name(),
            Some(other) => Err(self.error(format!(
                "`{other}` is not expected; a number, a column, a function or `(` could stand here"
            ))),
            None => Err(self.error("the expression ends here, a value is missing".to_owned())),
        }
    }

    fn number(&mut self) -> Parsed {
        let rest = self.rest();
        let mut end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let exponent = rest.get(end..).unwrap_or_default();
        if let Some(digits) = exponent.strip_prefix(['e', 'E']) {
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            let length = unsigned
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(unsigned.len());
            if length > 0 {
                end += exponent.len() - unsigned.len() + length;
            }
        }
        let text = rest.get(..end).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                self.skip(end);
                Ok(Node::Number(number))
            }
            _ => Err(self.error(format!("`{text}` is not a number"))),
        }
    }

    fn name(&mut self) -> Parsed {
        let rest = self.rest();
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        let begun = self.at;
        self.skip(end);
        if self.peek() != Some('(') {
            return Ok(Node::Column(name.to_owned()));
        }
        let known = Function::ALL.iter().find(|(_, known, _)| *known == name);
        let Some(&(function, _, (least, most))) = known else {
            let names = Function::ALL.map(|(_, name, _)| name).join(", ");
            return Err(self.error_at(
                begun,
                format!("there is no function `{name}`; there are {names}"),
            ));
        };
        let arguments = self.arguments()?;
        if (least..=most).contains(&arguments.len()) {
            return Ok(Node::Call(function, arguments));
        }
        let wants = if least == most {
            least.to_string()
        } else {
            format!("{least} to {most}")
        };
        let found = arguments.len();
        Err(self.error_at(
            begun,
            format!("`{name}` takes {wants} values and has {found}"),
        ))
    }

    fn arguments(&mut self) -> Result<Vec<Node>, ExpressionError> {
        self.expect('(')?;
        let mut arguments = vec![self.sum()?];
        while self.peek() == Some(',') {
            self.skip(1);
            arguments.push(self.sum()?);
        }
        self.expect(')')?;
        Ok(arguments)
    }

    fn quoted(&mut self) -> Parsed {
        let begun = self.at;
        self.skip(1);
        let mut name = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(end) = rest.find('"') else {
                return Err(self.error_at(begun, "the name in quotes does not end".to_owned()));
            };
            name.push_str(rest.get(..end).unwrap_or_default());
            self.at += end + 1;
            if !self
                .text
                .get(self.at..)
                .unwrap_or_default()
                .starts_with('"')
            {
                return Ok(Node::Column(name));
            }
            name.push('"');
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), ExpressionError> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.skip(1);
                Ok(())
            }
            Some(found) => {
                Err(self.error(format!("`{found}` is not expected; `{wanted}` is missing")))
            }
            None => Err(self.error(format!("the expression ends here, `{wanted}` is missing"))),
        }
    }

    /// Parses one level deeper, within the bound.
    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH}")));
        }
        let node = parse(self);
        self.depth -= 1;
        node
    }

    /// Skips spaces and returns the next character.
    fn peek(&mut self) -> Option<char> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    fn error(&self, reason: String) -> ExpressionError {
        self.error_at(self.at, reason)
    }

    fn error_at(&self, at: usize, reason: String) -> ExpressionError {
        let before = self.text.get(..at).unwrap_or(self.text);
        ExpressionError {
            position: before.chars().count() + 1,
            reason,
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn binary(operator: Operator, left: Node, right: Node) -> Node {
    Node::Binary(operator, Box::new(left), Box::new(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ExpressionError {
        text.parse::<Expression>().unwrap_err()
    }

    #[test]
    fn errors_tell_the_position_and_what_could_stand_there() {
        for (text, position, told) in [
            ("voltage *", 10, "a value is missing"),
            ("voltage ** 2", 10, "`*` is not expected"),
            ("a b", 3, "an operator"),
            ("Ω * (2 + 3", 11, "`)` is missing"),
            ("2 + foo(1)", 5, "no function `foo`; there are abs"),
            ("clamp(1, 2)", 1, "takes 3 values and has 2"),
            ("1.2.3", 1, "not a number"),
            ("1e999", 1, "not a number"),
            ("\"odd name", 1, "does not end"),
            ("", 1, "a value is missing"),
            ("a; DROP TABLE b", 2, "`;` is not expected"),
        ] {
            let error = error(text);
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.reason.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_and_length_are_bounded() {
        let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
        assert!(error(&deep).reason.contains("nested deeper"));
        assert!(error(&"-".repeat(400)).reason.contains("nested deeper"));
        assert!(error(&"1+".repeat(300)).reason.contains("600 bytes"));
        let long = format!("1{}", "+1".repeat(255));
        assert!(long.parse::<Expression>().is_ok());
    }

    #[test]
    fn the_columns_of_a_formula_are_told_each_once() {
        let parsed: Expression = r#"voltage * "I, ""raw""" + min(voltage, min)"#.parse().unwrap();
        assert_eq!(parsed.columns(), ["voltage", "I, \"raw\"", "min"]);
    }
}
