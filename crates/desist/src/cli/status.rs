//! `desist status`.

use axum::http::Method;
use clap::Args;

use super::connect::Local;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::control::StatusAnswer;

/// `desist status`
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: nothing needs a person, 1: something does.")]
pub struct StatusArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &StatusArgs) -> Result<Finding, CliError> {
    let status: StatusAnswer = Local::connect(&args.store)?.call(Method::GET, "/control/status", None::<&()>)??;
    let is_stuck = status.alerts.as_ref().is_some_and(|alerts| alerts.problem.is_some());
    let finding = if status.alarms.is_empty() && status.unreached_total == 0 && !is_stuck { Finding::Yes } else { Finding::No };
    if args.output.json {
        print_json(&status)?;
        return Ok(finding);
    }
    let serving = if status.serving { "serving" } else { "no server runs" };
    say(&format!("{} ({serving}), {} log entries", status.business, status.entries));
    say(&format!(
        "  requests  {} recorded, {} opt-ins confirmed, {} waiting for their second step",
        status.requests_received, status.requests_confirmed, status.requests_awaiting_confirmation
    ));
    say(&format!("  people    {} identifiers denied, {} Campaign profiles", status.denied_identifiers, status.profiles));
    if status.unreached_total > 0 {
        say(&format!("  look at   requests that named an identifier which too many people share: {}", status.unreached_total));
        for request in &status.unreached {
            say(&format!("            {} due {}", request.id, request.deadline));
        }
    }
    for destination in &status.destinations {
        say(&format!("  told      {}", super::destination::line(destination)));
    }
    for witness in &status.witnesses {
        let state = match (&witness.problem, &witness.since, witness.cosigned) {
            (Some(problem), Some(since), _) => format!("since {since}: {problem}"),
            (_, _, Some(size)) => format!("cosigned {size} entries"),
            _ => "not asked yet".to_owned(),
        };
        say(&format!("  witness   {} {state}", witness.name));
    }
    if let Some(alerts) = &status.alerts {
        let state = match (&alerts.since, &alerts.problem) {
            (Some(since), Some(problem)) => format!("failing since {since}: {problem}"),
            (None, Some(problem)) => format!("waiting for the secret: {problem}"),
            (_, None) => alerts.state.clone(),
        };
        say(&format!("  alerts    {state}"));
    }
    for (kind, since) in &status.alarms {
        say(&format!("  ALARM     {kind} since {since}"));
    }
    Ok(finding)
}
