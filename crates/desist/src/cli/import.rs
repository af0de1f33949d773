//! `desist import`.
//!
//! The file is read twice. The first time finds what is wrong with it before anything is sent, and
//! gives the import its name: a digest of the content and of how it is read. The second time sends
//! pieces; the store keeps how far the import of that name is, in the transaction of each piece, so
//! that it can be cut off anywhere and goes on with the same command.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use desist_batch::people::{Seen, list};
use desist_batch::{Column, Columns, Delimiter, FileError, People};
use desist_core::identifier::{Identifier, NormalForm};
use desist_core::purpose::{PurposeSet, Purposes};
use desist_engine::intake::ImportProgress;
use indicatif::ProgressBar;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::check::bar_style;
use super::connect::{Local, Refused};
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::control::{IMPORT_ROWS_MAX, ImportAnswer, ImportBody, ImportStart};
use crate::web::people::IdentifierInput;

/// How often a piece is sent again when the server is busy, or its disk is full, before the command
/// gives up; with [`RETRY_WAIT_MAX`] about ten seconds, in which a server recovers if it can.
const RETRIES_MAX: u32 = 8;
/// The first wait before a piece is sent again; each next one is twice as long.
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pieces that are read ahead while one is sent.
const PIECES_AHEAD_MAX: usize = 4;
/// The first line of an errors file, by which an old one is known.
const ERRORS_HEADER: &str = "line,reason\n";

/// `desist import`
#[derive(Debug, Args)]
#[command(
    after_help = "An import can be cut off at any point: the same command goes on where it was. The same file again changes nothing.\nAn empty cell leaves its identifier out. Several columns of one row are one person's.\n\nExit code 0: every row was taken, 1: some were not, or not whole (see the errors file), 2: an error.\n\nExamples:\n  desist import people.csv --column email:email\n  desist import crm.csv --column 'E-mail address:email' --column Mobile:phone --column Id:customer_id --dry-run\n  desist import hashed.csv --column hash:email:sha256 --purpose sale --received-at 2026-11-14T10:00:00-08:00"
)]
pub struct ImportArgs {
    /// The CSV file; its first row holds the names of the columns.
    file: PathBuf,
    /// A column with identifiers: its name in the file, and what it holds.
    #[arg(long = "column", required = true, value_name = "HEADER:KIND[:sha256]")]
    columns: Vec<Column>,
    /// For what [default: what an opt-out covers: sale, sharing, targeted advertising].
    #[arg(long = "purpose", value_name = "PURPOSE")]
    purposes: Vec<String>,
    /// When these people opted out (RFC 3339) [default: now].
    #[arg(long, value_name = "TIME")]
    received_at: Option<jiff::Timestamp>,
    /// Only check the file.
    #[arg(long)]
    dry_run: bool,
    /// Where rows that were refused are listed [default: FILE.errors.csv].
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// What stands between cells [default: the first one under which the columns are found].
    #[arg(long)]
    delimiter: Option<DelimiterName>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What stands between cells.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DelimiterName {
    Comma,
    Semicolon,
    Tab,
}

impl From<DelimiterName> for Delimiter {
    fn from(name: DelimiterName) -> Self {
        match name {
            DelimiterName::Comma => Self::Comma,
            DelimiterName::Semicolon => Self::Semicolon,
            DelimiterName::Tab => Self::Tab,
        }
    }
}

/// Some rows in the order of the file.
struct Piece {
    first_row: u64,
    people: Vec<Vec<IdentifierInput>>,
    /// The line of each of them.
    lines: Vec<u64>,
    refused: u64,
    incomplete: u64,
    /// Line and reason.
    errors: Vec<(u64, String)>,
    last: bool,
}

impl Piece {
    fn new(first_row: u64) -> Self {
        Self { first_row, people: Vec::new(), lines: Vec::new(), refused: 0, incomplete: 0, errors: Vec::new(), last: false }
    }

