//! `desist export log DIR`: the log for an auditor, to be checked with `desist verify`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use desist_engine::engine::fingerprints;
use desist_engine::env::System;
use desist_engine::notary;
use desist_engine::secrets::Secrets;
use desist_proof::note::Verifier;
use desist_proof::tile::tiles_of;
use desist_store::sqlite::SqliteReaders;
use desist_store::{Readers as _, tiles};

use super::connect::needs_store;
use super::{CliError, Finding, StoreArgs, say};

/// Entries read at a time: a few MiB.
const CHUNK: u64 = 10_000;

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
}

pub fn run(args: &ExportArgs) -> Result<Finding, CliError> {
    let What::Log { directory, store } = &args.what;
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
