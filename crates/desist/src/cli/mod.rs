//! The command line. One file per command; each writing command is a call to the control socket of
//! the running server, or, with no server, to the same API over the store opened here.

mod backup;
mod check;
mod connect;
mod connector;
mod decide;
mod demo;
mod destination;
mod export;
mod import;
mod key;
mod opt_out;
mod reload;
mod serve;
mod status;
mod trace;
mod verify;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;

/// Takes "Do Not Sell or Share My Personal Information" choices in, makes every system obey them,
/// and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "desist",
    version,
    after_help = "Exit codes: 0 yes or done, 1 no or something found, 2 an error.\n\nStart here:\n  desist demo                 the whole story in five seconds, in a temporary directory\n  desist serve                a server in ./desist-data"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; an empty directory becomes a new store.
    Serve(serve::ServeArgs),
    /// Play the story of one opt-out on a temporary server, and leave it up to look around.
    Demo(demo::DemoArgs),
    /// Create, list and revoke API keys.
    Key(key::KeyArgs),
    /// Record an opt-out by hand: a letter, a call, somebody at the counter.
    OptOut(opt_out::OptOutArgs),
    /// Ask whether a person's data may be used for a purpose.
    Decide(decide::DecideArgs),
    /// Suppress everybody in a CSV file.
    Import(import::ImportArgs),
    /// Verify that the state is what the log says, and that nothing is damaged.
    Check(check::CheckArgs),
    /// Show what is recorded, what is late, and what needs a person.
    Status(status::StatusArgs),
    /// Look a request up by its receipt code, or show what is known about one identifier.
    Trace(trace::TraceArgs),
    /// Write the log out for an auditor.
    Export(export::ExportArgs),
    /// Check a receipt, two checkpoints or a log export, offline.
    Verify(verify::VerifyArgs),
    /// Watch other businesses' logs: cosign each as it grows, and never two histories of one.
    Witness(witness::WitnessArgs),
    /// Copy the store, also while the server runs.
    Backup(backup::BackupArgs),
    /// Show the systems that must be told, and do what they need a person for.
    Destination(destination::DestinationArgs),
    /// Check, show and start connectors: how a destination is told of an opt-out.
    Connector(connector::ConnectorArgs),
    /// Make the server read desist.toml and its certificates again.
    Reload(reload::ReloadArgs),
}

/// Where the store is.
#[derive(Clone, Debug, Args)]
struct StoreArgs {
    /// The directory of the store.
    #[arg(long, env = "DESIST_DATA", default_value = "./desist-data", value_name = "DIR")]
    data: PathBuf,
    /// The business, given at the first start [default: what the store says, else acme].
    #[arg(long, env = "DESIST_BUSINESS", value_name = "ID")]
    business: Option<String>,
    /// The directory of the secret files [default: DIR/keys].
    #[arg(long, env = "DESIST_KEYS", value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The configuration [default: DIR/desist.toml, if it exists].
    #[arg(long, env = "DESIST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whether to print for people or for programs.
#[derive(Clone, Copy, Debug, Args)]
struct OutputArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why a command failed: exit code 2.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// A sentence for the person at the terminal, with the flag or file and the fix.
    #[error("{0}")]
    Said(String),
    /// The engine does not start.
    #[error(transparent)]
    Open(#[from] desist_engine::engine::OpenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] desist_store::StoreError),
    /// `desist.toml`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or socket.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

impl CliError {
    fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// For `map_err` on file operations.
    fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io(what.to_string(), error)
    }
}

/// What a command that ran to its end says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Yes, done, clean: 0.
    Yes,
    /// No, denied, found: 1.
    No,
}

/// A panic's message can quote what it was about; where it happened is enough to find it.
pub(crate) fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        eprintln!("desist: a defect: panic at {place}; please report it");
    }));
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    hide_panic_messages();
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Key(args) => key::run(args),
        Command::OptOut(args) => opt_out::run(args),
        Command::Decide(args) => decide::run(args),
        Command::Import(args) => import::run(args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Witness(args) => witness::run(args),
        Command::Backup(args) => backup::run(&args),
        Command::Destination(args) => destination::run(args),
        Command::Connector(args) => connector::run(&args),
        Command::Reload(args) => reload::run(&args),
    };
    match result {
        Ok(Finding::Yes) => ExitCode::SUCCESS,
        Ok(Finding::No) => ExitCode::from(1),
        Err(error) => {
            eprintln!("desist: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints a value as JSON on one line, and ends quietly if nobody reads.
fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| CliError::said(error.to_string()))?;
    say(&text);
    Ok(())
}

/// Prints a line on standard output; a closed pipe is not an error.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
