//! `desist backup FILE`.

use std::path::PathBuf;

use axum::http::Method;
use clap::Args;

use super::connect::Local;
use super::{CliError, Finding, StoreArgs, say};

/// `desist backup`
#[derive(Debug, Args)]
#[command(
    after_help = "The secret files are not in it: copy DIR/keys to another place, once.\n\nExample:\n  desist backup /backups/desist-2026-11-21.db"
)]
pub struct BackupArgs {
    /// The new file; it must not exist.
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &BackupArgs) -> Result<Finding, CliError> {
    let file = std::path::absolute(&args.file).map_err(CliError::io(args.file.display()))?;
    if file.exists() {
        return Err(CliError::said(format!("FILE: {} exists already; give a new name", file.display())));
    }
    if !file.parent().is_some_and(std::path::Path::is_dir) {
        return Err(CliError::said(format!("FILE: there is no directory for {}; make it first", file.display())));
    }
    let text = file.to_str().ok_or_else(|| CliError::said("FILE: use a name that is UTF-8"))?;
    Local::connect(&args.store)?.call::<_, ()>(Method::POST, "/control/backup", Some(&text))??;
    say(&format!("copied to {}", file.display()));
    Ok(Finding::Yes)
}
