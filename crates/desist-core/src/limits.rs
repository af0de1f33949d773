//! The limits of the rules, each with its reason. Limits of the binary are in its own `limits.rs`;
//! one that only a single file knows stands in that file.

/// Longest identifier value in bytes of its normal form; longer ones are not identifiers (an e-mail
/// address has at most 254, RFC 5321 4.5.3.1.3).
pub const IDENTIFIER_BYTES_MAX: usize = 256;
/// Longest raw identifier that is looked at before normalisation; NFC and lower-casing can shrink
/// or grow a text, so this is above [`IDENTIFIER_BYTES_MAX`].
pub const IDENTIFIER_RAW_BYTES_MAX: usize = 1024;
/// An identifier held by more subjects than this is not one person's (`none@none.com`, a shop's
/// phone): nothing passes through it any more. 64 is far above any family and bounds every walk.
pub const HOLDERS_MAX: u64 = 64;
/// Most identifiers one subject may hold. Years of one person's browsers fit; it bounds the work of
/// one act to [`HOLDERS_MAX`] x this.
pub const HELD_MAX: u64 = 256;
/// Most identifiers that one request may name.
pub const NAMED_MAX: usize = 32;
/// How far ahead of the server's clock a caller's time may be, in seconds: clocks differ a little,
/// and a later time would win over opt-ins that the consumer has not made yet.
pub const CLOCK_SKEW_SECONDS_MAX: i64 = 300;
/// How long a consumer has for the second step of an opt-in, in seconds.
pub const CONFIRM_SECONDS_MAX: i64 = 30 * 60;
/// Most subjects in one list of decisions.
pub const DECISIONS_MAX: usize = 10_000;
