//! Conditions on batteries, as people write them: `soh < 0.8 and cathode = NMC532`.
//!
//! A filter is one or more clauses joined by `and`. A clause is a dotted path, one of
//! `= != < <= > >= ~`, and a value: a bare word, a number, or a text in double quotes with `\"`
//! and `\\`. `~` asks whether a text holds another, whatever the case.
//!
//! Two numbers are compared as numbers, anything else as text. A path without a value meets no
//! clause but `!=`.

use std::{cmp::Ordering, fmt, str::FromStr};

/// The most clauses of a filter.
pub const MAX_CLAUSES: usize = 16;
/// The longest filter, in bytes.
pub const MAX_FILTER_BYTES: usize = 4096;

/// Operators; the longer ones first, since they begin with the shorter.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::IsNot),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Is),
    ("<", Operator::Below),
    (">", Operator::Above),
    ("~", Operator::Holds),
];

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is longer than [`MAX_FILTER_BYTES`].
    #[error("the filter has {0} bytes, the limit is {MAX_FILTER_BYTES}")]
    TooLong(usize),
    /// It has more than [`MAX_CLAUSES`] clauses.
    #[error("the filter has more than {MAX_CLAUSES} clauses")]
    TooManyClauses,
    /// Something else was expected at a place.
    #[error("at byte {at} of the filter: expected {expected}")]
    Expected {
        /// What was expected.
        expected: &'static str,
        /// Where.
        at: usize,
    },
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Is,
    /// `!=`
    IsNot,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `~`: the text holds another, whatever the case.
    Holds,
}

/// A value found at a path.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A number.
    Number(f64),
    /// A text, or a truth value as `true` or `false`.
    Text(String),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// The steps of the path; at least one.
    pub path: Vec<String>,
    /// How the value there is compared.
    pub operator: Operator,
    /// With what, as it was written.
    pub value: String,
    /// The same as a number, if it was written as one and without quotes.
    number: Option<f64>,
}

/// Conditions that must all be met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// The conditions; without any, everything matches.
    pub clauses: Vec<Clause>,
}

impl Filter {
    /// Tells whether all clauses are met; `find` looks up the value at a clause's path.
    pub fn matches(&self, mut find: impl FnMut(&Clause) -> Option<Scalar>) -> bool {
        self.clauses
            .iter()
            .all(|clause| clause.is_met_by(find(clause).as_ref()))
    }
}

impl Clause {
    /// Tells whether a value, or that there is none, meets the condition.
    pub fn is_met_by(&self, found: Option<&Scalar>) -> bool {
        let Some(found) = found else {
            return self.operator == Operator::IsNot;
        };
        if self.operator == Operator::Holds {
            return found
                .text()
                .to_lowercase()
                .contains(&self.value.to_lowercase());
        }
        let ordering = match (found, self.number) {
            (Scalar::Number(found), Some(value)) => found.partial_cmp(&value),
            _ => Some(found.text().as_str().cmp(&self.value)),
        };
        match self.operator {
            Operator::Is | Operator::Holds => ordering == Some(Ordering::Equal),
            Operator::IsNot => ordering != Some(Ordering::Equal),
            Operator::Below => ordering == Some(Ordering::Less),
            Operator::AtMost => ordering.is_some_and(Ordering::is_le),
            Operator::Above => ordering == Some(Ordering::Greater),
            Operator::AtLeast => ordering.is_some_and(Ordering::is_ge),
        }
    }
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, clause) in self.clauses.iter().enumerate() {
            let joint = if place == 0 { "" } else { " and " };
            write!(f, "{joint}{clause}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, value) = (self.path.join("."), &self.value);
        let mut signs = OPERATORS.iter();
        let sign = signs.find_map(|(sign, it)| (*it == self.operator).then_some(*sign));
        write!(f, "{path} {} ", sign.unwrap_or_default())?;
        if self.number.is_some() {
            return write!(f, "{value}");
        }
        let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
        write!(f, "\"{escaped}\"")
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        let mut reader = Reader { rest: text, text };
        let mut clauses = Vec::new();
        reader.skip_space();
        while !reader.rest.is_empty() {
            if clauses.len() == MAX_CLAUSES {
                return Err(FilterError::TooManyClauses);
            }
            if !clauses.is_empty() {
                reader.and()?;
            }
            clauses.push(reader.clause()?);
            reader.skip_space();
        }
        Ok(Self { clauses })
    }
}

/// What is left to read of a filter.
struct Reader<'t> {
    rest: &'t str,
    text: &'t str,
}

