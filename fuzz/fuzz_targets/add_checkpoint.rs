#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_proof::witness::fuzz_add_checkpoint(data));
