//! `desist opt-out`.

use axum::http::Method;
use clap::Args;
use desist_core::fact::{Channel, RequestKind};
use desist_core::identifier::Kind;
use desist_core::purpose::{PurposeSet, Purposes};

use super::connect::Local;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::people::IdentifierInput;
use crate::web::requests::{AgentInput, RequestAnswer, RequestBody};
use crate::web::word;

/// `desist opt-out`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  desist opt-out email:rosa@example.org\n  desist opt-out email:rosa@example.org phone:+12125550123 --channel mail --received-at 2026-11-14T10:00:00-08:00\n  desist opt-out email.sha256:6b3a... --channel agent --agent 'Rights Inc.'"
)]
pub struct OptOutArgs {
    /// Who: KIND:VALUE, or KIND.sha256:HEX; several are one person's.
    #[arg(required = true, value_name = "KIND:VALUE")]
    who: Vec<String>,
    /// Limit the use of sensitive information instead.
    #[arg(long)]
    limit: bool,
    /// For what [default: all that the request is about].
    #[arg(long = "purpose", value_name = "PURPOSE")]
    purposes: Vec<String>,
    /// Where it came in, such as agent, phone, mail or operator.
    #[arg(long, default_value = "operator")]
    channel: String,
    /// When the consumer acted (RFC 3339) [default: now]; the deadline runs from it.
    #[arg(long, value_name = "TIME")]
    received_at: Option<String>,
    /// The agent's name, on channel agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads `KIND:VALUE` or `KIND.sha256:HEX`. Errors never repeat the value.
pub fn identifier(text: &str) -> Result<IdentifierInput, CliError> {
    let shape = || CliError::said("write an identifier as KIND:VALUE, such as email:rosa@example.org, or KIND.sha256:HEX");
    let (name, value) = text.split_once(':').ok_or_else(shape)?;
    let (kind, hashed) = name.strip_suffix(".sha256").map_or((name, false), |kind| (kind, true));
    let kind: Kind = kind.parse().map_err(|error| CliError::said(format!("{error}; {}", shape())))?;
    let value = value.to_owned();
    Ok(if hashed {
        IdentifierInput { kind, value: None, sha256: Some(value) }
    } else {
        IdentifierInput { kind, value: Some(value), sha256: None }
    })
}

pub fn run(args: OptOutArgs) -> Result<Finding, CliError> {
    let channel: Channel = serde_json::from_value(args.channel.into()).map_err(|_| {
        let known: Vec<_> = Channel::ALL.iter().map(word).collect();
        CliError::said(format!("--channel: not a channel; use one of: {}", known.join(", ")))
    })?;
    let dated = args.received_at.is_some();
    let purposes = match (args.purposes.is_empty(), args.limit) {
        (false, _) => args.purposes.join(", "),
        (true, true) => Purposes::default().names(PurposeSet::LIMIT_SENSITIVE).join(", "),
        (true, false) => Purposes::default().names(PurposeSet::OPT_OUT_DEFAULT).join(", "),
    };
    let body = RequestBody {
        kind: if args.limit { RequestKind::Limit } else { RequestKind::OptOut },
        purposes: Some(args.purposes).filter(|purposes| !purposes.is_empty()),
        identifiers: args.who.iter().map(|who| identifier(who)).collect::<Result<_, _>>()?,
        channel,
        received_at: args.received_at,
        jurisdiction: None,
        site: None,
        agent: args.agent.map(|name| AgentInput { name, permission: None }),
    };
    let answer: RequestAnswer = Local::connect(&args.store)?.call(Method::POST, "/v1/requests", Some(&body))??;
    if args.output.json {
        print_json(&answer)?;
    } else {
        // An act of an earlier day does not undo an opt-in that the consumer made since.
        let effect = if dated {
            "recorded as of that time; an opt-in made since then stands".to_owned()
        } else {
            format!("recorded; every decision about {purposes} denies from now on")
        };
        say(&format!(
            "{effect}\n  receipt code  {}\n  deadline      {} (by the other calendar {})\n  log entry     {}",
            answer.receipt_code, answer.deadline, answer.deadline_conventional, answer.seq
        ));
    }
    Ok(Finding::Yes)
}