    /// Rows of the file up to the end of this piece.
    fn end(&self) -> u64 {
        self.first_row + self.people.len() as u64 + self.refused
    }
}

/// The list of rows that were refused. It is made with its first line, so no file means no error.
struct ErrorsFile {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl ErrorsFile {
    /// Checks that nothing but an older list would be lost.
    fn new(path: PathBuf, input: &File) -> Result<Self, CliError> {
        if let Ok(there) = std::fs::metadata(&path) {
            let input = input.metadata().map_err(CliError::io("the file"))?;
            let mut start = String::new();
            let read = File::open(&path).and_then(|file| file.take(ERRORS_HEADER.len() as u64).read_to_string(&mut start));
            if (there.dev(), there.ino()) == (input.dev(), input.ino()) || read.is_err() || start != ERRORS_HEADER {
                return Err(CliError::said(format!(
                    "--errors: {} exists and is not a list of errors of an earlier import; name another file",
                    path.display()
                )));
            }
        }
        Ok(Self { path, file: None })
    }

    /// An older list is of an older run.
    fn remove_old(&self) -> Result<(), CliError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: std::io::Error) -> CliError {
        CliError::io(format!("--errors: {}", self.path.display()))(error)
    }

    /// Lists errors. They are in the file when this returns, so a row that was refused is listed
    /// before the store counts it.
    fn list(&mut self, errors: &[(u64, String)]) -> Result<(), CliError> {
        if errors.is_empty() {
            return Ok(());
        }
        let written = (|| {
            let file = match &mut self.file {
                Some(file) => file,
                none => {
                    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?);
                    file.write_all(ERRORS_HEADER.as_bytes())?;
                    none.insert(file)
                }
            };
            for (line, reason) in errors {
                writeln!(file, "{line},\"{}\"", reason.replace('"', "\"\""))?;
            }
            file.flush()
        })();
        written.map_err(|error| self.failed(error))
    }

    /// Makes the list outlive a power failure, as what the store counts does.
    fn sync(&self) -> Result<(), CliError> {
        let synced = self.file.as_ref().map_or(Ok(()), |file| file.get_ref().sync_all());
        synced.map_err(|error| self.failed(error))
    }
}

/// The import as it runs.
struct Import<'a> {
    local: &'a Local,
    /// A body without rows.
    body: ImportBody,
    /// Rows that were done before.
    start: u64,
    errors: &'a mut ErrorsFile,
    bar: &'a ProgressBar,
    accepted: u64,
    refused: u64,
    incomplete: u64,
}

