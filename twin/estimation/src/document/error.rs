//! What can be wrong, or odd, in a document.

use std::fmt;

/// Why a document is refused. Every message names the field by its path and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The text is no JSON at all.
    #[error("the document is not valid JSON")]
    NotJson(#[source] serde_json::Error),
    /// A field is missing, unknown, or has a value that cannot be used.
    #[error("{path}: {problem}")]
    Field {
        /// Where, such as `asoh.rc_elements.0.r.base_values`; empty for the document itself.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl DocumentError {
    /// The path of the field at fault, where there is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::NotJson(_) => None,
            Self::Field { path, .. } => Some(path),
        }
    }
}

/// Something in a document that has no effect, or perhaps not the one meant; the document is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where, as in [`DocumentError`].
    pub path: String,
    /// What and why.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}
