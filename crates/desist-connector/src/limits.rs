//! The limits of connectors, each with its reason. A test reaches each.

/// Largest manifest. The longest one shipped has 4 KiB; what is larger is another file.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;
/// Most problems that one reading reports: a screen or two, and the first ones cause most of the rest.
pub const PROBLEMS_MAX: usize = 100;
/// Longest piece of a wrong value that a problem repeats, in characters.
pub const SHOWN_CHARS_MAX: usize = 60;
/// Longest id of a connector, and longest name of a setting, a purpose or a header: they stand in keys, labels and columns.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest title: one line of a list.
pub const TITLE_BYTES_MAX: usize = 100;
/// Most `hosts`: a vendor has one for each region.
pub const HOSTS_MAX: usize = 16;
/// Most `[settings.*]`: somebody fills them in by hand.
pub const SETTINGS_MAX: usize = 64;
/// Most `[[op]]` and `[[setup]]` tables; each is reviewed by a person.
pub const OPS_MAX: usize = 32;
/// Most `variants` of one kind of identifier. Each is sent for each person.
pub const VARIANTS_MAX: usize = 8;
/// Most functions in one pipe.
pub const PIPE_FUNCTIONS_MAX: usize = 8;
/// Longest expression or pointer, and longest text with placeholders, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1024;
/// Largest `batch_items`: as many as one call of a lane has.
pub const BATCH_ITEMS_MAX: usize = desist_core::limits::BATCH_ITEMS_MAX;
/// Largest `concurrency`: as many calls as a lane makes at the same time.
pub const CONCURRENCY_MAX: usize = desist_core::limits::CONCURRENCY_MAX;
/// Most `rate` windows: as many as a lane keeps.
pub const RATES_MAX: usize = desist_core::limits::RATES_MAX;
/// Most calls in one `rate` window: as a lane has it.
pub const RATE_CALLS_MAX: u32 = desist_core::limits::RATE_CALLS_MAX;
/// Longest `rate` window, in seconds: as a lane has it.
pub const RATE_WINDOW_SECONDS_MAX: u64 = desist_core::limits::RATE_WINDOW_MS_MAX / 1000;
/// Largest `batch_bytes`, and the body of a call where a manifest says nothing: what is larger times out before it is sent.
pub const BATCH_BYTES_MAX: u32 = 16 << 20;
/// Largest `ids_per_item`, and what is sent of one person in one item where a manifest says nothing: as many as one request of
/// a consumer may name, in every variant.
pub const IDS_PER_ITEM_MAX: u32 = 256;
/// Most values of the list that `for_each` walks: each multiplies the calls.
pub const EACH_MAX: usize = 1000;
/// Longest value of a setting in bytes, and longest text of a list in it.
pub const SETTING_BYTES_MAX: usize = 16 << 10;
/// Longest URL of a call in bytes: common servers refuse longer ones.
pub const URL_BYTES_MAX: usize = 8 << 10;
/// Longest value of one header in bytes: common servers take 8 KiB for all of them.
pub const HEADER_BYTES_MAX: usize = 4 << 10;
/// Largest answer that is read. A batch of the largest size with a row of 40 bytes for each.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest reason that is kept of an answer. Codes of vendors are shorter, sentences are longer.
pub const REASON_BYTES_MAX: usize = 64;
/// Longest job number that a destination may give.
pub const JOB_BYTES_MAX: usize = 512;
/// Most records of one person that a look-up may find. Duplicates of a person are few; more is a search that matched
/// something else, and writing to all of it would opt strangers out.
pub const LOOKUP_ROWS_MAX: usize = 256;
/// Longest wait that a destination may ask for, in seconds. A day: quotas are daily.
pub const AFTER_SECONDS_MAX: u64 = 86_400;
/// Longest time in a manifest, in seconds: 90 days, beyond every deadline of the law.
pub const DURATION_SECONDS_MAX: u64 = 90 * 86_400;
