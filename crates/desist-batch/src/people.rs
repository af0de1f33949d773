//! People in a CSV file, row by row.

use std::fmt;
use std::io::{self, Cursor, Read};

use csv::{ByteRecord, ReaderBuilder, Terminator};
use desist_core::identifier::{Identifier, IdentifierError, Kind, NormalForm};
use sha2::{Digest as _, Sha256};

use crate::columns::{Column, Columns};
use crate::{HEADER_BYTES_MAX, HEADER_SHOWN_CHARS_MAX, HEADERS_SHOWN_MAX, RECORD_BYTES_MAX};

/// How much of the file is read at once.
const BLOCK_BYTES: usize = 64 << 10;

/// What stands between cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// A tab.
    Tab,
}

impl Delimiter {
    /// Every delimiter, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Comma, Self::Semicolon, Self::Tab];

    /// The byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }
}

/// Why a file cannot be read at all, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("the file is empty; its first row must hold the names of the columns")]
    Empty,
    /// Another encoding.
    #[error("the file is UTF-16 or not text at all; save it as \"CSV UTF-8\"")]
    NotUtf8,
    /// The first row does not end.
    #[error("the first row has more than {HEADER_BYTES_MAX} bytes; is this a CSV file, and is each quote closed?")]
    HeaderTooLong,
    /// The first row is somebody's data.
    #[error("the first row looks like data; put a row with the names of the columns before it")]
    NoHeader,
    /// A header that was named is not there.
    #[error("the file has no column {named:?}; it has {headers}")]
    UnknownHeader {
        /// What was named.
        named: String,
        /// What is there.
        headers: String,
    },
    /// A header that was named is there twice.
    #[error("the file has more than one column {0:?}; rename one in its first row")]
    TwiceInFile(String),
    /// A row does not end.
    #[error("the row at line {line} has more than {RECORD_BYTES_MAX} bytes; is a quote not closed there?")]
    RecordTooLong {
        /// Where it starts.
        line: u64,
    },
    /// The file ends inside quotes.
    #[error("a quote in the row at line {line} is not closed before the file ends; close it, or write it twice")]
    OpenQuote {
        /// Where the row starts.
        line: u64,
    },
}

/// Why one cell is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// Not text.
    #[error("the cell is not UTF-8")]
    NotUtf8,
    /// Not an identifier of its kind.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
}

/// Why a row names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowError {
    /// Cells are missing or too many, so any cell may be in the wrong column.
    Width {
        /// Cells here.
        cells: usize,
        /// Cells of the first row.
        header: usize,
    },
    /// All cells of the columns are empty.
    Nobody,
    /// No cell of the columns is an identifier.
    Cells(Vec<(Kind, CellError)>),
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Width { cells, header } => write!(f, "the row has {cells} cells, the first row has {header}"),
            Self::Nobody => f.write_str("every identifier is empty"),
            Self::Cells(cells) => f.write_str(&list(cells)),
        }
    }
}

/// Cells that are no identifiers, in words.
pub fn list(cells: &[(Kind, CellError)]) -> String {
    cells.iter().map(|(kind, error)| format!("{kind}: {error}")).collect::<Vec<_>>().join("; ")
}

/// One row that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The line on which it starts; the first line of the file is 1.
    pub line: u64,
    /// On how many lines it stands.
    pub lines: u64,
    /// Whom it names.
    pub named: Result<Vec<Identifier>, RowError>,
    /// The normal form of each of them whose kind was [asked for](People::with_texts_of) and that the file has in clear. Empty where
    /// nothing was asked for.
    pub texts: Vec<Option<NormalForm>>,
    /// What else it should name but does not, if it names somebody.
    pub left_out: Vec<(Kind, CellError)>,
}

/// What was seen of the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Rows that are not blank, without the first.
    pub rows: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// Hashes and counts what is read, and stops where a row grows without end.
struct Source<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
    left: u64,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("the row is too long"));
        }
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Two line feeds after the file: the first makes its last row end with one, so that lines can be
/// counted, and only an open quote reaches the second.
type Lines<R> = io::Chain<Source<io::Chain<Cursor<Vec<u8>>, R>>, &'static [u8]>;