pub fn run(args: ImportArgs) -> Result<Finding, CliError> {
    let columns = Columns::new(args.columns).map_err(|error| CliError::said(format!("--column: {error}")))?;
    let name = args.file.display().to_string();
    let unreadable = |error: FileError| CliError::said(format!("{name}: {error}"));
    let open = || File::open(&args.file).map_err(CliError::io(format!("FILE: {name} cannot be read; name a CSV file")));
    let file = open()?;
    let metadata = file.metadata().map_err(CliError::io(&name))?;
    if !metadata.is_file() {
        return Err(CliError::said(format!("{name}: not a file; it is read twice, so a pipe does not do")));
    }
    let errors_path = args.errors.unwrap_or_else(|| {
        let mut path = args.file.clone().into_os_string();
        path.push(".errors.csv");
        path.into()
    });
    let mut errors = ErrorsFile::new(errors_path, &file)?;
    let people = People::open(file, &columns, args.delimiter.map(Delimiter::from)).map_err(unreadable)?;
    let delimiter = people.delimiter();
    let bar = ProgressBar::new(metadata.len()).with_style(bar_style("bytes read"));
    let seen = people.scan(&mut |bytes| bar.set_position(bytes)).map_err(unreadable)?;
    bar.finish_and_clear();

    let mut purposes = args.purposes;
    if purposes.is_empty() {
        purposes = Purposes::default().names(PurposeSet::OPT_OUT_DEFAULT).into_iter().map(str::to_owned).collect();
    }
    purposes.sort();
    purposes.dedup();
    let mut import = identity(&seen, delimiter, &columns, &purposes, args.received_at);
    if args.dry_run && !args.store.data.exists() {
        return Err(CliError::said(format!("--data: there is no store in {}, and a dry run makes none", args.store.data.display())));
    }
    let local = Local::connect(&args.store)?;
    let progress = |import: &String| local.call::<_, ImportStart>(Method::POST, "/control/import/progress", Some(import));
    let ImportStart { progress: mut before, kinds_told } = progress(&import)??;
    let mut of = None;
    // What destinations have to be told of is taken from the file even if the choices in it were taken before.
    let told: Vec<_> = columns.as_slice().iter().map(|column| column.kind).filter(|kind| kinds_told.contains(kind)).collect();
    if !told.is_empty() {
        let also = serde_json::to_vec(&(&import, told)).expect("a list of words");
        of = Some(std::mem::replace(&mut import, URL_SAFE_NO_PAD.encode(Sha256::digest(also))));
        before = progress(&import)??.progress;
    }
    if let Some(ImportProgress { rows, accepted, refused, finished: true }) = before {
        if args.output.json {
            print_json(
                &json!({ "already_imported": true, "dry_run": args.dry_run, "rows": rows, "accepted": accepted, "refused": refused }),
            )?;
        } else {
            say(&format!("already imported: {accepted} of {rows} rows were taken, {refused} were refused; nothing was changed"));
        }
        return Ok(if refused == 0 { Finding::Yes } else { Finding::No });
    }
    let start = before.filter(|_| !args.dry_run).map_or(0, |before| before.rows);
    if start > 0 {
        eprintln!("desist: goes on after row {start} of {}", seen.rows);
    }
    errors.remove_old()?;
    let bar = ProgressBar::new(seen.rows).with_style(bar_style("rows"));
    let received_at = args.received_at.map(|time| time.to_string());
    let body =
        ImportBody { import, of, first_row: 0, rows: Vec::new(), unreadable: 0, purposes, received_at, last: false, dry_run: args.dry_run };
    let mut import = Import { local: &local, body, start, errors: &mut errors, bar: &bar, accepted: 0, refused: 0, incomplete: 0 };
    let people = People::open(open()?, &columns, Some(delimiter)).map_err(unreadable)?;
    let people = if args.dry_run { people } else { people.with_texts_of(&kinds_told) };
    std::thread::scope(|scope| {
        let (to, pieces) = sync_channel(PIECES_AHEAD_MAX);
        let reader = scope.spawn(move || read(people, start, seen, &to));
        let sent = import.send_all(pieces);
        let read = reader.join().map_err(|_| CliError::said("a defect: the reader of the file ended; please report it"))?;
        sent?;
        read.map_err(unreadable)?.then_some(()).ok_or_else(|| {
            CliError::said(format!(
                "{name}: the file changed while it was read; rows that were sent stand; import it again when it is complete"
            ))
        })
    })?;
    bar.finish_and_clear();

    let Import { accepted, refused, incomplete, .. } = import;
    let listed = errors.file.is_some().then_some(&errors.path);
    if args.output.json {
        print_json(&json!({
            "already_imported": false, "dry_run": args.dry_run, "rows": seen.rows, "accepted": accepted, "refused": refused,
            "incomplete": incomplete, "resumed_after": start, "errors": listed,
        }))?;
    } else {
        let done = if args.dry_run { "dry run, nothing was changed" } else { "imported; every decision denies from now on" };
        say(&format!("{done}\n  rows      {}\n  taken     {accepted}\n  refused   {refused}", seen.rows));
        if incomplete > 0 {
            say(&format!("  not whole {incomplete} (of those taken, without an identifier that is invalid)"));
        }
        if let Some(path) = listed {
            say(&format!("  see       {}", path.display()));
        }
    }
    Ok(if refused + incomplete == 0 { Finding::Yes } else { Finding::No })
}

/// The name of the import: what is in the file, and what is made of it.
fn identity(seen: &Seen, delimiter: Delimiter, columns: &Columns, purposes: &[String], received_at: Option<jiff::Timestamp>) -> String {
    let mut columns: Vec<_> = columns.as_slice().iter().map(|column| (&column.header, column.kind, column.sha256)).collect();
    columns.sort_unstable();
    // The number changes when another version counts rows in another way.
    let how = (1, seen.sha256, delimiter.byte(), columns, purposes, received_at.map(jiff::Timestamp::as_second));
    URL_SAFE_NO_PAD.encode(Sha256::digest(serde_json::to_vec(&how).expect("numbers and strings")))
}

