//! Why a cell fits no column.

use std::fmt;

/// Why no column can hold a cell.
///
/// Reasons are kept as kinds and not as texts: an array of a million such cells is a frame of a
/// million bytes, and a text for each would take a hundred times as much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A text holds a NUL character, which PostgreSQL's cannot.
    Nul,
    /// Bytes that are no text; how many of them are.
    Binary(u32),
    /// Msgpack has an extension of this type.
    Extension(i8),
    /// A timestamp whose microseconds do not fit 64 bits.
    Time,
    /// An array within a row.
    Array,
    /// A map within a row.
    Map,
    /// The column stands so many times in the row.
    Repeated(u32),
    /// A word where most cells of a column that nobody knows yet are none.
    Word,
    /// An integer that a column cannot hold exactly, by its digits; a thin pointer, so that no cell
    /// grows by it.
    Integer(Box<String>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul => f.write_str("text with a NUL character cannot be stored"),
            Self::Binary(0) => f.write_str("binary data that is not UTF-8"),
            Self::Binary(valid) => write!(
                f,
                "binary data that is not UTF-8 after its first {valid} bytes"
            ),
            Self::Extension(kind) => write!(f, "msgpack extension type {kind} is not known"),
            Self::Time => f.write_str("a timestamp outside the range of microseconds in 64 bits"),
            Self::Array => f.write_str("a nested array cannot be stored in a column"),
            Self::Map => f.write_str("a nested map cannot be stored in a column"),
            Self::Word => f.write_str(
                "most cells of this new column are numbers or truths, and this one is not",
            ),
            Self::Repeated(times) => write!(f, "it stands {times} times in the row"),
            Self::Integer(digits) => {
                write!(f, "the integer {digits} has more than 64 bits with sign")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Value;

    #[test]
    fn a_refused_cell_takes_no_more_than_a_text() {
        assert_eq!(size_of::<Value>(), size_of::<String>());
        assert!(size_of::<Refusal>() <= 16);
    }
}
