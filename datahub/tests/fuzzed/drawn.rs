//! Each target, on bytes that are always the same.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::select,
    test_runner::{Config, RngSeed, TestRunner},
};

use crate::targets;

/// Pieces of frames, bodies, names, statements and questions, and the ends of what they may hold.
const PIECES: [&[u8]; 64] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\n",
    b"\r\n",
    b" ",
    b";",
    b"'",
    b"\"\"",
    b"{\"a\":",
    b"{\"a\":[",
    b"\"b\"",
    b"[{\"a\":1}",
    b"a,b,c\n",
    b"a,a\n",
    b"seq",
    b"seq_",
    b"ctid",
    b"null",
    b"true",
    b"false",
    b"NaN",
    b"inf",
    b"-",
    b"0",
    b"1",
    b"-1",
    b"0.5",
    b"1e308",
    b"1e999",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"18446744073709551617",
    b"9007199254740993",
    b"\\u0000",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0",
    "Ω".as_bytes(),
    b"..",
    b"-5h",
    b"now",
    b"1970-01-01T00:00:00Z",
    b"1000rows",
    b"v",
    b"n",
    b"+",
    b"*",
    b"/",
    b"^",
    b"(",
    b")",
    b"sqrt(",
    b"clamp(",
    b"\x81\xa1a",
    b"\xdd\xff\xff\xff\xff",
    b"\xd7\xff\x00\x00\x00\x00",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select(PIECES.as_slice()).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..12),
        1 => Just(vec![b'1'; 70]),
    ];
    (any::<u8>(), vec(piece, 0..24)).prop_map(|(first, pieces)| {
        let mut bytes = vec![first];
        bytes.extend(pieces.concat());
        bytes
    })
}

#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn cases() -> Option<u32> {
    std::env::var("ROVI_FUZZ_CASES").ok()?.parse().ok()
}

fn drawn(target: fn(&[u8])) {
    let config = Config {
        cases: cases().unwrap_or(1000),
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    };
    let held = TestRunner::new(config).run(&bytes(), |bytes| {
        target(&bytes);
        // Names and questions have no byte before them that chooses a form.
        target(bytes.get(1..).unwrap_or_default());
        Ok(())
    });
    held.unwrap();
}

#[test]
fn frames_hold() {
    drawn(targets::frames);
}

#[test]
fn bodies_hold() {
    drawn(targets::bodies);
}

#[test]
fn frames_of_the_bus_hold() {
    drawn(targets::bus);
}

#[test]
fn names_hold() {
    drawn(targets::names);
}

#[test]
fn questions_hold() {
    drawn(targets::questions);
}

#[test]
fn statements_hold() {
    drawn(targets::statements);
}

#[test]
fn the_guard_of_frames_holds() {
    drawn(targets::guard);
}
