//! Integers in JSON and CSV that are beyond 64 bits.
//!
//! `serde_json` would round them without a word. They are rare, so the text is looked through for
//! long runs of digits first, at a cost of one byte in nineteen.

use std::borrow::Cow;

use rovi_common::rows::{BIG_INTEGER, Value};

/// Digits of the largest integers that 64 bits hold.
const LONGEST: usize = 19;

/// Rewrites the integers of a JSON text that are beyond 64 bits: as floats where that is exact, as
/// cells that are refused with a reason elsewhere.
pub(super) fn rewrite(json: &[u8]) -> Cow<'_, [u8]> {
    if !has_long_run(json) {
        return Cow::Borrowed(json);
    }
    let mut text = Vec::with_capacity(json.len() + 64);
    let mut rest = json;
    while let Some(&byte) = rest.first() {
        let (token, after) = match byte {
            b'"' => rest.split_at(string_length(rest)),
            b'-' | b'0'..=b'9' => rest.split_at(number_length(rest)),
            _ => rest.split_at(1),
        };
        match refined(token) {
            None => text.extend_from_slice(token),
            Some(Value::Float(_)) => {
                text.extend_from_slice(token);
                text.extend_from_slice(b".0");
            }
            Some(_) => {
                text.extend_from_slice(format!("{{\"{BIG_INTEGER}\":\"").as_bytes());
                text.extend_from_slice(token);
                text.extend_from_slice(b"\"}");
            }
        }
        rest = after;
    }
    Cow::Owned(text)
}

/// Reads a whole number that 64 bits do not hold: a float where that is exact, else refused.
/// `None` for anything else.
pub(super) fn refined(token: &[u8]) -> Option<Value> {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    if digits.len() < LONGEST || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = str::from_utf8(token).ok()?;
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return None;
    }
    let float: f64 = text.parse().ok()?;
    // A float's digits before the point are written in full.
    let is_exact = float.is_finite() && format!("{float:.0}") == text;
    Some(if is_exact {
        Value::Float(float)
    } else {
        Value::big_integer(text)
    })
}

/// Whether the text has as many digits in a row as an integer beyond 64 bits.
fn has_long_run(json: &[u8]) -> bool {
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    (LONGEST - 1..json.len()).step_by(LONGEST).any(|at| {
        let (before, after) = json.split_at(at);
        let right = after.iter().take_while(is_digit).count();
        right > 0 && right + before.iter().rev().take_while(is_digit).count() >= LONGEST
    })
}

/// Returns the length of the string at the begin, with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_length(text: &[u8]) -> usize {
    let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    text.iter().take_while(is_part).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(json: &str) -> String {
        String::from_utf8(rewrite(json.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn what_64_bits_hold_and_what_is_no_integer_stays() {
        for json in [
            "9223372036854775807",
            "[-9223372036854775808, 18446744073709551615]",
            r#"{"a": "100000000000000000000000", "b\"1": "\\"}"#,
            "1.0000000000000000000000001e5",
            "[3.14159265358979323846]",
            "",
        ] {
            assert_eq!(rewritten(json), json);
        }
    }

    #[test]
    fn an_integer_that_is_exact_as_a_float_becomes_one() {
        assert_eq!(
            rewritten(r#"[18446744073709551616, "x", -36893488147419103232]"#),
            r#"[18446744073709551616.0, "x", -36893488147419103232.0]"#
        );
    }

    #[test]
    fn an_integer_that_would_be_rounded_becomes_a_refused_cell() {
        assert_eq!(
            rewritten(r#"{"a":18446744073709551617,"b":1}"#),
            r#"{"a":{"integer":"18446744073709551617"},"b":1}"#
        );
        let long = "9".repeat(400);
        assert_eq!(rewritten(&long), format!(r#"{{"integer":"{long}"}}"#));
    }
}
