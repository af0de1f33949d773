//! `desist key create|list|revoke|rotate-log`.

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use desist_core::fact::Role;
use serde_json::json;

use super::connect::Local;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::keys::{KeyAnswer, KeysAnswer, NewKey};

/// `desist key`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  desist key create --name crm-sync --role writer\n  desist key list\n  desist key revoke 3\n  desist key rotate-log"
)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create a key; it works at once. The key and its token are shown this once.
    Create {
        /// What you call it, such as the system that uses it.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long)]
        role: RoleArg,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List the keys.
    List {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Sign the log with a new key. The old one signs along until the next change, so that both are good.
    RotateLog {
        /// Others may have the old key: it signs nothing any more. Tell everybody who has it.
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// End a key; it stops working at once.
    Revoke {
        /// Its number in the list.
        no: u32,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// Everything, keys included.
    Admin,
    /// Requests, profiles, links and decisions.
    Writer,
    /// Decisions, and reading requests and profiles.
    Reader,
    /// Reading requests and states; no personal data.
    Auditor,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Admin => Self::Admin,
            RoleArg::Writer => Self::Writer,
            RoleArg::Reader => Self::Reader,
            RoleArg::Auditor => Self::Auditor,
        }
    }
}

pub fn run(args: KeyArgs) -> Result<Finding, CliError> {
    match args.command {
        KeyCommand::Create { name, role, store, output } => {
            let body = NewKey { name, role: role.into() };
            let key: KeyAnswer = Local::connect(&store)?.call(Method::POST, "/v1/keys", Some(&body))??;
            if output.json {
                print_json(&json!({ "no": key.no, "api_key": key.api_key, "token": key.token }))?;
            } else {
                say(&format!(
                    "key {}\n  api_key  {}\n  token    {}\nThe token is not stored: keep it now.",
                    key.no, key.api_key, key.token
                ));
            }
        }
        KeyCommand::List { store, output } => {
            let list: KeysAnswer = Local::connect(&store)?.call(Method::GET, "/v1/keys", None::<&()>)??;
            if output.json {
                print_json(&list)?;
            } else {
                for key in list.keys {
                    let state = key.revoked_at.map_or_else(|| "live".to_owned(), |at| format!("revoked {at}"));
                    say(&format!(
                        "{:>4}  {:<8}  {:<10}  created {}  {}",
                        key.no,
                        format!("{:?}", key.role).to_lowercase(),
                        state,
                        key.created_at,
                        key.name
                    ));
                }
            }
        }
        KeyCommand::RotateLog { compromised, store, output } => {
            let key: String = Local::connect(&store)?.call(Method::POST, "/control/rotate-log-key", Some(&compromised))??;
            if output.json {
                print_json(&json!({ "key": key }))?;
            } else {
                say(&format!(
                    "the log is signed with\n  {key}\nBack up the directory of the keys, and give the new key to your witnesses and auditors."
                ));
            }
        }
        KeyCommand::Revoke { no, store } => {
            let done: Result<(), _> = Local::connect(&store)?.call(Method::DELETE, &format!("/v1/keys/{no}"), None::<&()>)?;
            if let Err(refused) = done {
                if refused.0.status == 404 {
                    return Err(CliError::said(format!("there is no key {no}; see `desist key list`")));
                }
                return Err(refused.into());
            }
            say(&format!("key {no} is revoked"));
        }
    }
    Ok(Finding::Yes)
}
