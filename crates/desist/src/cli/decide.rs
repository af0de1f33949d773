//! `desist decide`.

use axum::http::Method;
use clap::Args;
use desist_core::decision::Decision;
use serde_json::Value;

use super::connect::Local;
use super::opt_out::identifier;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::decisions::{ContextInput, DecisionAnswer, DecisionBody};
use crate::web::word;

/// `desist decide`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: allow, 1: deny.\n\nExamples:\n  desist decide email:rosa@example.org\n  desist decide customer_id:4711 device_id:abc --purpose sharing --gpc --json"
)]
pub struct DecideArgs {
    /// Who: KIND:VALUE, or KIND.sha256:HEX; denied if any is.
    #[arg(required = true, value_name = "KIND:VALUE")]
    who: Vec<String>,
    /// For what.
    #[arg(long, default_value = "sale")]
    purpose: String,
    /// The consumer's request carries a Global Privacy Control signal.
    #[arg(long)]
    gpc: bool,
    /// What is known of the consumer's age.
    #[arg(long, value_name = "under_13|13_15|16_17|18_plus")]
    age_band: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: DecideArgs) -> Result<Finding, CliError> {
    let age_band = args
        .age_band
        .map(|band| {
            serde_json::from_value(Value::from(band)).map_err(|_| CliError::said("--age-band: use under_13, 13_15, 16_17 or 18_plus"))
        })
        .transpose()?;
    let body = DecisionBody {
        purpose: args.purpose,
        identifiers: Some(args.who.iter().map(|who| identifier(who)).collect::<Result<_, _>>()?),
        context: Some(ContextInput { gpc: Some(args.gpc), age_band, ..ContextInput::default() }),
        subjects: None,
        min_seq: None,
    };
    let answer: DecisionAnswer = Local::connect(&args.store)?.call(Method::POST, "/v1/decisions", Some(&body))??;
    if args.output.json {
        print_json(&answer)?;
    } else {
        say(&format!("{} ({})", word(answer.decision), word(answer.reason)));
    }
    Ok(if answer.decision == Decision::Allow { Finding::Yes } else { Finding::No })
}
