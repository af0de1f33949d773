#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_proof::delivery::fuzz_deliveries(data));
