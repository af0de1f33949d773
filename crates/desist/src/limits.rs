//! The limits that this crate enforces, each with its reason. A test reaches each.

use std::time::Duration;

/// Largest `desist.toml`. A thousand sites take about 100 KiB; what is larger is another file.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Most `[[sites]]`: the pages list them, and nobody reads a longer list.
pub const SITES_MAX: usize = 1000;
/// Most `[[purposes]]`: bits 16 to 63 of the purpose set are the business's.
pub const PURPOSES_MAX: usize = 64 - desist_core::purpose::FIRST_DECLARED_BIT as usize;
/// Longest purpose name: it is a JSON member, a metric label and a column heading.
pub const PURPOSE_NAME_BYTES_MAX: usize = 64;
/// Longest purpose description: one paragraph on the choices page.
pub const PURPOSE_DESCRIPTION_BYTES_MAX: usize = 1000;
/// Longest business name: a heading of the choices page.
pub const BUSINESS_NAME_BYTES_MAX: usize = 200;
/// Longest site id: it is repeated in requests and metric labels.
pub const SITE_ID_BYTES_MAX: usize = 64;
/// Longest configured URL; browsers and proxies cut longer ones.
pub const URL_BYTES_MAX: usize = 2048;
/// Most `[[campaign.fields]]`: each is a member of every profile that is answered, and 100 of the longest texts already make
/// a profile of 100 KB (255 characters of 4 bytes each).
pub const CUSTOM_FIELDS_MAX: usize = 100;
/// Most `[[campaign.fields]]` with `searchable = true`: with the three built-in ones, what a profile's share of memory holds.
pub const CUSTOM_FIELDS_SEARCHABLE_MAX: usize = 8;
/// Longest name of a custom field: it is a JSON member and stands in URLs, as a purpose's name does.
pub const CUSTOM_FIELD_NAME_BYTES_MAX: usize = 64;
/// Longest label of a custom field: one line of a form.
pub const CUSTOM_FIELD_LABEL_BYTES_MAX: usize = 128;
/// Most characters of a custom field of type string, and the `length` of one that gives none. One byte counts them; what is
/// longer is a document and no field of a person.
pub const CUSTOM_FIELD_CHARS_MAX: usize = u8::MAX as usize;
/// Most `values` of an enumeration: somebody chooses from the list, and each write walks it.
pub const ENUMERATION_VALUES_MAX: usize = 200;
/// Longest value of an enumeration: a name, as that of a field.
pub const ENUMERATION_VALUE_BYTES_MAX: usize = 64;
/// Most `[[witnesses]]`: each checkpoint waits for all that answer, and carries their signatures in every receipt.
pub const WITNESSES_MAX: usize = 16;
/// Longest id of a destination: it stands in URLs, metric labels and the first column of lists.
pub const DESTINATION_ID_BYTES_MAX: usize = 64;
/// Longest name of whoever tells a destination by hand: one line of a list.
pub const DESTINATION_OWNER_BYTES_MAX: usize = 200;
/// Longest description of what that person is to do: a paragraph.
pub const DESTINATION_TASK_BYTES_MAX: usize = 2000;
/// Longest `timeout` of a call, in seconds: less than half of a lease, so that no call outlives the right to make it.
pub const DESTINATION_TIMEOUT_MAX: u64 = 29;
/// Longest `linger`, in seconds: an opt-out has days, and whoever waits for a batch should not wait for most of one.
pub const DESTINATION_LINGER_MAX: u64 = 3_600;
/// Shortest time in the configuration, in seconds: what is shorter is a loop.
pub const PERIOD_SECONDS_MIN: u64 = 1;
/// Longest time in the configuration, in seconds: 90 days, beyond every deadline of the law.
pub const PERIOD_SECONDS_MAX: u64 = 90 * 86_400;
/// Longest secret that the configuration points at: a key or token has some hundred bytes, so what is longer is another file.
pub const SECRET_BYTES_MAX: usize = 4096;
/// Longest name of a variable of the environment that has one: a line of a service file.
pub const ENV_NAME_BYTES_MAX: usize = 128;
/// Most `trusted_proxies`: the list is walked for each hop of each request.
pub const TRUSTED_PROXIES_MAX: usize = 256;
/// Longest piece of a wrong value that an error message repeats, in characters.
pub const ERROR_VALUE_CHARS_MAX: usize = 60;

