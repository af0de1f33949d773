#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_batch::people::fuzz_csv(data));
