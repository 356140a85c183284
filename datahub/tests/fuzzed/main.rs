//! The fuzz targets on kept cases and on bytes drawn from what such inputs are made of.
//!
//! `scripts/fuzz.sh` searches further, by coverage; `ROVI_FUZZ_CASES=100000` draws more here.
#![cfg(feature = "fuzzing")]

#[cfg(test)]
#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own in fuzz/")]
mod targets;

#[cfg(test)]
mod drawn;