impl<'t> Reader<'t> {
    fn expected<T>(&self, expected: &'static str) -> Result<T, FilterError> {
        let at = self.text.len() - self.rest.len();
        Err(FilterError::Expected { expected, at })
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes characters up to a space, an operator or a quote.
    fn word(&mut self) -> &'t str {
        let is_end = |c: char| c.is_whitespace() || "=!<>~\"".contains(c);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn and(&mut self) -> Result<(), FilterError> {
        let before = self.rest;
        if self.word().eq_ignore_ascii_case("and") {
            self.skip_space();
            return Ok(());
        }
        self.rest = before;
        self.expected("`and` or the end")
    }

    fn clause(&mut self) -> Result<Clause, FilterError> {
        let begin = self.rest;
        let path: Vec<String> = self.word().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            self.rest = begin;
            return self.expected("a path such as cathode.name");
        }
        self.skip_space();
        let found = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((self.rest.strip_prefix(sign)?, *operator)));
        let Some((rest, operator)) = found else {
            return self.expected("one of = != < <= > >= ~");
        };
        self.rest = rest;
        self.skip_space();
        let (value, number) = self.value()?;
        Ok(Clause {
            path,
            operator,
            value,
            number,
        })
    }

    fn value(&mut self) -> Result<(String, Option<f64>), FilterError> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            return Ok((self.quoted()?, None));
        }
        match self.word() {
            "" => self.expected("a value; one with spaces stands in double quotes"),
            word => {
                let number = word.parse().ok().filter(|number: &f64| !number.is_nan());
                Ok((word.to_owned(), number))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let mut value = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next() {
                Some('"') => {
                    self.rest = characters.as_str();
                    return Ok(value);
                }
                Some('\\') => value.extend(characters.next()),
                Some(other) => value.push(other),
                None => {
                    self.rest = "";
                    return self.expected("a closing double quote");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn matches(text: &str, soh: f64, cathode: Option<&str>) -> bool {
        filter(text).matches(|clause| match clause.path.join(".").as_str() {
            "soh" => Some(Scalar::Number(soh)),
            "cathode" => cathode.map(|name| Scalar::Text(name.to_owned())),
            _ => None,
        })
    }

    #[test]
    fn all_clauses_must_be_met() {
        let text = "soh < 0.8 and cathode = NMC532";
        assert!(matches(text, 0.7, Some("NMC532")));
        assert!(!matches(text, 0.8, Some("NMC532")));
        assert!(!matches(text, 0.7, Some("LFP")));
        assert!(matches("", 0.1, None));
    }

    #[test]
    fn numbers_compare_as_numbers_and_texts_as_texts() {
        assert!(matches("soh=0.80", 0.8, None));
        assert!(matches("soh>=0.8 AND soh<=.9", 0.85, None));
        assert!(matches("cathode<2024-02-01", 0.0, Some("2024-01-31")));
        assert!(matches("cathode ~ \"mc 5\"", 0.0, Some("NMC 532")));
        assert!(matches(
            r#"cathode = "a \"b\" \\""#,
            0.0,
            Some(r#"a "b" \"#)
        ));
        assert!(!matches("soh = \"0.80\"", 0.8, None));
    }

    #[test]
    fn a_filter_that_was_written_reads_the_same() {
        let text = r#"soh < 0.80 and cathode ~ "a \"b\" \\" and n != "5" and a.b=LFP"#;
        let read = filter(text);
        assert_eq!(filter(&read.to_string()), read);
        assert_eq!(read.clauses.len(), 4);
    }

    #[test]
    fn what_is_missing_meets_only_unequal() {
        assert!(matches("cathode != LFP", 0.0, None));
        for text in ["cathode = LFP", "cathode < 5", "cathode ~ L", "other > 0"] {
            assert!(!matches(text, 0.0, None), "{text}");
        }
    }

    #[test]
    fn a_wrong_filter_says_where_and_what_was_expected() {
        for (text, at, expected) in [
            ("soh", 3, "one of ="),
            ("soh <", 5, "a value"),
            ("soh < 1 cathode = 2", 8, "`and`"),
            ("soh < 1 and", 11, "a path"),
            (".x = 1", 0, "a path"),
            ("x = \"a", 6, "closing"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(&format!("byte {at} ")), "{text}: {error}");
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many = vec!["a=1"; MAX_CLAUSES + 1].join(" and ");
        assert_eq!(many.parse::<Filter>(), Err(FilterError::TooManyClauses));
        let long = format!("a={}", "x".repeat(MAX_FILTER_BYTES));
        assert!(long.parse::<Filter>().is_err());
    }
}
