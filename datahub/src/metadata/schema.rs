//! The form of battdat's `BatteryMetadata`, and where a document departs from it.
//!
//! The schema is JSON Schema with the few keywords that battdat's models use, read once. Keys that
//! it does not know are allowed everywhere, as battdat allows them.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("battery_metadata.json")).expect("a test reads the schema")
});

/// Where a document departs from the schema, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", if path.is_empty() { String::new() } else { format!("`{path}` ") })]
pub(crate) struct Departure {
    /// Path of the value, such as `battery.electrolyte.additives[0].name`; empty for the document.
    pub(crate) path: String,
    /// What is expected there.
    pub(crate) reason: String,
}

/// Checks a document.
///
/// # Errors
/// The first departure, in the order of the schema.
pub(super) fn check(document: &Value) -> Result<(), Departure> {
    check_value(&SCHEMA, document, "")
}

/// Returns what a keyword of a schema says; null where it has none.
fn keyword<'s>(schema: &'s Value, name: &str) -> &'s Value {
    schema.get(name).unwrap_or(&Value::Null)
}

fn departs(path: &str, reason: impl Into<String>) -> Result<(), Departure> {
    Err(Departure {
        path: path.to_owned(),
        reason: reason.into(),
    })
}

fn check_value(schema: &Value, value: &Value, path: &str) -> Result<(), Departure> {
    if let Some(reference) = keyword(schema, "$ref").as_str() {
        let definition = reference
            .strip_prefix('#')
            .and_then(|at| SCHEMA.pointer(at));
        return definition.map_or(Ok(()), |schema| check_value(schema, value, path));
    }
    if let Some(choices) = keyword(schema, "anyOf").as_array() {
        return check_choices(choices, value, path);
    }
    if let Some(kind) = keyword(schema, "type").as_str()
        && !is_of(kind, value)
    {
        let found = noun(value);
        return departs(path, format!("must be {}, it is {found}", article(kind)));
    }
    if let Some(words) = keyword(schema, "enum").as_array()
        && !words.contains(value)
    {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return departs(path, format!("must be one of {}", words.join(", ")));
    }
    match value {
        Value::Object(_) => check_object(schema, value, path),
        Value::Array(items) => check_array(schema, items, path),
        Value::Number(_) => check_number(schema, value, path),
        Value::String(text) => check_text(schema, text, path),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

/// A choice is always between one form and null: what departs from that form is told.
fn check_choices(choices: &[Value], value: &Value, path: &str) -> Result<(), Departure> {
    let is_null = |choice: &&Value| keyword(choice, "type") == "null";
    if value.is_null() && choices.iter().any(|choice| is_null(&choice)) {
        return Ok(());
    }
    let form = choices.iter().find(|choice| !is_null(choice));
    form.map_or(Ok(()), |form| check_value(form, value, path))
}

fn check_object(schema: &Value, object: &Value, path: &str) -> Result<(), Departure> {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let required = keyword(schema, "required").as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if object.get(name).is_none() {
            return departs(&below(name), "is missing");
        }
    }
    for (name, schema) in keyword(schema, "properties")
        .as_object()
        .into_iter()
        .flatten()
    {
        if let Some(value) = object.get(name) {
            check_value(schema, value, &below(name))?;
        }
    }
    Ok(())
}

fn check_array(schema: &Value, items: &[Value], path: &str) -> Result<(), Departure> {
    let bounds = (
        keyword(schema, "minItems").as_u64(),
        keyword(schema, "maxItems").as_u64(),
    );
    let count = items.len() as u64;
    if bounds.0.is_some_and(|least| count < least) || bounds.1.is_some_and(|most| count > most) {
        let wanted = bounds.0.or(bounds.1).unwrap_or_default();
        return departs(path, format!("must have {wanted} items, it has {count}"));
    }
    for (place, item) in items.iter().enumerate() {
        let schema = keyword(schema, "prefixItems")
            .get(place)
            .unwrap_or(keyword(schema, "items"));
        check_value(schema, item, &format!("{path}[{place}]"))?;
    }
    Ok(())
}

fn check_number(schema: &Value, value: &Value, path: &str) -> Result<(), Departure> {
    let Some(number) = value.as_f64() else {
        return Ok(());
    };
    let broken = [
        (
            "minimum",
            "at least",
            Some(number) < keyword(schema, "minimum").as_f64(),
        ),
        (
            "maximum",
            "at most",
            keyword(schema, "maximum")
                .as_f64()
                .is_some_and(|most| number > most),
        ),
        (
            "exclusiveMinimum",
            "above",
            Some(number) <= keyword(schema, "exclusiveMinimum").as_f64(),
        ),
    ];
    match broken.into_iter().find(|(_, _, is_broken)| *is_broken) {
        Some((keyword, words, _)) => {
            let bound = self::keyword(schema, keyword);
            departs(path, format!("must be {words} {bound}, it is {value}"))
        }
        None => Ok(()),
    }
}

fn check_text(schema: &Value, text: &str, path: &str) -> Result<(), Departure> {
    match keyword(schema, "format").as_str() {
        Some("date") if !is_date(text) => departs(
            path,
            format!("must be a date such as 2026-01-31, it is {text:?}"),
        ),
        Some("uri") if url::Url::parse(text).is_err() => departs(
            path,
            format!("must be a URI such as https://…, it is {text:?}"),
        ),
        _ => Ok(()),
    }
}

/// Tells whether a text is a day of the calendar, `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_shaped = bytes.len() == 10
        && bytes.iter().enumerate().all(|(place, byte)| match place {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let number = |from, to| text.get(from..to).and_then(|part| part.parse::<u32>().ok());
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 7), number(8, 10)) else {
        return false;
    };
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    is_shaped && (1..=days).contains(&day)
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

fn article(kind: &str) -> &'static str {
    match kind {
        "boolean" => "true or false",
        "string" => "a text",
        "array" => "an array",
        "object" => "an object",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "null",
    }
}

