//! The outside world that the engine may ask: time and randomness. Tests bring their own.

/// Clock and entropy. Everything that differs from run to run comes through here.
pub trait Env: Send + Sync {
    /// Unix time in milliseconds.
    fn now_ms(&self) -> i64;
    /// Fills the bytes from a cryptographic random source.
    fn fill(&self, bytes: &mut [u8]);
}

/// Random bytes of a fixed length.
pub fn random<const N: usize>(env: &dyn Env) -> [u8; N] {
    let mut bytes = [0; N];
    env.fill(&mut bytes);
    bytes
}

/// The machine's clock and the kernel's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Env for System {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where randomness is read")]
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness no key, code or salt is safe: stopping is the only right answer.
        getrandom::fill(bytes).expect("the kernel's random source answers");
    }
}