/// A file of people. Not an iterator: an error is the end.
pub struct People<R: Read> {
    csv: csv::Reader<Lines<R>>,
    columns: Vec<(usize, Column)>,
    delimiter: Delimiter,
    width: usize,
    rows: u64,
    row: ByteRecord,
    texts_of: Vec<Kind>,
}

impl<R: Read> People<R> {
    /// Reads the first row. Without a delimiter, the first one is taken under which every column is
    /// there.
    pub fn open(mut file: R, columns: &Columns, delimiter: Option<Delimiter>) -> Result<Self, FileError> {
        let mut head = Vec::new();
        file.by_ref().take(HEADER_BYTES_MAX as u64).read_to_end(&mut head)?;
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || head.contains(&0) {
            return Err(FileError::NotUtf8);
        }
        let candidates = delimiter.map_or(Delimiter::ALL.to_vec(), |delimiter| vec![delimiter]);
        let mut found: Option<(Delimiter, ByteRecord, Result<Vec<usize>, FileError>)> = None;
        for delimiter in candidates {
            let header = header(&head, delimiter)?;
            let places = places(&header, columns);
            // Of several that do not fit, the one with most columns says best what is there.
            if places.is_ok() || found.as_ref().is_none_or(|(_, best, _)| header.len() > best.len()) {
                let fits = places.is_ok();
                found = Some((delimiter, header, places));
                if fits {
                    break;
                }
            }
        }
        let (delimiter, header, places) = found.ok_or(FileError::Empty)?;
        let columns = places?.into_iter().zip(columns.as_slice().iter().cloned()).collect();
        let source = Source { inner: Cursor::new(head).chain(file), hasher: Sha256::new(), bytes: 0, left: u64::MAX };
        let mut people = Self {
            csv: reader(source.chain(b"\n\n".as_slice()), delimiter),
            columns,
            delimiter,
            width: header.len(),
            rows: 0,
            row: ByteRecord::new(),
            texts_of: Vec::new(),
        };
        people.advance()?;
        people.rows = 0;
        Ok(people)
    }

    /// Also gives the normal forms of these kinds.
    #[must_use]
    pub fn with_texts_of(self, kinds: &[Kind]) -> Self {
        Self { texts_of: kinds.to_vec(), ..self }
    }

    /// What stands between cells.
    pub fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    /// Bytes read, for a progress bar.
    pub fn bytes(&self) -> u64 {
        self.csv.get_ref().get_ref().0.bytes
    }

    /// Rows read.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Goes on to the next row that is not blank: the line on which it starts, and how many it has.
    fn advance(&mut self) -> Result<Option<(u64, u64)>, FileError> {
        loop {
            let before = self.csv.position().clone();
            self.source().left = RECORD_BYTES_MAX + BLOCK_BYTES as u64;
            let read = self.csv.read_byte_record(&mut self.row);
            let too_long = FileError::RecordTooLong { line: before.line() };
            let more = match read {
                Ok(more) => more,
                Err(_) if self.source().left == 0 => return Err(too_long),
                Err(error) => {
                    return Err(match error.into_kind() {
                        csv::ErrorKind::Io(error) => error.into(),
                        _ => io::Error::other("the CSV reader failed").into(),
                    });
                }
            };
            if !more {
                return Ok(None);
            }
            let after = self.csv.position();
            let inside = line_feeds(self.row.as_slice());
            if after.byte() - before.byte() > RECORD_BYTES_MAX {
                return Err(too_long);
            }
            if after.byte() > self.bytes() + 1 {
                return Err(FileError::OpenQuote { line: after.line() - inside });
            }
            if !self.row.iter().all(|cell| cell.trim_ascii().is_empty()) {
                self.rows += 1;
                return Ok(Some((after.line() - inside - 1, inside + 1)));
            }
        }
    }

    fn source(&mut self) -> &mut Source<io::Chain<Cursor<Vec<u8>>, R>> {
        self.csv.get_mut().get_mut().0
    }

