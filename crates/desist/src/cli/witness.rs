//! `desist witness serve|status`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use clap::{Args, Subcommand};
use desist_engine::env::System;
use desist_engine::witness::{NotCosigned, Witness, WitnessError, watched};
use desist_proof::note::{Algorithm, Verifier};
use desist_proof::witness::{Refused, SIZE_TYPE};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::connect::runtime;
use super::verify::keys;
use super::{CliError, Finding, OutputArgs, print_json, say};
use crate::limits::WITNESS_REQUEST_BYTES_MAX;
use crate::net::{Listener, Tls, TlsFiles};

/// `desist witness`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  desist witness serve --name witness.lawfirm.example/acme --log 'desist.invalid/acme/0123456789abcdef+1a2b3c4d+AX...'\n  desist witness status\n\nThe business puts the key that `serve` prints, and the URL of the witness, into its desist.toml as [[witnesses]]."
)]
pub struct WitnessArgs {
    #[command(subcommand)]
    command: WitnessCommand,
}

#[derive(Debug, Subcommand)]
enum WitnessCommand {
    /// Run the witness; an empty directory becomes a new one with its own key.
    Serve {
        /// The directory of the witness. It is its memory: a copy of it must never run.
        #[arg(long, env = "DESIST_WITNESS_DATA", default_value = "./desist-witness", value_name = "DIR")]
        data: PathBuf,
        /// What the witness is called, at the first start: a domain of your own and a path.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// The key of a log to watch, from its /log/key, or a file with keys, one a line; may be given several times.
        #[arg(long, required = true, value_name = "VKEY")]
        log: Vec<String>,
        /// Where logs send their checkpoints.
        #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
        listen: SocketAddr,
        /// Certificate chain (PEM); without it, plain HTTP for a proxy in front.
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// Private key (PEM).
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
    },
    /// Show what was cosigned; exit code 1 if a log signed a second history.
    Status {
        /// The directory of the witness.
        #[arg(long, env = "DESIST_WITNESS_DATA", default_value = "./desist-witness", value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl From<WitnessError> for CliError {
    fn from(error: WitnessError) -> Self {
        Self::said(error.to_string())
    }
}

pub fn run(args: WitnessArgs) -> Result<Finding, CliError> {
    match args.command {
        WitnessCommand::Serve { data, name, log, listen, tls_cert, tls_key } => {
            let tls = tls_cert.zip(tls_key).map(|(cert, key)| Tls::open(TlsFiles { cert, key })).transpose();
            let tls = tls.map_err(|error| CliError::said(error.to_string()))?;
            let logs = log.iter().map(|log| log_keys(log)).collect::<Result<Vec<_>, _>>()?.concat();
            let witness = Witness::open(&data, name.as_deref(), logs, Arc::new(System))?;
            serve(Arc::new(witness), listen, tls)
        }
        WitnessCommand::Status { data, output } => status(&data, output),
    }
}

fn serve(witness: Arc<Witness>, address: SocketAddr, tls: Option<Arc<Tls>>) -> Result<Finding, CliError> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).with_target(false).init();
    let key = witness.verifier().to_string();
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/key", get(async |State(witness): State<Arc<Witness>>| format!("{}\n", witness.verifier())))
        .layer(DefaultBodyLimit::max(WITNESS_REQUEST_BYTES_MAX))
        .with_state(witness);
    runtime()?.block_on(async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = Listener::bind(address).await.map_err(|error| CliError::said(format!("--listen: {error}; give another address")))?;
        let listener = listener.with_tls(tls);
        let on = |kind, name: &str| signal(kind).map_err(CliError::io(name.to_owned()));
        let (mut terminate, mut interrupt) = (on(SignalKind::terminate(), "SIGTERM")?, on(SignalKind::interrupt(), "SIGINT")?);
        say("desist witness");
        say(&format!("  url  {scheme}://{}", listener.local_addr()));
        say(&format!("  key  {key}"));
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(router, stopping));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        serving.await.map_err(|error| CliError::said(format!("the listener ended: {error}")))?;
        Ok(Finding::Yes)
    })
}

/// `POST /add-checkpoint` as C2SP tlog-witness has it.
async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: String) -> Response {
    let text = |status: StatusCode, text: String| (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    // It syncs a file.
    match tokio::task::spawn_blocking(move || witness.add(&body)).await {
        Ok(Ok(line)) => text(StatusCode::OK, line),
        Ok(Err(NotCosigned::Refused(Refused::OtherSize(size) | Refused::OtherRoot(size)))) => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, SIZE_TYPE)], format!("{size}\n")).into_response()
        }
        Ok(Err(NotCosigned::Refused(refused))) => {
            text(StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST), format!("{refused}\n"))
        }
        Ok(Err(NotCosigned::Request(error))) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Ok(Err(NotCosigned::NotKept(error))) => {
            tracing::error!(%error, "the witness cannot keep what it cosigns");
            text(StatusCode::SERVICE_UNAVAILABLE, "the witness cannot keep what it cosigns\n".to_owned())
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "a defect\n".to_owned()),
    }
}

fn status(data: &Path, output: OutputArgs) -> Result<Finding, CliError> {
    let (key, logs) = watched(data).map_err(|error| CliError::said(format!("--data: {error}; name the directory of a witness")))?;
    let is_clean = logs.iter().all(|log| !log.convicted);
    if output.json {
        let logs: Vec<_> =
            logs.iter().map(|log| json!({ "origin": log.origin, "size": log.size, "second_history": log.convicted })).collect();
        print_json(&json!({ "key": key.to_string(), "logs": logs, "clean": is_clean }))?;
    } else {
        say(&format!("witness {}", key.name()));
        for log in &logs {
            say(&format!("  {}  cosigned {} entries", log.origin, log.size));
            if log.convicted {
                say(&format!("  {}  SIGNED A SECOND HISTORY: both checkpoints are in {}", log.origin, data.join("conflicts").display()));
            }
        }
    }
    Ok(if is_clean { Finding::Yes } else { Finding::No })
}

/// Keys of logs: a witness's own would never sign a log.
fn log_keys(given: &str) -> Result<Vec<Verifier>, CliError> {
    let keys = keys("--log", given)?;
    match keys.iter().find(|key| key.algorithm() != Algorithm::Ed25519) {
        Some(key) => Err(CliError::said(format!("--log: {key} is the key of a witness; give the one at /log/key of the log"))),
        None => Ok(keys),
    }
}
