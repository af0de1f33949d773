//! `desist reload`.

use axum::http::Method;
use clap::Args;

use super::connect::Local;
use super::{CliError, Finding, StoreArgs, say};

/// `desist reload`
#[derive(Debug, Args)]
#[command(after_help = "All of the new configuration is taken over, or none of it. SIGHUP does the same.")]
pub struct ReloadArgs {
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &ReloadArgs) -> Result<Finding, CliError> {
    Local::connect_to_server(&args.store.data)?.call::<(), ()>(Method::POST, "/control/reload", None)??;
    say("the configuration was read again");
    Ok(Finding::Yes)
}