    /// The next row that is not blank.
    #[expect(clippy::should_implement_trait, reason = "an error is the end of the file, not an item")]
    pub fn next(&mut self) -> Result<Option<Row>, FileError> {
        let Some((line, lines)) = self.advance()? else { return Ok(None) };
        let mut row = Row { line, lines, named: Err(RowError::Nobody), texts: Vec::new(), left_out: Vec::new() };
        if self.row.len() != self.width {
            row.named = Err(RowError::Width { cells: self.row.len(), header: self.width });
            return Ok(Some(row));
        }
        let mut named = Vec::with_capacity(self.columns.len());
        for (place, column) in &self.columns {
            match identifier(&self.row[*place], column) {
                Some(Ok((identifier, text))) => {
                    named.push(identifier);
                    if !self.texts_of.is_empty() {
                        row.texts.push(text.filter(|_| self.texts_of.contains(&column.kind)));
                    }
                }
                Some(Err(error)) => row.left_out.push((column.kind, error)),
                None => {}
            }
        }
        if !named.is_empty() {
            row.named = Ok(named);
        } else if !row.left_out.is_empty() {
            row.named = Err(RowError::Cells(std::mem::take(&mut row.left_out)));
        }
        Ok(Some(row))
    }

    /// Reads on to the end without looking at the cells: a file that cannot be read to its end is
    /// found before anything is done with it. `progress` is called with the bytes read.
    pub fn scan(mut self, progress: &mut dyn FnMut(u64)) -> Result<Seen, FileError> {
        while self.advance()?.is_some() {
            progress(self.bytes());
        }
        Ok(self.seen())
    }

    /// What was seen, once [`next`](Self::next) gave nothing more.
    pub fn seen(self) -> Seen {
        let rows = self.rows;
        Seen { rows, sha256: self.csv.into_inner().into_inner().0.hasher.finalize().into() }
    }
}

fn reader<R: Read>(source: R, delimiter: Delimiter) -> csv::Reader<R> {
    ReaderBuilder::new()
        .delimiter(delimiter.byte())
        // A line ends with LF, so that lines can be counted; the CR of a CRLF is trimmed off its cell.
        .terminator(Terminator::Any(b'\n'))
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BLOCK_BYTES)
        .from_reader(source)
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// The first row that is not blank, if it ends within `head`.
fn header(head: &[u8], delimiter: Delimiter) -> Result<ByteRecord, FileError> {
    let mut csv = reader(head, delimiter);
    let mut row = ByteRecord::new();
    while csv.read_byte_record(&mut row).map_err(|_| FileError::NotUtf8)? {
        if csv.position().byte() >= HEADER_BYTES_MAX as u64 {
            return Err(FileError::HeaderTooLong);
        }
        if !row.iter().all(|cell| cell.trim_ascii().is_empty()) {
            return Ok(row);
        }
    }
    Err(if head.len() >= HEADER_BYTES_MAX { FileError::HeaderTooLong } else { FileError::Empty })
}

/// Where the columns are.
fn places(header: &ByteRecord, columns: &Columns) -> Result<Vec<usize>, FileError> {
    let names: Vec<_> = header.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
    columns
        .as_slice()
        .iter()
        .map(|column| {
            let mut places = (0..names.len()).filter(|place| names[*place] == column.header);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => Err(FileError::TwiceInFile(column.header.clone())),
                (None, _) if names.iter().any(|name| looks_like_data(name)) => Err(FileError::NoHeader),
                (None, _) => Err(FileError::UnknownHeader { named: column.header.clone(), headers: describe(&names) }),
            }
        })
        .collect()
}

/// Whether this is somebody's address or number rather than the name of a column.
fn looks_like_data(name: &str) -> bool {
    name.contains('@') || name.bytes().filter(u8::is_ascii_digit).count() >= 7
}

