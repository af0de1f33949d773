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

/// Changes that one page of the feed may bring a lane: one read of the store, some milliseconds.
pub const FETCH_MAX: usize = 1_000;
/// Changes that a lane holds in memory behind its cursor if its batches are small: 4,096 x about 250
/// bytes is 1 MB, so three hundred lanes with a backlog stay below half a gigabyte.
pub const WINDOW_MAX: usize = 4_096;
/// The least that a lane holds, however many lanes there are: a deadline that is near can overtake so many.
pub const WINDOW_MIN: usize = 64;
/// The same for a lane whose calls carry more: two rounds of all its calls, and never more than this.
pub const WINDOW_LARGE_MAX: usize = 50_000;
/// Most targets in one call: the largest batch that a known API takes (Google Data Manager, Meta).
pub const BATCH_ITEMS_MAX: usize = 10_000;
/// Most calls of one lane in flight: more than any known API wants from one client.
pub const CONCURRENCY_MAX: usize = 64;
/// Runs of resolved changes beyond the cursor that are stored, 16 bytes each. With more gaps than
/// this the lane sends in the order of the feed, so that the cursor can move.
pub const AHEAD_MAX: usize = 1_000;
/// Targets that one lane may have parked for another attempt; beyond it something general is wrong, so
/// the lane stops, keeps the rest in the feed and raises an alarm.
pub const PARKED_MAX: usize = 10_000;
/// Dead letters that one lane keeps, at about 100 bytes; beyond it the lane stops too.
pub const DEAD_MAX: usize = 100_000;
/// Targets that wait for jobs of one destination; beyond it nothing new is sent until jobs end. A
/// privacy API that takes one person a job and two weeks for it still gets 6,000 a day.
pub const PENDING_MAX: usize = 100_000;
/// Longest name of a job that a destination may give, in bytes.
pub const JOB_HANDLE_BYTES_MAX: usize = 512;
/// Targets whose *allow* may be under way at one time, each stored before it is sent. Opt-ins are
/// rare; more wait their turn.
pub const ALLOWS_MAX: usize = 1_000;
/// Attempts before a target that its destination refuses is a dead letter, unless configured: with
/// the delays below about two days.
pub const ATTEMPTS_MAX: u32 = 16;
/// Failures alone, while others pass, after which the destination is well and the target is the cause.
pub const ALONE_MAX: u32 = 5;
/// Longest delay between two attempts of a parked target, in milliseconds: four a day, so that a fix
/// on the other side shows the same day.
pub const RETRY_DELAY_MS_MAX: u64 = 6 * 3_600_000;
/// Longest delay before a failing destination is tried again, in milliseconds: it is what a recovered
/// destination may wait for its next message.
pub const BREAKER_DELAY_MS_MAX: u64 = 300_000;
/// Longest `Retry-After` that is believed, in milliseconds; a wrong one must not stop a lane for days.
pub const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// Most rate windows of one lane: a second, a minute, an hour, a day.
pub const RATES_MAX: usize = 4;
/// Most calls in one rate window; above this a limit means nothing.
pub const RATE_CALLS_MAX: u32 = 100_000_000;
/// Longest rate window in milliseconds: a month, as some quotas have it.
pub const RATE_WINDOW_MS_MAX: u64 = 31 * 86_400_000;
/// Longest rate window that is not stored: after a restart it is taken to be full, which costs at most
/// this, in milliseconds.
pub const RATE_UNSAVED_MS_MAX: u64 = 60_000;
/// Most calls that may start between two stored counts of the long rate windows.
pub const RATE_RESERVE_MAX: u32 = 1_000;
/// Patrols of one lane: one that reads, one that sends again.
pub const PATROLS_MAX: usize = 2;
/// Failed attempts to read one page of a patrol before the patrol goes on without it.
pub const PATROL_TRIES_MAX: u32 = 3;
