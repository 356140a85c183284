//! One cell.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};

use super::Refusal;

/// Msgpack's extension type for timestamps.
const MSGPACK_TIMESTAMP: i8 = -1;

/// Key of a map that stands for an integer beyond 64 bits, with its digits as text: what has to
/// pass through a reader that would round it.
pub const BIG_INTEGER: &str = "integer";

/// One cell of a row, as sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing was sent; SQL `NULL`.
    Null,
    /// SQL `boolean`.
    Bool(bool),
    /// SQL `bigint`.
    Int(i64),
    /// SQL `double precision`; may be NaN or infinite.
    Float(f64),
    /// SQL `text`.
    Text(String),
    /// SQL `timestamptz`: microseconds since 1970-01-01T00:00:00Z.
    Time(i64),
    /// A cell that no column can hold, with the reason.
    Refused(Refusal),
}

impl Value {
    /// Refuses an integer, given by its digits, that no column can hold exactly.
    pub fn big_integer(digits: &str) -> Self {
        Self::Refused(Refusal::Integer(Box::new(digits.to_owned())))
    }

    /// Names the kind of value in messages to users.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Text(_) => "text",
            Self::Time(_) => "timestamp",
            Self::Refused(_) => "unusable value",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Time(us) => write!(f, "timestamp {us} us"),
            Self::Refused(reason) => write!(f, "({reason})"),
        }
    }
}

impl Serialize for Value {
    /// Timestamps are written as msgpack's 96-bit extension in binary formats and as integers of
    /// microseconds in JSON.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Time(us) => serialize_time(*us, serializer),
            Self::Refused(reason) => Err(S::Error::custom(reason)),
        }
    }
}

/// Writes a timestamp; see [`Value`]'s `Serialize`.
pub(super) fn serialize_time<S: Serializer>(us: i64, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return serializer.serialize_i64(us);
    }
    let nanoseconds = u32::try_from(us.rem_euclid(1_000_000) * 1000).map_err(S::Error::custom)?;
    let mut payload = [0_u8; 12];
    let (head, tail) = payload.split_at_mut(4);
    head.copy_from_slice(&nanoseconds.to_be_bytes());
    tail.copy_from_slice(&us.div_euclid(1_000_000).to_be_bytes());
    serializer.serialize_newtype_struct(
        rmp_serde::MSGPACK_EXT_STRUCT_NAME,
        &(MSGPACK_TIMESTAMP, serde_bytes_of(&payload)),
    )
}

fn serde_bytes_of(bytes: &[u8]) -> impl Serialize + '_ {
    struct Bytes<'a>(&'a [u8]);
    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
    Bytes(bytes)
}

/// Reads msgpack's 32-, 64- and 96-bit timestamps; `None` for any other payload.
pub fn timestamp_us(payload: &[u8]) -> Option<i64> {
    let (seconds, nanoseconds) = match *payload {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let packed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let seconds = i64::try_from(packed & 0x3_ffff_ffff).ok()?;
            (seconds, i64::try_from(packed >> 34).ok()?)
        }
        [a, b, c, d, ref seconds @ ..] => {
            let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
            (seconds, i64::from(u32::from_be_bytes([a, b, c, d])))
        }
        _ => return None,
    };
    if nanoseconds > 999_999_999 {
        return None;
    }
    seconds
        .checked_mul(1_000_000)?
        .checked_add(nanoseconds / 1000)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Reads a value; also used where a value may be an array.
pub(super) struct ValueVisitor;

impl ValueVisitor {
    fn text(text: String) -> Value {
        if text.contains('\0') {
            return Value::Refused(Refusal::Nul);
        }
        Value::Text(text)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, a text or a timestamp")
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
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Self::text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Self::text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(match str::from_utf8(value) {
            Ok(text) => Self::text(text.to_owned()),
            Err(error) => {
                let valid = u32::try_from(error.valid_up_to()).unwrap_or(u32::MAX);
                Value::Refused(Refusal::Binary(valid))
            }
        })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Value, D::Error> {
        let (kind, payload) = ext.deserialize_any(ExtensionVisitor)?;
        if kind != MSGPACK_TIMESTAMP {
            return Ok(Value::Refused(Refusal::Extension(kind)));
        }
        Ok(timestamp_us(&payload).map_or(Value::Refused(Refusal::Time), Value::Time))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Refused(Refusal::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let first = map.next_entry::<Self::Value, Self::Value>()?;
        let is_only = map.next_entry::<IgnoredAny, IgnoredAny>()?.is_none();
        if !is_only {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        }
        Ok(match first {
            Some((Value::Text(key), Value::Text(digits))) if is_only && key == BIG_INTEGER => {
                Value::big_integer(&digits)
            }
            _ => Value::Refused(Refusal::Map),
        })
    }
}

/// Takes an unsigned integer: as `bigint` where it fits, as a float where that is exact.
#[expect(clippy::cast_precision_loss, reason = "the loss is what is tested for")]
fn integer(value: u64) -> Value {
    if let Ok(value) = i64::try_from(value) {
        return Value::Int(value);
    }
    let float = value as f64;
    // 2^64 itself is outside u64, so the comparison is made in 128 bits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "float <= 2^64"
    )]
    if float as u128 == u128::from(value) {
        return Value::Float(float);
    }
    Value::big_integer(&value.to_string())
}

struct ExtensionVisitor;

impl<'de> Visitor<'de> for ExtensionVisitor {
    type Value = (i8, Vec<u8>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a msgpack extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let kind = seq
            .next_element()?
            .ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let payload: Payload = seq
            .next_element()?
            .ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok((kind, payload.0))
    }
}

struct Payload(Vec<u8>);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_msgpack(bytes: &[u8]) -> Value {
        rmp_serde::from_slice(bytes).unwrap()
    }

    #[test]
    fn every_msgpack_timestamp_is_read_and_the_96_bit_form_is_written() {
        for us in [0, 1, 1_700_000_000_123_456, -1, -62_135_596_800_000_000] {
            let bytes = rmp_serde::to_vec(&Value::Time(us)).unwrap();
            assert_eq!(from_msgpack(&bytes), Value::Time(us));
        }
        assert_eq!(
            from_msgpack(&[0xd6, 0xff, 0, 0, 0, 5]),
            Value::Time(5_000_000)
        );
        let packed = (999_000_000_u64 << 34 | 7).to_be_bytes();
        let bytes = [[0xd7, 0xff].as_slice(), &packed].concat();
        assert_eq!(from_msgpack(&bytes), Value::Time(7_999_000));
    }

    #[test]
    fn bin_is_text_where_it_is_utf8() {
        assert_eq!(
            from_msgpack(&[0xc4, 4, b'h', b'o', b'l', b'd']),
            Value::Text("hold".into())
        );
        assert!(matches!(from_msgpack(&[0xc4, 1, 0xff]), Value::Refused(_)));
    }

    #[test]
    fn an_integer_beyond_64_bits_is_taken_only_if_exact_as_a_float() {
        assert_eq!(integer(1 << 63), Value::Float(2.0_f64.powi(63)));
        assert!(matches!(integer(u64::MAX), Value::Refused(_)));
        assert!(matches!(integer((1 << 63) + 1), Value::Refused(_)));
    }

    #[test]
    fn nested_values_and_nul_are_refused_with_a_reason() {
        let refused = |json: &str| matches!(serde_json::from_str(json), Ok(Value::Refused(_)));
        assert!(refused("[1]"));
        assert!(refused(r#"{"a":{"b":1}}"#));
        assert!(refused(r#""a\u0000b""#));
    }
}
