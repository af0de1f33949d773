#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_connector::fuzz_answer(data));
