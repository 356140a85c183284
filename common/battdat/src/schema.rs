//! The JSON text by which battdat describes the columns of a table.

use serde_json::{Map, Value, json};

use crate::column::{ColumnInfo, ColumnKind};

/// The columns that battery-data-toolkit 0.4.6 knows in each of its own tables.
const KNOWN_TABLES: [(&str, &str); 3] = [
    ("raw_data", include_str!("known/raw_data.json")),
    ("cycle_stats", include_str!("known/cycle_stats.json")),
    ("eis_data", include_str!("known/eis_data.json")),
];

/// Tells whether battdat has a table of this name.
pub(crate) fn is_known(table: &str) -> bool {
    KNOWN_TABLES.iter().any(|(name, _)| *name == table)
}

/// Descriptions of columns, known and extra.
#[derive(Debug, Default)]
pub(crate) struct ColumnSchema(Map<String, Value>);

impl ColumnSchema {
    /// Reads the text of a table's `metadata` attribute.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// Returns the columns that battdat describes for every table of this name.
    fn known(table: &str) -> Self {
        KNOWN_TABLES
            .iter()
            .find(|(name, _)| *name == table)
            .and_then(|(_, text)| Self::parse(text).ok())
            .unwrap_or_default()
    }

    /// Finds a column; an extra column hides a known one, as in battdat.
    fn entry(&self, column: &str) -> Option<&Value> {
        let extra = self
            .0
            .get("extra_columns")
            .and_then(|extra| extra.get(column));
        extra.or_else(|| self.0.get(column).filter(|_| column != "extra_columns"))
    }

    fn text(&self, column: &str, key: &str) -> Option<String> {
        let text = self.entry(column)?.get(key)?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Fills in the units and descriptions of columns; those of an array hold for its parts.
    pub(crate) fn describe(&self, columns: &mut [ColumnInfo]) {
        for column in columns {
            let name = column.expanded_from.as_ref().unwrap_or(&column.name);
            let unit = self.text(name, "units");
            let description = self.text(name, "description");
            column.unit = unit;
            column.description = description;
        }
    }
}

/// Writes the `metadata` attribute of a table: the known columns of its name, and each column
/// that has a unit or description other than theirs as an extra one.
pub fn write(table: &str, columns: &[ColumnInfo]) -> String {
    let known = ColumnSchema::known(table);
    let mut extra = Map::new();
    for column in columns {
        let name = column.expanded_from.as_ref().unwrap_or(&column.name);
        let differs = |key, ours: &Option<String>| ours.is_some() && *ours != known.text(name, key);
        if differs("units", &column.unit) || differs("description", &column.description) {
            extra.insert(name.clone(), extra_column(column, known.entry(name)));
        }
    }
    let mut schema = known.0;
    schema.insert("extra_columns".to_owned(), Value::Object(extra));
    Value::Object(schema).to_string()
}

/// Describes one extra column, which keeps what is known of it and not said anew.
fn extra_column(column: &ColumnInfo, known: Option<&Value>) -> Value {
    let kept = |key: &str| known.and_then(|known| known.get(key)).cloned();
    let kind = match column.kind {
        // battdat's check of a number column fails on arrays.
        _ if column.expanded_from.is_some() => "other",
        ColumnKind::Float => "float",
        ColumnKind::Int => "integer",
        ColumnKind::Bool | ColumnKind::Text => "other",
    };
    let said = |text: &Option<String>| text.clone().map(Value::String);
    json!({
        "required": kept("required").unwrap_or(Value::Bool(false)),
        "type": kept("type").unwrap_or_else(|| kind.into()),
        // battdat demands a text here.
        "description": said(&column.description).or_else(|| kept("description")).unwrap_or_else(|| "".into()),
        "units": said(&column.unit).or_else(|| kept("units")).unwrap_or(Value::Null),
        "monotonic": kept("monotonic").unwrap_or(Value::Bool(false)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_known_columns_is_extra() {
        let columns = [
            ColumnInfo::new("voltage", ColumnKind::Float).with_unit("V"),
            ColumnInfo::new("temperature", ColumnKind::Float).with_unit("K"),
            ColumnInfo::new("pressure", ColumnKind::Float).with_unit("kPa"),
            ColumnInfo::new("note", ColumnKind::Text),
        ];
        let schema = ColumnSchema::parse(&write("raw_data", &columns)).unwrap();
        let extra = schema.0.get("extra_columns").unwrap().as_object().unwrap();
        assert_eq!(
            extra.keys().collect::<Vec<_>>(),
            ["pressure", "temperature"]
        );
        assert_eq!(schema.text("voltage", "units").as_deref(), Some("V"));
        assert_eq!(schema.text("temperature", "units").as_deref(), Some("K"));
        assert_eq!(
            schema.text("temperature", "description").as_deref(),
            Some("Temperature of the battery")
        );
        assert_eq!(schema.text("note", "units"), None);
    }

    #[test]
    fn every_known_table_has_its_columns() {
        for (table, _) in KNOWN_TABLES {
            assert!(ColumnSchema::known(table).0.len() > 5, "{table}");
        }
    }
}