/// Reads the file into pieces, with a border after `start` rows. Returns whether the file is still
/// the one that was seen; the last piece is only given if so.
fn read(mut people: People<File>, start: u64, seen: Seen, pieces: &SyncSender<Piece>) -> Result<bool, FileError> {
    let mut piece = Piece::new(0);
    loop {
        let row = people.next()?;
        let end = piece.end();
        if end - piece.first_row == IMPORT_ROWS_MAX as u64 && row.is_some() || end == start && end > piece.first_row {
            // Nobody listens: the sender has an error to report.
            if pieces.send(std::mem::replace(&mut piece, Piece::new(end))).is_err() {
                return Ok(true);
            }
        }
        let Some(row) = row else { break };
        let where_ = if row.lines > 1 { format!(" (a row on {} lines; is a quote not closed?)", row.lines) } else { String::new() };
        match row.named {
            Ok(identifiers) => {
                let texts = row.texts.iter().map(Option::as_ref).chain(std::iter::repeat(None));
                piece.people.push(identifiers.iter().zip(texts).map(|(identifier, text)| input(identifier, text)).collect());
                piece.lines.push(row.line);
                if !row.left_out.is_empty() {
                    piece.incomplete += 1;
                    piece.errors.push((row.line, format!("taken without its {}{where_}", list(&row.left_out))));
                }
            }
            Err(error) => {
                piece.refused += 1;
                piece.errors.push((row.line, format!("refused: {error}{where_}")));
            }
        }
    }
    if people.seen() != seen {
        return Ok(false);
    }
    piece.last = true;
    let _ = pieces.send(piece);
    Ok(true)
}

/// An identifier as the API takes it. The digest meets what the value would: it is made here, so
/// that the work is beside the server's writer, and no name goes over the socket unless some destination has to be told of it.
fn input(identifier: &Identifier, text: Option<&NormalForm>) -> IdentifierInput {
    if let Some(text) = text {
        return IdentifierInput { kind: identifier.kind, value: Some(text.as_str().to_owned()), sha256: None };
    }
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("four bits");
    let hex = identifier.digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    IdentifierInput { kind: identifier.kind, value: None, sha256: Some(hex) }
}

impl Import<'_> {
    fn send_all(&mut self, pieces: Receiver<Piece>) -> Result<(), CliError> {
        for piece in pieces {
            let (end, last) = (piece.end(), piece.last);
            self.errors.list(&piece.errors)?;
            if last {
                self.errors.sync()?;
            }
            self.accepted += piece.people.len() as u64;
            self.refused += piece.refused;
            self.incomplete += piece.incomplete;
            // What was done before is only read again for its errors.
            if end > self.start || last {
                self.send(piece)?;
            }
            self.bar.set_position(end);
        }
        Ok(())
    }

    fn send(&mut self, piece: Piece) -> Result<(), CliError> {
        let end = piece.end();
        self.body.first_row = piece.first_row;
        self.body.rows = piece.people;
        self.body.unreadable = piece.refused;
        self.body.last = piece.last;
        let answer = self.call().map_err(|error| {
            if self.body.dry_run {
                error
            } else {
                CliError::said(format!("{error}\ndesist: {} rows are done; the same command goes on from there", self.body.first_row))
            }
        })?;
        if !self.body.dry_run && answer.progress.rows < end {
            return Err(CliError::said(
                "the store expects other rows: it was restored, or the same import runs twice; the same command goes on from where it is",
            ));
        }
        self.accepted -= answer.refused.len() as u64;
        self.refused += answer.refused.len() as u64;
        let late: Vec<_> =
            answer.refused.iter().filter_map(|(place, reason)| Some((*piece.lines.get(*place)?, format!("refused: {reason}")))).collect();
        self.errors.list(&late)
    }

    /// Sends the body until the server takes it or the patience ends. A piece that was taken although
    /// the answer said otherwise is not taken twice.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when a busy server is free again")]
    fn call(&self) -> Result<ImportAnswer, CliError> {
        let mut wait = RETRY_WAIT;
        for _ in 0..RETRIES_MAX {
            match self.local.call(Method::POST, "/control/import", Some(&self.body))? {
                Err(Refused(problem)) if problem.status == 503 => std::thread::sleep(wait),
                answer => return Ok(answer?),
            }
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
        Ok(self.local.call(Method::POST, "/control/import", Some(&self.body))??)
    }
}
