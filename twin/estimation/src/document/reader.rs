//! JSON values that know their path, so that every refusal can name the field.

use serde_json::{Map, Value};

use super::error::DocumentError;

type Result<T> = std::result::Result<T, DocumentError>;

/// Parses `text`, turning the bare `NaN` and `Infinity` that Python writes into text, so that the reader of the field
/// refuses them with its path.
pub(crate) fn parse(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) => serde_json::from_str(&quote_not_finite(text))
            .map_err(|_again| DocumentError::NotJson(error)),
    }
}

fn quote_not_finite(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for (index, piece) in text.split('"').enumerate() {
        if index > 0 {
            quoted.push('"');
        }
        // Odd pieces stand inside quotes. Escaped quotes shift that, and then the second parse fails as the first did.
        if index % 2 == 1 {
            quoted.push_str(piece);
        } else {
            let marked = piece.replace("-Infinity", "\"-inf\"");
            quoted.push_str(
                &marked
                    .replace("Infinity", "\"inf\"")
                    .replace("NaN", "\"NaN\""),
            );
        }
    }
    quoted
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// The document itself.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn refuse(&self, problem: impl Into<String>) -> DocumentError {
        DocumentError::Field {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    fn child(&self, name: impl std::fmt::Display, value: &'a Value) -> Self {
        Self {
            path: join(&self.path, name),
            value,
        }
    }

    /// The value as an object that holds nothing but `keys`.
    pub(crate) fn object(&self, keys: &[&str]) -> Result<Object<'a>> {
        let Value::Object(map) = self.value else {
            return Err(self.refuse(format!("expected an object, got {}", kind(self.value))));
        };
        if let Some(unknown) = map.keys().find(|key| !keys.contains(&key.as_str())) {
            return Err(DocumentError::Field {
                path: join(&self.path, unknown),
                problem: format!("unknown key; known here are {}", keys.join(", ")),
            });
        }
        Ok(Object {
            path: self.path.clone(),
            map,
        })
    }

    pub(crate) fn text(&self) -> Result<&'a str> {
        self.value
            .as_str()
            .ok_or_else(|| self.refuse(format!("expected a text, got {}", kind(self.value))))
    }

    pub(crate) fn flag(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.refuse(format!("expected true or false, got {}", kind(self.value))))
    }

    pub(crate) fn is_text(&self) -> bool {
        self.value.is_string()
    }

    pub(crate) fn positive_integer(&self) -> Result<u32> {
        self.value
            .as_u64()
            .and_then(|value| u32::try_from(value).ok())
            .filter(|&value| value > 0)
            .ok_or_else(|| self.refuse(format!("expected a positive integer, got {}", self.value)))
    }

    /// The elements of a list.
    pub(crate) fn list(&self) -> Result<Vec<Node<'a>>> {
        let Value::Array(items) = self.value else {
            return Err(self.refuse(format!("expected a list, got {}", kind(self.value))));
        };
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, item)| self.child(index, item))
            .collect())
    }

    fn finite(&self) -> Result<f64> {
        self.value
            .as_f64()
            .filter(|value| value.is_finite())
            .ok_or_else(|| {
                self.refuse(format!(
                    "expected a finite number, got {}",
                    kind(self.value)
                ))
            })
    }

    /// A plain number, a list of numbers, or one batch of them in a list of lists.
    pub(crate) fn values(&self) -> Result<Vec<f64>> {
        if !self.value.is_array() {
            return Ok(vec![self.finite()?]);
        }
        let items = self.list()?;
        if !items.iter().any(|item| item.value.is_array()) {
            return items.iter().map(Node::finite).collect();
        }
        match items.as_slice() {
            [batch] => batch.list()?.iter().map(Node::finite).collect(),
            batches => Err(self.refuse(format!(
                "holds {} batches; an estimator takes one: write [[..]] with a single inner list",
                batches.len()
            ))),
        }
    }

    /// Exactly one number, in any of the forms of [`Node::values`].
    pub(crate) fn number(&self) -> Result<f64> {
        match self.values()?.as_slice() {
            [value] => Ok(*value),
            several => Err(self.refuse(format!("expected one number, got {}", several.len()))),
        }
    }

    /// A list of lists; a plain number is a 1x1 matrix and a list of numbers one row.
    pub(crate) fn rows(&self) -> Result<Vec<Vec<f64>>> {
        if !self.value.is_array() {
            return Ok(vec![vec![self.finite()?]]);
        }
        let items = self.list()?;
        if !items.is_empty() && !items.iter().any(|item| item.value.is_array()) {
            return Ok(vec![items.iter().map(Node::finite).collect::<Result<_>>()?]);
        }
        items
            .iter()
            .map(|row| row.list()?.iter().map(Node::finite).collect())
            .collect()
    }
}

/// An object whose keys are all known.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(crate) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value under `key`; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(Node {
            path: self.path_of(key),
            value,
        })
    }

    pub(crate) fn require(&self, key: &str, what: &str) -> Result<Node<'a>> {
        self.get(key).ok_or_else(|| DocumentError::Field {
            path: self.path_of(key),
            problem: format!("missing; give {what}"),
        })
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |node| node.number())
    }
}

fn join(path: &str, name: impl std::fmt::Display) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "true or false".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
