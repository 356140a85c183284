#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rovi_fuzz::questions(bytes));