/// Open connections of one listener; more wait in the kernel's queue. At 32 KiB of header buffer
/// each that is 128 MiB at the very worst.
pub const CONNECTIONS_MAX: usize = 4096;
/// Largest request head (HTTP/1.1) or header list (HTTP/2). Browsers stay below 16 KiB, and proxies
/// add a few more.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// Concurrent requests on one HTTP/2 connection: what browsers and proxies assume at least
/// (RFC 9113 6.5.2 recommends 100 or more).
pub const HTTP2_STREAMS_MAX: u32 = 128;
/// Time for a TLS handshake: two round trips on a bad mobile line, with retransmissions.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the start of a connection to its first whole request head; a client that only
/// connects, or sends its head byte by byte, holds a place no longer.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a request in flight and without a byte moved after which a connection is closed;
/// longer than the 60 s for which common proxies keep theirs, so that they close first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time that requests in flight get at a stop; shorter than the 30 s after which service managers
/// commonly kill.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// Pause after `accept` failed for want of file descriptors or memory, so that it is not a busy loop.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Largest certificate or key file; a long chain has 20 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Largest body of the JSON API: 10,000 decisions with three identifiers each take about 3 MiB.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Longest `Idempotency-Key`: a UUID has 36.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Time for one request, upload included. A write waits for one or two commits, at most seconds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Receipts that one client (IPv4 address, IPv6 /56) may ask for in a minute, wrong codes included: enough to load a
/// page again and again, and nothing against 128 random bits.
pub const RECEIPTS_PER_MINUTE: std::num::NonZeroU32 = std::num::NonZeroU32::new(60).expect("not zero");
/// Clients whose asking is remembered before the idle ones are forgotten: some megabytes.
pub const RECEIPT_CLIENTS_MAX: usize = 50_000;
/// How long a connection to another machine may take to come up, TLS included.
pub const OUTGOING_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections that are kept to one host: what a busy destination uses at once, so that none is made anew for each call.
pub const OUTGOING_IDLE_PER_HOST_MAX: usize = desist_core::limits::CONCURRENCY_MAX;
/// Largest request to a witness: 63 hashes and a checkpoint with a hundred signatures take 40 KB.
pub const WITNESS_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Calls of one errand to a destination that are under way at once, where each is about one person; the manifest's own number for the
/// destination holds as well.
pub const ERRAND_CALLS_MAX: usize = 4;
/// Reasons of a destination that are remembered as text: vendors document a few dozen.
pub const REASONS_MAX: usize = 1024;
/// Results of look-ups that are kept for one destination: 10,000 with some rows each are some megabytes.
pub const LOOKUPS_CACHED_MAX: usize = 10_000;
/// Largest answer of a token endpoint: tokens with claims in them have some KiB.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest access or refresh token: common servers take headers of 8 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How long a token endpoint may take. It goes on when whoever asked has no more time, so that no rotated token is lost.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Life of an access token whose answer names none: what common servers give at least.
pub const TOKEN_LIFE: Duration = Duration::from_mins(30);
/// Longest life of an access token that is believed: a day, as with waits.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_hours(24);
/// Largest part of a snapshot: a receiver can take it over again if a transfer breaks, and reads it into memory.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 64 << 20;
/// How long one file of a snapshot may take: the largest one over a line of 100 KB/s.
pub const FILE_TIMEOUT: Duration = Duration::from_mins(12);
/// People that are read at once for a snapshot: some megabytes with all that is known of them.
pub const SNAPSHOT_PAGE_MAX: usize = 1000;
/// Longest answer of a bucket that is read: an error with its text.
pub const BUCKET_ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often a quiet connection to an SFTP server is asked whether it is still there: more often than routers forget it.
pub const SFTP_KEEPALIVE: Duration = Duration::from_secs(30);
