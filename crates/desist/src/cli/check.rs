//! `desist check`.

use std::path::Path;

use clap::Args;
use desist_engine::engine::fingerprints;
use desist_engine::env::System;
use desist_engine::notary::{self, NotaryError};
use desist_engine::secrets::Secrets;
use desist_engine::vault::{self, Vault};
use desist_store::sqlite::SqliteReaders;
use desist_store::{Read, Readers as _, Scope, StoreError};

use super::connect::{config_path, needs_store};
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::config::Config;

/// `desist check`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: clean, 1: something was found. Runs beside a server, on one moment of the store.\n\nExamples:\n  desist check\n  desist check --log\n  desist check --config-only --config desist.toml"
)]
pub struct CheckArgs {
    /// Check only the configuration, and what would be wrong in production.
    #[arg(long)]
    config_only: bool,
    /// Check only the log: its entries and tiles, and that it begins with what was signed last.
    #[arg(long, conflicts_with = "config_only")]
    log: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &CheckArgs) -> Result<Finding, CliError> {
    let mut found = Vec::new();
    let file = config_path(&args.store).filter(|_| !args.log);
    match file.as_ref().map(|path| Config::load(path)) {
        // A file that cannot be read is no finding about its content.
        Some(Err(error)) if error.line == 0 => return Err(error.into()),
        Some(Err(error)) => found.push(error.to_string()),
        Some(Ok(config)) => found.extend(config.check().iter().map(ToString::to_string)),
        None if args.config_only => return Err(CliError::said("--config: there is no configuration file to check; name one")),
        None => {}
    }
    if !args.config_only {
        found.extend(examine(&args.store, if args.log { Scope::Log } else { Scope::All })?);
    }
    if args.output.json {
        print_json(&serde_json::json!({ "clean": found.is_empty(), "found": found }))?;
    } else if found.is_empty() {
        say("clean");
    } else {
        for problem in &found {
            say(problem);
        }
    }
    Ok(if found.is_empty() { Finding::Yes } else { Finding::No })
}

/// Compares the store's state with its log, and opens everything in its vault. Returns what does not fit.
pub fn examine(args: &StoreArgs, scope: Scope) -> Result<Vec<String>, CliError> {
    needs_store(args)?;
    let keys = args.keys.clone().unwrap_or_else(|| args.data.join("keys"));
    let mark = notary::mark_text(&notary::mark(&keys));
    let readers = SqliteReaders::open_read_only(&args.data)?;
    let mut found = Vec::new();
    let mut secrets = Ok(None);
    let bar = indicatif::ProgressBar::new(0).with_style(bar_style("entries"));
    readers.read(&mut |read| {
        if let Some(wrong) =
            args.business.as_ref().filter(|given| read.meta("business").is_ok_and(|stored| stored.as_deref() != Some(given.as_bytes())))
        {
            secrets = Err(CliError::said(format!(
                "--business: this store is not that of {wrong:?}; leave the flag out, or give --data another directory"
            )));
            return Ok(());
        }
        found.extend(desist_store::check(read, scope, &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?);
        if let Some(expected) = fingerprints(read)? {
            match Secrets::open(&keys, Some(&expected), &System) {
                Ok(opened) => {
                    if scope == Scope::All {
                        found.extend(vault::check(read, &Vault::new(&opened.master))?);
                    }
                    found.extend(changed_log(read, &keys, &opened, &mark)?);
                    secrets = Ok(Some(opened));
                }
                Err(error) => secrets = Err(CliError::said(error.to_string())),
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    secrets.map(|_| found)
}

/// What does not fit between the log and the checkpoint that was signed last.
fn changed_log(
    read: &mut dyn Read,
    keys: &Path,
    secrets: &Secrets,
    mark: &Result<Option<String>, NotaryError>,
) -> Result<Option<String>, StoreError> {
    let path = notary::mark(keys);
    let text = match mark {
        Ok(Some(text)) => text.clone(),
        Ok(None) => return Ok(None),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let origin = read.meta("origin")?.and_then(|origin| String::from_utf8(origin).ok()).unwrap_or_default();
    Ok(match notary::open_mark(&path, text, &notary::known_keys(&origin, secrets, keys)) {
        Ok(published) if !notary::begins_with(read, &published)? => {
            Some(NotaryError::NotThePrefix { size: published.size(), path }.to_string())
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    })
}

/// How long work is shown.
pub fn bar_style(unit: &str) -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit} {{elapsed}} left {{eta}}"))
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar())
}
