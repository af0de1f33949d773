#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_core::fact::fuzz_entries(data));
