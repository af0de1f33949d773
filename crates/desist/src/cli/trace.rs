//! `desist trace CODE`.

use axum::http::Method;
use clap::Args;

use super::connect::Local;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::requests::RequestView;

/// `desist trace`
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: found, 1: no request has this code.\n\nExample:\n  desist trace 3V8K1-...")]
pub struct TraceArgs {
    /// The receipt code; case, spaces and hyphens do not matter.
    code: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &TraceArgs) -> Result<Finding, CliError> {
    let found: Result<RequestView, _> = Local::connect(&args.store)?.call(Method::POST, "/control/trace", Some(&args.code))?;
    let request = match found {
        Ok(request) => request,
        Err(refused) if refused.0.status == 404 => {
            eprintln!("no request has this receipt code");
            return Ok(Finding::No);
        }
        Err(refused) => return Err(refused.into()),
    };
    if args.output.json {
        print_json(&request)?;
    } else {
        say(&format!(
            "request {}\n  status    {}\n  purposes  {}\n  received  {}\n  recorded  {} as log entry {}\n  deadline  {} (by the other calendar {})",
            request.id,
            request.status,
            request.purposes.join(", "),
            request.received_at,
            request.recorded_at,
            request.seq,
            request.deadline,
            request.deadline_conventional
        ));
        if request.unreached > 0 {
            say(&format!("  look at   {} of its identifiers are shared by too many people: find out who is meant", request.unreached));
        }
    }
    Ok(Finding::Yes)
}