fn noun(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_keys_and_nulls_are_allowed() {
        let document = json!({
            "name": null, "site_tag": {"x": [1]}, "version": "0.4.6",
            "battery": {"custom": 1, "layer_count": 2.0, "cathode": {"name": "NMC", "area": 0}},
            "test_protocol": {"start_date": "2024-02-29"},
            "authors": [["Ada", "Ł"]], "associated_ids": ["https://doi.org/10.1/x"],
            "modeling": {"name": "x", "version": null, "type": "physics", "models": null},
        });
        assert_eq!(check(&document), Ok(()));
        assert_eq!(check(&json!({})), Ok(()));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a list of what can be wrong")]
    fn a_departure_is_told_with_its_path() {
        for (document, path, reason) in [
            (json!([]), "", "an object"),
            (json!({"name": 5}), "name", "a text, it is 5"),
            (json!({"version": null}), "version", "a text, it is null"),
            (
                json!({"is_measurement": "yes"}),
                "is_measurement",
                "true or false",
            ),
            (
                json!({"battery": {"layer_count": 1}}),
                "battery.layer_count",
                "above 1",
            ),
            (
                json!({"battery": {"layer_count": 2.5}}),
                "battery.layer_count",
                "whole",
            ),
            (
                json!({"battery": {"anode": {}}}),
                "battery.anode.name",
                "missing",
            ),
            (
                json!({"battery": {"anode": {"name": "C", "porosity": 101}}}),
                "battery.anode.porosity",
                "at most 100",
            ),
            (
                json!({"battery": {"anode": {"name": "C", "thickness": -1}}}),
                "battery.anode.thickness",
                "at least 0",
            ),
            (
                json!({"battery": {"electrolyte": {"name": "E", "additives": [{"amount": 1}]}}}),
                "battery.electrolyte.additives[0].name",
                "missing",
            ),
            (
                json!({"authors": [["a", "b"], ["c"]]}),
                "authors[1]",
                "2 items",
            ),
            (json!({"authors": [["a", 1]]}), "authors[0][1]", "a text"),
            (
                json!({"associated_ids": ["no uri"]}),
                "associated_ids[0]",
                "a URI",
            ),
            (
                json!({"test_protocol": {"start_date": "2023-02-29"}}),
                "test_protocol.start_date",
                "a date",
            ),
            (
                json!({"modeling": {"name": "x"}}),
                "modeling.version",
                "missing",
            ),
            (
                json!({"modeling": {"name": "x", "version": null, "type": "magic"}}),
                "modeling.type",
                "physics, data, empirical",
            ),
        ] {
            let departure = check(&document).unwrap_err();
            assert_eq!(departure.path, path, "{document}");
            assert!(departure.reason.contains(reason), "{departure}");
        }
    }
}
