#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist::web::campaign::fuzz_campaign(data));
