//! Rows as they were sent, for `hub.rejected_rows`; read only where a row was refused.

use std::fmt;

use rovi_common::rows;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

use super::{
    decode::{Encoding, MAX_DEPTH},
    decoded::RejectedRow,
    kept,
};

/// Fills in the bodies of rejected rows from the bytes they came in.
pub(super) fn fill_bodies(bytes: &[u8], encoding: Encoding, rejected: &mut [RejectedRow]) {
    let sent = match encoding {
        Encoding::Msgpack => {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
            deserializer.set_max_depth(MAX_DEPTH);
            Raw::deserialize(&mut deserializer).ok()
        }
        Encoding::Json => serde_json::from_slice(bytes).ok(),
    };
    let Some(Raw(sent)) = sent else {
        return;
    };
    for row in rejected {
        row.body = row_of(&sent, row.offset);
    }
}

/// Takes one row out of a frame of any form.
fn row_of(sent: &Value, offset: usize) -> Value {
    match sent {
        Value::Array(rows) => rows.get(offset).cloned().unwrap_or_default(),
        Value::Object(columns) if columns.values().all(Value::is_array) && !columns.is_empty() => {
            let cell = |(name, column): (&String, &Value)| {
                (
                    name.clone(),
                    column.get(offset).cloned().unwrap_or_default(),
                )
            };
            Value::Object(columns.iter().map(cell).collect())
        }
        row => row.clone(),
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
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            match fields.entry(key) {
                Entry::Vacant(free) => _ = free.insert(value),
                Entry::Occupied(mut taken) => kept::repeat(taken.get_mut(), value),
            }
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
