//! A battery's metadata as a document: checked against battdat's schema, kept as sent, patched.

mod schema;

use rovi_common::http::Problem;
use serde_json::{Map, Value};

/// Most bytes of metadata.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Metadata that keep to the schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metadata {
    /// The document as it was sent.
    pub(crate) text: String,
    /// The name in it, if there is one.
    pub(crate) title: Option<String>,
}

impl Metadata {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// 400 that tells where it departs from the schema, 413 beyond [`MAX_BYTES`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let text = text_of(bytes)?;
        let document = json_of(text)?;
        let title = check(&document)?;
        let text = text.to_owned();
        Ok(Self { text, title })
    }
}

/// A change of metadata: RFC 7396, null removes a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergePatch(Value);

impl MergePatch {
    /// Reads a patch, which must be an object: any other would replace the metadata by itself.
    ///
    /// # Errors
    /// 400 that says why it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        match json_of(text_of(bytes)?)? {
            patch @ Value::Object(_) => Ok(Self(patch)),
            _ => Err(Problem::bad_request("the patch is no JSON object")),
        }
    }

    /// Applies the patch to a document, or to an empty one.
    ///
    /// # Errors
    /// As [`Metadata::parse`]'s, of what would come of it.
    pub(crate) fn apply(&self, document: Option<&str>) -> Result<Metadata, Problem> {
        let mut document = document.map_or(Ok(Value::Object(Map::new())), json_of)?;
        merge(&mut document, &self.0);
        Metadata::parse(document.to_string().as_bytes())
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, change) in changes {
            if change.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key).or_insert(Value::Null), change);
            }
        }
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_BYTES {
        return Err(too_large());
    }
    str::from_utf8(bytes)
        .map_err(|error| Problem::bad_request(format!("the metadata are not UTF-8: {error}")))
}

/// 413 with the bound.
pub(crate) fn too_large() -> Problem {
    Problem::too_large(format!("the metadata are larger than {MAX_BYTES} bytes"))
}

fn json_of(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the metadata are no JSON: {error}")))
}

/// Checks a document and returns the name in it.
fn check(document: &Value) -> Result<Option<String>, Problem> {
    schema::check(document).map_err(|departure| {
        let problem = Problem::bad_request(format!("the metadata do not fit: {departure}"));
        match departure.path.as_str() {
            "" => problem,
            path => problem.at(path),
        }
    })?;
    if let Some(path) = nul_in(document, "") {
        let detail = format!("`{path}` holds a NUL character, which PostgreSQL cannot keep");
        return Err(Problem::bad_request(detail).at(path));
    }
    match document.get("name").and_then(Value::as_str) {
        Some("") => {
            Err(Problem::bad_request("`name` is empty; leave it out to get one").at("name"))
        }
        name => Ok(name.map(str::to_owned)),
    }
}

/// Finds a text with a NUL character.
fn nul_in(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(place, item)| nul_in(item, &format!("{path}[{place}]"))),
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let path = if path.is_empty() {
                key.replace('\0', "\\0")
            } else {
                format!("{path}.{}", key.replace('\0', "\\0"))
            };
            if key.contains('\0') {
                return Some(path);
            }
            nul_in(value, &path)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_an_object_whose_name_is_a_text() {
        let title = |text: &str| Metadata::parse(text.as_bytes()).map(|metadata| metadata.title);
        assert_eq!(title("{}").unwrap(), None);
        assert_eq!(title(r#"{"name": "Ü"}"#).unwrap(), Some("Ü".to_owned()));
        for wrong in ["[]", "{", "5", r#"{"name": 5}"#, r#"{"name": ""}"#] {
            assert_eq!(title(wrong).unwrap_err().status.as_u16(), 400, "{wrong}");
        }
    }

    #[test]
    fn a_problem_names_the_path() {
        let problem = |text: &str| Metadata::parse(text.as_bytes()).unwrap_err();
        let text = r#"{"battery": {"cathode": {"supplier": "x"}}}"#;
        assert_eq!(problem(text).field.unwrap(), "battery.cathode.name");
        let text = r#"{"x": [{"y": "a\u0000"}]}"#;
        assert_eq!(problem(text).field.unwrap(), "x[0].y");
    }

    /// The examples of RFC 7396, appendix A, whose patch is an object.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let patch = MergePatch::parse(patch.as_bytes()).unwrap();
            assert_eq!(patch.apply(Some(target)).unwrap().text, expected);
        }
        assert!(MergePatch::parse(b"[]").is_err());
        let patch = MergePatch::parse(br#"{"battery": {"mass": "heavy"}}"#).unwrap();
        assert_eq!(
            patch.apply(None).unwrap_err().field.unwrap(),
            "battery.mass"
        );
    }
}
