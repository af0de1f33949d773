//! `desist trace CODE` and `desist trace KIND:VALUE`.

use axum::http::Method;
use clap::Args;

use super::connect::Local;
use super::opt_out;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::destinations::StandingView;
use crate::web::operator::TraceAnswer;
use crate::web::requests::RequestView;

/// `desist trace`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: found, 1: no request has this code, or the identifier was never named.\n\nExamples:\n  desist trace 3V8K1-...\n  desist trace email:rosa@example.org"
)]
pub struct TraceArgs {
    /// The receipt code, whose case, spaces and hyphens do not matter; or an identifier, KIND:VALUE or KIND.sha256:HEX.
    #[arg(value_name = "CODE_OR_KIND:VALUE")]
    code: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &TraceArgs) -> Result<Finding, CliError> {
    if args.code.contains(':') {
        return identifier(args);
    }
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
        standings(&request.destinations);
        if request.unreached > 0 {
            say(&format!("  look at   {} of its identifiers are shared by too many people: find out who is meant", request.unreached));
        }
    }
    Ok(Finding::Yes)
}

fn standings(destinations: &[StandingView]) {
    for standing in destinations {
        let enforced = if standing.enforced { "enforced" } else { "not enforced" };
        say(&format!(
            "  told      {:<20} {} ({} is asked for, {enforced})",
            standing.id,
            standing.level.replace('_', " "),
            standing.required
        ));
    }
}

/// What is known about one identifier. What the caller typed is not said again.
fn identifier(args: &TraceArgs) -> Result<Finding, CliError> {
    let input = opt_out::identifier(&args.code)?;
    let server = Local::connect_to_server(&args.store.data)?;
    let found: TraceAnswer = server.call(Method::POST, "/control/trace-identifier", Some(&input))??;
    let finding = if found.known { Finding::Yes } else { Finding::No };
    if args.output.json {
        print_json(&found)?;
        return Ok(finding);
    }
    if !found.known {
        eprintln!("this identifier was never named");
    }
    say(&format!("{} {}", found.kind.name(), found.overall.replace('_', " ")));
    for verdict in &found.verdicts {
        say(&format!("  {:<9} {} ({})", verdict.decision, verdict.purpose, verdict.reason));
    }
    for entry in &found.entries {
        let channel = entry.channel.as_ref().map_or(String::new(), |channel| format!(", channel {channel}"));
        let request = entry.request.as_ref().map_or(String::new(), |request| format!(", request {request}"));
        let line = if entry.line == "own" { String::new() } else { format!(", on {}", entry.line) };
        say(&format!(
            "  entry     {} {} of {}: {} {}{channel}{request}{line}",
            entry.seq,
            entry.kind.replace('_', " "),
            entry.at,
            entry.word,
            entry.purposes.join(", ")
        ));
    }
    if found.shared {
        say("  look at   too many people share it: nothing passes through it");
    }
    for holder in &found.holders {
        let profile = if holder.profile { ", a Campaign profile" } else { "" };
        let denied = if holder.denied.is_empty() { "nothing".to_owned() } else { holder.denied.join(", ") };
        say(&format!("  held by   {}{profile}, denied {denied}", holder.subject));
    }
    standings(&found.destinations);
    Ok(finding)
}
