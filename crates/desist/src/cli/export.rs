//! `desist export`: the log for an auditor, or what one request led to, to be checked with `desist verify`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Method;
use clap::{Args, Subcommand};
use desist_engine::engine::fingerprints;
use desist_engine::env::System;
use desist_engine::notary;
use desist_engine::secrets::Secrets;
use desist_proof::note::Verifier;
use desist_proof::tile::tiles_of;
use desist_store::sqlite::SqliteReaders;
use desist_store::{Readers as _, tiles};

use super::connect::{Local, needs_store};
use super::{CliError, Finding, StoreArgs, say};

/// Entries read at a time: a few MiB.
const CHUNK: u64 = 10_000;
/// Time between two looks whether the log is signed.
const SIGNED_AFTER: Duration = Duration::from_millis(250);
/// How often to look: five seconds, where one is promised.
const SIGNED_TRIES_MAX: u32 = 20;

/// `desist export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The entries of the log with their tiles and the last signed checkpoint. No names are in it.
    #[command(
        after_help = "Writes entries.ndjson, checkpoint.txt, log.key.txt and tile/. Runs beside a server.\n\nExample:\n  desist export log audit-2026\n  desist verify audit-2026/entries.ndjson --checkpoint audit-2026/checkpoint.txt --key audit-2026/log.key.txt"
    )]
    Log {
        /// The new directory; it must not exist.
        directory: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// The receipt of a request, and what destinations were told of it. What the person sent is in it.
    #[command(
        after_help = "For each destination: the latest delivery, and the proof that the log has it. A delivery is in the log a minute after it.\nExit code 0: written, 1: no request has this code.\n\nExample:\n  desist export request 3V8K1-... -o rosa.json\n  desist verify rosa.json --key 'desist.invalid/acme/0123456789abcdef+1a2b3c4d+AX...'"
    )]
    Request {
        /// The receipt code; case, spaces and hyphens do not matter.
        code: String,
        /// The new file; without it the file goes to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        store: StoreArgs,
    },
}

pub fn run(args: &ExportArgs) -> Result<Finding, CliError> {
    match &args.what {
        What::Log { directory, store } => log(directory, store),
        What::Request { code, output, store } => request(code, output.as_deref(), store),
    }
}

fn request(code: &str, output: Option<&Path>, store: &StoreArgs) -> Result<Finding, CliError> {
    let local = Local::connect(store)?;
    let mut tries = 0;
    let file: serde_json::Value = loop {
        match local.call(Method::POST, "/control/deliveries", Some(&code))? {
            Ok(file) => break file,
            Err(refused) if refused.0.status == 404 => {
                eprintln!("no request has this receipt code");
                return Ok(Finding::No);
            }
            // What was recorded a moment ago is signed within a second.
            Err(refused) if refused.0.code == "not_signed" && tries < SIGNED_TRIES_MAX => tries += 1,
            Err(refused) => return Err(refused.into()),
        }
        std::thread::park_timeout(SIGNED_AFTER);
    };
    let Some(path) = output else {
        say(&file.to_string());
        return Ok(Finding::Yes);
    };
    let mut out = BufWriter::new(private(path)?);
    writeln!(out, "{file}").map_err(CliError::io(path.display()))?;
    finish(out)?;
    say(&format!("written to {}", path.display()));
    Ok(Finding::Yes)
}

/// A new file that nobody else can read.
fn private(path: &Path) -> Result<File, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(CliError::io(path.display()))
}

fn log(directory: &Path, store: &StoreArgs) -> Result<Finding, CliError> {
    needs_store(store)?;
    let keys = store.keys.clone().unwrap_or_else(|| store.data.join("keys"));
    let mark = notary::mark(&keys);
    let said = |error: notary::NotaryError| CliError::said(error.to_string());
    let text = notary::mark_text(&mark).map_err(said)?;
    let text = text.ok_or_else(|| CliError::said("the log was not signed yet; start the server once"))?;
    let readers = SqliteReaders::open_read_only(&store.data)?;
    let mut written = Err(CliError::said("the store was not read"));
    readers.read(&mut |read| {
        let known = (fingerprints(read)?, read.meta("origin")?.and_then(|origin| String::from_utf8(origin).ok()));
        let (Some(expected), Some(origin)) = known else { return Ok(()) };
        let secrets = match Secrets::open(&keys, Some(&expected), &System) {
            Ok(secrets) => secrets,
            Err(error) => {
                written = Err(CliError::said(error.to_string()));
                return Ok(());
            }
        };
        let known = notary::known_keys(&origin, &secrets, &keys);
        let published = match notary::open_mark(&mark, text.clone(), &known) {
            Ok(published) => published,
            Err(error) => {
                written = Err(said(error));
                return Ok(());
            }
        };
        let size = published.size();
        let signed = |key: &&Verifier| published.checkpoint.open(*key, &[]).is_ok();
        let keys_text = notary::key_lines(known.iter().filter(signed));
        let file = |name: &str| create(&directory.join(name));
        written = (|| {
            std::fs::create_dir(directory).map_err(CliError::io(directory.display()))?;
            let mut entries = file("entries.ndjson")?;
            for from in (1..=size).step_by(CHUNK as usize) {
                for (_, bytes) in read.entries(from..(from + CHUNK).min(size + 1))? {
                    entries.write_all(&bytes).and_then(|()| entries.write_all(b"\n")).map_err(CliError::io("entries.ndjson"))?;
                }
            }
            finish(entries)?;
            for id in tiles_of(size) {
                let mut tile = file(&id.path())?;
                tile.write_all(&tiles::tile(read, id)?).map_err(CliError::io(id.path()))?;
                finish(tile)?;
            }
            for (name, text) in [("checkpoint.txt", published.text.clone()), ("log.key.txt", keys_text)] {
                let mut out = file(name)?;
                out.write_all(text.as_bytes()).map_err(CliError::io(name))?;
                finish(out)?;
            }
            Ok(size)
        })();
        Ok(())
    })?;
    let size = written?;
    say(&format!("{size} entries are in {}", directory.display()));
    Ok(Finding::Yes)
}

/// A new file, with the directories above it.
fn create(path: &Path) -> Result<BufWriter<File>, CliError> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(CliError::io(above.display()))?;
    }
    Ok(BufWriter::new(File::create_new(path).map_err(CliError::io(path.display()))?))
}

/// Everything on disk, or an error.
fn finish(file: BufWriter<File>) -> Result<(), CliError> {
    let file = file.into_inner().map_err(|error| CliError::Io("the export".to_owned(), error.into_error()))?;
    file.sync_all().map_err(CliError::io("the export"))
}