/// The names of the columns, as far as they can be shown: short words.
fn describe(names: &[String]) -> String {
    let plain = |name: &&String| {
        !name.is_empty()
            && name.chars().count() <= HEADER_SHOWN_CHARS_MAX
            && name.chars().all(|c| c.is_alphanumeric() || " _-./:;()#".contains(c))
    };
    let shown: Vec<_> = names.iter().filter(plain).take(HEADERS_SHOWN_MAX).map(|name| format!("{name:?}")).collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more if shown.is_empty() => format!("{more} with long or unusual names"),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

/// The identifier in a cell; none if it is empty.
fn identifier(cell: &[u8], column: &Column) -> Option<Result<(Identifier, Option<NormalForm>), CellError>> {
    let Ok(text) = std::str::from_utf8(cell) else { return Some(Err(CellError::NotUtf8)) };
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let identifier = if column.sha256 {
        Identifier::from_sha256_hex(column.kind, text).map(|identifier| (identifier, None))
    } else {
        Identifier::from_value(column.kind, text).map(|(identifier, text)| (identifier, Some(text)))
    };
    Some(identifier.map_err(CellError::from))
}

/// Reads any bytes as a file and asserts what must hold; fuzz targets and property tests call it.
/// The first byte picks the delimiter.
#[doc(hidden)]
pub fn fuzz_csv(data: &[u8]) {
    let Some((first, file)) = data.split_first() else { return };
    let columns = ["email:email", "phone:phone", "hash:email:sha256"].map(|column| column.parse().expect("a column"));
    for count in 1..=columns.len() {
        let columns = Columns::new(columns[..count].to_vec()).expect("different columns");
        let delimiter = Delimiter::ALL.get(usize::from(*first)).copied();
        let Ok(mut people) = People::open(file, &columns, delimiter) else { continue };
        assert!(delimiter.is_none_or(|delimiter| delimiter == people.delimiter()));
        let (mut rows, mut last, mut failed) = (0, 1, None);
        loop {
            match people.next() {
                Ok(Some(row)) => {
                    rows += 1;
                    assert!(row.line > last, "lines grow");
                    last = row.line + row.lines - 1;
                    match &row.named {
                        Ok(named) => assert!(!named.is_empty() && named.len() + row.left_out.len() <= count),
                        Err(_) => assert!(row.left_out.is_empty()),
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        // Wherever its bytes end, a read is the same; and so is a scan.
        let slowly = People::open(OneByOne(file), &columns, delimiter).expect("it opened before").scan(&mut |_| {});
        match failed {
            None => {
                assert!(last <= line_feeds(file) + 1, "no line after the last");
                assert_eq!(people.bytes(), file.len() as u64);
                let seen = people.seen();
                assert_eq!((seen.rows, seen.sha256), (rows, Sha256::digest(file).into()));
                assert_eq!(slowly.expect("read before"), seen);
            }
            Some(failed) => assert_eq!(slowly.expect_err("failed before").to_string(), failed),
        }
    }
}

/// Gives one byte at a time.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(texts: &[&str]) -> Columns {
        Columns::new(texts.iter().map(|text| text.parse().expect("a column")).collect()).expect("columns")
    }

    fn id(kind: Kind, value: &str) -> Identifier {
        Identifier::from_value(kind, value).expect("valid").0
    }

    fn read(file: &[u8], texts: &[&str]) -> Result<Vec<Row>, FileError> {
        let mut people = People::open(file, &columns(texts), None)?;
        let mut rows = Vec::new();
        while let Some(row) = people.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    fn error(file: &[u8], texts: &[&str]) -> String {
        read(file, texts).expect_err("not readable").to_string()
    }

    #[test]
    fn texts_are_given_of_the_kinds_that_were_asked_for() {
        let file = b"mail,phone,hash\nRosa@Example.org,(212) 555-2368,\n,2125552368,\nno mail,,\nana@example.org,,";
        let hash: String = Identifier::from_value(Kind::Email, "eve@example.org")
            .expect("valid")
            .0
            .digest
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let file = [&file[..], hash.as_bytes(), b"\n"].concat();
        let columns = columns(&["mail:email", "phone:phone", "hash:email:sha256"]);
        let read = |kinds: &[Kind]| {
            let mut people = People::open(file.as_slice(), &columns, None).expect("opens").with_texts_of(kinds);
            let mut rows = Vec::new();
            while let Some(row) = people.next().expect("reads") {
                rows.push(row);
            }
            rows
        };
        let texts = |kinds: &[Kind]| -> Vec<Vec<Option<String>>> {
            read(kinds)
                .iter()
                .map(|row| row.texts.iter().map(|text| text.as_ref().map(|text| text.as_str().to_owned())).collect())
                .collect()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts(&[]), [const { Vec::new() }; 4]);
        assert_eq!(texts(&[Kind::Email]), [vec![some("rosa@example.org"), None], vec![None], vec![], vec![some("ana@example.org"), None]]);
        let both =
            [vec![some("rosa@example.org"), some("+12125552368")], vec![some("+12125552368")], vec![], vec![some("ana@example.org"), None]];
        assert_eq!(texts(&[Kind::Phone, Kind::Email]), both);
        // Whom a row names does not depend on it.
        assert!(read(&[Kind::Email]).iter().map(|row| &row.named).eq(read(&[]).iter().map(|row| &row.named)));
    }

    #[test]
    fn rows_of_every_sort() {
        let file = b"\xef\xbb\xbfname,email,phone\r\n\r\nRosa,rosa@example.org,+1 212 555 2368\r\n,,\r\n\"A \"\"B\"\"\r\nC\",ana@example.org,\r\nBob,,\r\nEve,eve,12\r\n,eve@example.org,12\r\nx,y\r\n\"\",\xff@example.org,";
        let rows = read(file, &["email:email", "phone:phone"]).unwrap();
        let lines: Vec<_> = rows.iter().map(|row| (row.line, row.lines)).collect();
        assert_eq!(lines, [(3, 1), (5, 2), (7, 1), (8, 1), (9, 1), (10, 1), (11, 1)]);
        assert_eq!(rows[0].named, Ok(vec![id(Kind::Email, "rosa@example.org"), id(Kind::Phone, "+12125552368")]));
        assert_eq!(rows[1].named, Ok(vec![id(Kind::Email, "ana@example.org")]));
        assert_eq!(rows[2].named, Err(RowError::Nobody));
        let Err(RowError::Cells(cells)) = &rows[3].named else { panic!("{:?}", rows[3]) };
        assert_eq!(cells.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Email, Kind::Phone]);
        assert_eq!(rows[4].named, Ok(vec![id(Kind::Email, "eve@example.org")]));
        assert_eq!(rows[4].left_out.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Phone]);
        assert_eq!(rows[5].named, Err(RowError::Width { cells: 2, header: 3 }));
        assert_eq!(rows[6].named, Err(RowError::Cells(vec![(Kind::Email, CellError::NotUtf8)])));
    }

    #[test]
    fn digests_meet_values() {
        let hash = "04b322305465a826149112edb7a66eff2996002f6a4c857657cdd26ede85327e";
        let file = format!("h;x\n {} ;1\n{};2\n", hash, &hash[1..]);
        let rows = read(file.as_bytes(), &["h:email:sha256"]).unwrap();
        assert_eq!(rows[0].named, Ok(vec![id(Kind::Email, "rosa@example.org")]));
        assert_eq!(rows[1].named, Err(RowError::Cells(vec![(Kind::Email, IdentifierError::InvalidHash.into())])));
    }

    #[test]
    fn the_delimiter_is_the_one_that_fits() {
        for (delimiter, text) in Delimiter::ALL.into_iter().zip([",", ";", "\t"]) {
            let file = format!("a{text}email{text}b\n1{text}rosa@example.org{text}2\n");
            let mut people = People::open(file.as_bytes(), &columns(&["email:email"]), None).unwrap();
            assert_eq!(people.delimiter(), delimiter);
            assert!(people.next().unwrap().unwrap().named.is_ok());
            assert_eq!(People::open(file.as_bytes(), &columns(&["email:email"]), Some(delimiter)).unwrap().delimiter(), delimiter);
        }
        assert!(People::open(b"a;email\n".as_slice(), &columns(&["email:email"]), Some(Delimiter::Comma)).is_err());
    }

    #[test]
    fn files_that_cannot_be_read() {
        let email = &["email:email"];
        assert_eq!(error(b"", email), FileError::Empty.to_string());
        assert_eq!(error(b"\n\r\n , \n", email), FileError::Empty.to_string());
        assert_eq!(error(b"\xff\xfee\0m\0", email), FileError::NotUtf8.to_string());
        assert_eq!(error(b"e\0mail\n", email), FileError::NotUtf8.to_string());
        assert_eq!(error(b"email,email\n", email), FileError::TwiceInFile("email".to_owned()).to_string());
        assert_eq!(error(b"Mail;Phone;\"a\nb\"\n", email), "the file has no column \"email\"; it has \"Mail\", \"Phone\" and 1 more");
        let long = "x".repeat(HEADER_SHOWN_CHARS_MAX + 1);
        assert_eq!(error(long.as_bytes(), email), "the file has no column \"email\"; it has 1 with long or unusual names");
        for data in ["rosa@example.org", "1,2125552368", "Rosa;(212) 555-2368"] {
            assert_eq!(error(data.as_bytes(), email), FileError::NoHeader.to_string());
        }
        assert_eq!(error(&vec![b'x'; HEADER_BYTES_MAX], email), FileError::HeaderTooLong.to_string());
        assert_eq!(error(&vec![b'\n'; HEADER_BYTES_MAX], email), FileError::HeaderTooLong.to_string());
        assert_eq!(error(b"email\na@b.c\n\"d@e.f\ng@h.i\n", email), FileError::OpenQuote { line: 3 }.to_string());
        assert_eq!(error(b"email\n\n\r\n\"d\n\n", email), FileError::OpenQuote { line: 4 }.to_string());
        assert_eq!(error(b"email\n\"", email), FileError::OpenQuote { line: 2 }.to_string());
        assert!(read(b"email\n\"a@b.c\n\"", email).is_ok());
    }

    #[test]
    fn a_row_has_an_end() {
        let file = |bytes: u64| format!("email,note\nrosa@example.org,{}\n", "x".repeat(bytes as usize - "rosa@example.org,\n".len()));
        let rows = read(file(RECORD_BYTES_MAX).as_bytes(), &["email:email"]).unwrap();
        assert!(rows[0].named.is_ok());
        for more in [1, BLOCK_BYTES as u64 + 1, 3 * RECORD_BYTES_MAX] {
            assert_eq!(error(file(RECORD_BYTES_MAX + more).as_bytes(), &["email:email"]), FileError::RecordTooLong { line: 2 }.to_string());
        }
    }

    #[test]
    fn no_message_repeats_a_cell() {
        let file = b"email,phone\nsecret,secret\nsecret@,\nsecret\n\xffsecret,secret secret\n\"secret\nsecret\",\n,sec\tret";
        for row in read(file, &["email:email", "phone:phone"]).unwrap() {
            let text = format!("{row:?} {}", row.named.as_ref().unwrap_err());
            assert!(!text.contains("secret"), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_bytes(delimiter in 0..4_u8, rest in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz_csv(&[&[delimiter], &b"email\n"[..], &rest[..]].concat());
            fuzz_csv(&[&[delimiter], &rest[..]].concat());
        }

        #[test]
        fn nearly_csv(delimiter in 0..4_u8, header in "(\u{feff}|)\n?\"?email\"?[,;\t]phone(,hash|)(\r|)\n", rest in "([\",;\t\r\n]|[a-z@.]{1,4}){0,40}") {
            fuzz_csv(&[&[delimiter], header.as_bytes(), rest.as_bytes()].concat());
        }

        /// What a careful writer writes is read as it was meant, whatever is in the other column.
        #[test]
        fn what_was_written_is_read(
            people in prop::collection::vec(("[a-z]{1,9}", any::<String>(), any::<bool>()), 0..20),
            delimiter in prop::sample::select(Delimiter::ALL.to_vec()),
            crlf: bool,
            bom: bool,
        ) {
            let mut file = if bom { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
            let end = if crlf { Terminator::CRLF } else { Terminator::Any(b'\n') };
            let mut csv = csv::WriterBuilder::new().delimiter(delimiter.byte()).terminator(end).from_writer(&mut file);
            csv.write_record(["note", "email"]).unwrap();
            let mut lines = 1;
            let mut expected = Vec::new();
            for (name, note, blank) in &people {
                if *blank {
                    csv.write_record(["", ""]).unwrap();
                    lines += 1;
                }
                let email = format!("{name}@example.org");
                csv.write_record([note, &email]).unwrap();
                expected.push((lines + 1, id(Kind::Email, &email)));
                lines += 1 + note.matches('\n').count() as u64;
            }
            csv.flush().unwrap();
            drop(csv);
            let mut people = People::open(file.as_slice(), &columns(&["email:email"]), Some(delimiter)).unwrap();
            let mut found = Vec::new();
            while let Some(row) = people.next().unwrap() {
                found.push((row.line, row.named.unwrap()[0]));
            }
            prop_assert!(found.iter().map(|(line, id)| (*line, id.digest)).eq(expected.iter().map(|(line, id)| (*line, id.digest))));
        }
    }
}
