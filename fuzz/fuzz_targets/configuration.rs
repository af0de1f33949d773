#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist::config::fuzz_config(data));
