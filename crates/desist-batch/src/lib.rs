//! Files in and out of desist. No store, no network: a file becomes identifiers, and no error ever
//! repeats what a cell holds.

pub mod columns;
pub mod people;

pub use columns::{Column, Columns, ColumnsError};
pub use people::{CellError, Delimiter, FileError, People, Row, RowError};

/// Longest row of a file, line breaks in quotes included. A CRM's note field can have 100 KiB; what
/// is longer is a quote that is not closed, and the rest of the file inside it.
pub const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Longest header row: a thousand columns with long names. It is read before anything is known of
/// the file.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Most headers that an error lists, and the longest one it lists, in characters: what is longer is
/// more likely somebody's data than a name.
pub const HEADERS_SHOWN_MAX: usize = 40;
/// See [`HEADERS_SHOWN_MAX`].
pub const HEADER_SHOWN_CHARS_MAX: usize = 40;
