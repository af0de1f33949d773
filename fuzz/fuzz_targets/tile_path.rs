#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| desist_proof::tile::fuzz_tile_path(data));
