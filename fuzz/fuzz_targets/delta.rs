#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dashboard_api::fuzz::delta(bytes));
