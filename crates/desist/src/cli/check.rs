//! `desist check`.

use clap::Args;
use desist_engine::engine::fingerprints;
use desist_engine::env::System;
use desist_engine::secrets::Secrets;
use desist_engine::vault::{self, Vault};
use desist_store::Readers as _;
use desist_store::sqlite::SqliteReaders;

use super::connect::{config, config_path};
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::config::Config;

/// `desist check`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: clean, 1: something was found. Runs beside a server, on one moment of the store.\n\nExamples:\n  desist check\n  desist check --config-only --config desist.toml"
)]
pub struct CheckArgs {
    /// Check only the configuration, and what would be wrong in production.
    #[arg(long)]
    config_only: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &CheckArgs) -> Result<Finding, CliError> {
    let mut found = Vec::new();
    let file = config_path(&args.store);
    match file.as_ref().map(|path| Config::load(path)) {
        Some(Err(error)) => found.push(error.to_string()),
        Some(Ok(config)) => found.extend(config.check().iter().map(ToString::to_string)),
        None if args.config_only => {
            config(&args.store)?;
            return Err(CliError::said("--config: there is no configuration file to check; name one"));
        }
        None => {}
    }
    if !args.config_only {
        let readers = SqliteReaders::open_read_only(&args.store.data)?;
        let bar = indicatif::ProgressBar::new(0).with_style(bar_style("entries"));
        readers.read(&mut |read| {
            found.extend(desist_store::check(read, &mut |done, all| {
                bar.set_length(all);
                bar.set_position(done);
            })?);
            if let Some(expected) = fingerprints(read)? {
                let keys = args.store.keys.clone().unwrap_or_else(|| args.store.data.join("keys"));
                match Secrets::open(&keys, Some(&expected), &System) {
                    Ok(secrets) => found.extend(vault::check(read, &Vault::new(&secrets.master))?),
                    Err(error) => found.push(format!("the vault was not opened: {error}")),
                }
            }
            Ok(())
        })?;
        bar.finish_and_clear();
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

/// How long work is shown.
pub fn bar_style(unit: &str) -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {unit} {{elapsed}} left {{eta}}"))
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar())
}
