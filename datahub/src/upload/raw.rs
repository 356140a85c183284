//! Rows as they were sent, for `hub.rejected_rows`; read only where a row was refused.

use std::fmt;

use rovi_common::rows;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

use super::{
    decode::{Encoding, MAX_DEPTH},
    decoded::RejectedRow,
    kept,
};

/// Fills in the bodies of rejected rows from the bytes they came in.
pub(super) fn fill_bodies(bytes: &[u8], encoding: Encoding, rejected: &mut [RejectedRow]) {
    let offsets: Vec<usize> = rejected.iter().map(|row| row.offset).collect();
    let rows = match encoding {
        Encoding::Msgpack => {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
            deserializer.set_max_depth(MAX_DEPTH);
            RowsAt(&offsets).deserialize(&mut deserializer).ok()
        }
        Encoding::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            RowsAt(&offsets).deserialize(&mut deserializer).ok()
        }
    };
    for (row, body) in rejected.iter_mut().zip(rows.into_iter().flatten()) {
        row.body = body;
    }
}

/// Reads the rows at some places of a frame of any form, in ascending order. The others are only
/// passed over: what was sent takes many times its bytes as JSON values.
struct RowsAt<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for RowsAt<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowsAt<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row, a batch of columns or an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Value>, A::Error> {
        items_at(self.0, seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
        let mut rows = vec![Map::new(); self.0.len()];
        while let Some(Raw(key)) = map.next_key()? {
            let name = name_of(key);
            let cells = map.next_value_seed(CellsAt(self.0))?;
            for (row, cell) in rows.iter_mut().zip(cells) {
                add(row, name.clone(), cell);
            }
        }
        Ok(rows.into_iter().map(Value::Object).collect())
    }
}

/// Reads the cells at some places of a column; a single value is the cell of a row that came alone.
struct CellsAt<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for CellsAt<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Hands what is no array to [`RawVisitor`].
macro_rules! one_cell {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<Vec<Value>, E> {
            RawVisitor.$visit(value).map(|cell| vec![cell])
        })*
    };
}

impl<'de> Visitor<'de> for CellsAt<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of values")
    }

    one_cell! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_bytes: &[u8] }

    fn visit_unit<E>(self) -> Result<Vec<Value>, E> {
        Ok(vec![Value::Null])
    }

    fn visit_none<E>(self) -> Result<Vec<Value>, E> {
        Ok(vec![Value::Null])
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Vec<Value>, D::Error> {
        RawVisitor.visit_newtype_struct(ext).map(|cell| vec![cell])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Value>, A::Error> {
        items_at(self.0, seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Value>, A::Error> {
        RawVisitor.visit_map(map).map(|cell| vec![cell])
    }
}

/// Reads the items at some places of an array.
fn items_at<'de, A: SeqAccess<'de>>(places: &[usize], mut seq: A) -> Result<Vec<Value>, A::Error> {
    let mut items = Vec::with_capacity(places.len());
    let mut next = 0;
    for &place in places {
        while next < place && seq.next_element::<IgnoredAny>()?.is_some() {
            next += 1;
        }
        let item: Option<Raw> = seq.next_element()?;
        items.push(item.map_or(Value::Null, |Raw(item)| item));
        next += 1;
    }
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(items)
}

/// Keeps a cell of a row, beside others of its column.
fn add(row: &mut Map<String, Value>, name: String, cell: Value) {
    match row.entry(name) {
        Entry::Vacant(free) => _ = free.insert(cell),
        Entry::Occupied(mut taken) => kept::repeat(taken.get_mut(), cell),
    }
}

fn name_of(key: Value) -> String {
    match key {
        Value::String(key) => key,
        other => other.to_string(),
    }
}

/// Anything that msgpack or JSON can say, as JSON.
struct Raw(Value);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor).map(Raw)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(kept::float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(match str::from_utf8(value) {
            Ok(text) => text.into(),
            Err(_) => serde_json::json!({ "bin": value }),
        })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Value, D::Error> {
        let Raw(parts) = Raw::deserialize(ext)?;
        let time = timestamp(&parts).map(kept::time);
        Ok(time.unwrap_or_else(|| serde_json::json!({ "ext": parts })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Raw(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((Raw(key), Raw(value))) = map.next_entry()? {
            add(&mut fields, name_of(key), value);
        }
        Ok(Value::Object(fields))
    }
}

/// Reads msgpack's timestamp, which is extension -1, from what became of its parts.
fn timestamp(parts: &Value) -> Option<i64> {
    let [kind, payload] = parts.as_array()?.as_slice() else {
        return None;
    };
    let byte = |number: &Value| u8::try_from(number.as_u64()?).ok();
    let payload: Vec<u8> = match payload {
        Value::String(text) => text.clone().into_bytes(),
        other => other
            .get("bin")?
            .as_array()?
            .iter()
            .map(byte)
            .collect::<Option<_>>()?,
    };
    rows::timestamp_us(&payload).filter(|_| kind.as_i64() == Some(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_stands_twice_keeps_all_its_cells() {
        let sent = br#"{"a": 1, "b": 5, "a": null, "a": "x"}"#;
        let Raw(kept) = serde_json::from_slice(sent).unwrap();
        assert_eq!(
            kept,
            serde_json::json!({"a": {"repeated": [1, null, "x"]}, "b": 5})
        );
    }

    #[test]
    fn of_what_was_sent_only_the_rows_asked_for_are_kept() {
        let read = |json: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            let rows = RowsAt(&[1, 3]).deserialize(&mut deserializer).unwrap();
            deserializer.end().unwrap();
            serde_json::json!(rows)
        };
        let expected = serde_json::json!([{"a": [1], "b": null}, {"a": {"c": 2}, "b": "x"}]);
        assert_eq!(
            read(r#"{"a": [0, [1], {}, {"c": 2}, 5], "b": [[], null, [{}], "x", 5]}"#),
            expected
        );
        assert_eq!(
            read(r#"[{}, {"a": [1], "b": null}, {"a": [[]]}, {"a": {"c": 2}, "b": "x"}, {}]"#),
            expected
        );
        let mut alone = serde_json::Deserializer::from_str(r#"{"a": {"c": 2}, "b": true}"#);
        let rows = RowsAt(&[0]).deserialize(&mut alone).unwrap();
        assert_eq!(rows, [serde_json::json!({"a": {"c": 2}, "b": true})]);
    }

    #[test]
    fn extensions_are_passed_over_whole() {
        let frame = [0x81, 0xa1, b'a', 0x93, 0xd4, 5, 0xfe, 0x90, 0xc7, 1, 7, 9];
        let mut frame = rmp_serde::Deserializer::from_read_ref(&frame);
        let rows = RowsAt(&[1]).deserialize(&mut frame).unwrap();
        assert_eq!(rows, [serde_json::json!({"a": []})]);
    }

    #[test]
    fn what_json_cannot_say_is_kept_in_words() {
        let bytes = [0x93, 0xc4, 1, 0xff, 0xca, 0x7f, 0xc0, 0, 0, 0xd4, 5, 0xfe];
        let Raw(value) = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            serde_json::json!([{"bin": [255]}, {"float": "NaN"}, {"ext": [5, {"bin": [254]}]}])
        );
        let times = rmp_serde::to_vec(&[rows::Value::Time(-1), rows::Value::Time(65)]).unwrap();
        let Raw(times) = rmp_serde::from_slice(&times).unwrap();
        assert_eq!(
            times,
            serde_json::json!([{"timestamp_us": -1}, {"timestamp_us": 65}])
        );
    }
}
