//! How a command reaches the store: through the control socket of the server that holds it, or by
//! opening it itself. Either way the call is a request to the same router.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use desist_engine::alerts::AlertsTo;
use desist_engine::engine::{Engine, OpenError, OpenStore, Options, Policy};
use desist_engine::env::{Outbound, System};
use desist_engine::notary::witnesses::WitnessAt;
use desist_engine::search::Searched;
use desist_store::sqlite::SqliteStore;
use desist_store::{Store, StoreError};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tower::ServiceExt as _;

use super::{CliError, StoreArgs};
use crate::config::{ApiOptIn, Config, Witness};
use crate::web::control::StatusAnswer;
use crate::web::problem::Problem;
use crate::web::{App, control};

/// The name of the control socket in the data directory.
pub const SOCKET: &str = "control.sock";
/// Largest answer that is read: a list of 10,000 decisions takes 1 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A way to call the control API.
pub struct Local {
    runtime: tokio::runtime::Runtime,
    way: Way,
}

enum Way {
    Socket(PathBuf),
    Own(Router, Engine),
}

/// An answer other than 2xx.
#[derive(Debug)]
pub struct Refused(pub Problem);

impl From<Refused> for CliError {
    fn from(Refused(problem): Refused) -> Self {
        // Members of the body come from flags of the command; people know those.
        let pointer = problem.pointer.unwrap_or_default();
        let mut members = pointer.split('/').skip(1);
        let flag = match (members.next(), members.next().and_then(|place| place.parse::<usize>().ok())) {
            (Some("purpose" | "purposes"), _) => "--purpose: ".to_owned(),
            (Some("received_at"), _) => "--received-at: ".to_owned(),
            (Some("agent"), _) => "--agent: ".to_owned(),
            (Some("channel"), _) => "--channel: ".to_owned(),
            (Some("name"), _) => "--name: ".to_owned(),
            (Some("identifiers"), Some(place)) => format!("KIND:VALUE number {}: ", place + 1),
            _ => String::new(),
        };
        Self::said(format!("{flag}{}", problem.title))
    }
}

/// A mistyped directory must not become a new, empty store that takes opt-outs in.
pub fn needs_store(args: &StoreArgs) -> Result<(), CliError> {
    if args.data.join(desist_store::sqlite::FILE).exists() {
        return Ok(());
    }
    Err(CliError::said(format!(
        "--data: there is no store in {}; name its directory, or make one with `desist serve --data {0}`",
        args.data.display()
    )))
}

/// A runtime for one command.
pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::io("cannot start threads"))
}

/// The configuration file that applies, if there is one.
pub fn config_path(args: &StoreArgs) -> Option<PathBuf> {
    match &args.config {
        Some(path) => Some(path.clone()),
        None => Some(args.data.join("desist.toml")).filter(|path| path.exists()),
    }
}

/// The configuration that applies.
pub fn config(args: &StoreArgs) -> Result<Config, CliError> {
    match config_path(args) {
        Some(path) => Ok(Config::load(&path)?),
        None => Ok(Config::default()),
    }
}

/// What the engine needs of the configuration.
pub fn policy(config: &Config) -> Policy {
    let (sealed, clear) = config.searched();
    Policy {
        searched: Searched { sealed, clear },
        api_opt_in_own: config.policy.api_opt_in == ApiOptIn::Own,
        time_zone: config.business.time_zone.clone(),
        witnesses: config
            .witnesses
            .iter()
            .map(|Witness { url, key, allow_private }| WitnessAt {
                url: url.to_string(),
                key: key.0.clone(),
                allow_private: *allow_private,
            })
            .collect(),
        alerts: config.alerts.as_ref().map(|alerts| AlertsTo {
            url: alerts.url.as_str().to_owned(),
            allow_private: alerts.allow_private,
            key: alerts.key(),
        }),
        purposes: config.purposes.iter().map(|purpose| (purpose.name.clone(), purpose.model)).collect(),
        kinds_told: crate::delivery::plan::kinds(config),
    }
}

/// Opens the store and its engine. Returns whether the store is new. Without a way out nobody is asked or told anything.
pub fn open(args: &StoreArgs, config: &Config, outbound: Option<Arc<dyn Outbound>>) -> Result<(Engine, bool), CliError> {
    if let Some(business) = &args.business
        && !(1..=64).contains(&business.len()) | !business.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(CliError::said("--business: use 1 to 64 letters, digits, \"-\" and \"_\"; it is part of URLs"));
    }
    let data = args.data.clone();
    let open_store: OpenStore = Box::new(move || -> Result<Box<dyn Store>, StoreError> {
        let store = SqliteStore::open(&data)?;
        if let Some((from, to, backup)) = store.migrated() {
            eprintln!("desist: the store was brought from schema version {from} to {to}; as it was before, it is in {}", backup.display());
        }
        Ok(Box::new(store))
    });
    let options = Options {
        business: args.business.clone(),
        keys: args.keys.clone().unwrap_or_else(|| args.data.join("keys")),
        snapshot: Some(args.data.join("index.snapshot")),
        policy: policy(config),
        env: Arc::new(System),
        outbound,
        open_store,
    };
    Ok(Engine::open(options)?)
}

impl Local {
    /// Finds a way to the store in the data directory.
    pub fn connect(args: &StoreArgs) -> Result<Self, CliError> {
        let runtime = runtime()?;
        let socket = args.data.join(SOCKET);
        if runtime.block_on(UnixStream::connect(&socket)).is_ok() {
            let server = Self { runtime, way: Way::Socket(socket) };
            if let Some(given) = &args.business {
                let status: StatusAnswer = server.call(Method::GET, "/control/status", None::<&()>)??;
                if status.business != *given {
                    return Err(OpenError::OtherBusiness { stored: status.business, given: given.clone() }.into());
                }
            }
            return Ok(server);
        }
        needs_store(args)?;
        let config = config(args)?;
        let (engine, _) = open(args, &config, None)?;
        let app = App::new(engine.clone(), config, false, Arc::new(|_| Err("no server runs here".to_owned())));
        Ok(Self { runtime, way: Way::Own(control(&app), engine) })
    }

    /// Finds the running server, or says that there is none.
    pub fn connect_to_server(data: &Path) -> Result<Self, CliError> {
        let runtime = runtime()?;
        let socket = data.join(SOCKET);
        match runtime.block_on(UnixStream::connect(&socket)) {
            Ok(_) => Ok(Self { runtime, way: Way::Socket(socket) }),
            Err(_) => Err(CliError::said(format!("no server runs on {}; start it with `desist serve --data {0}`", data.display()))),
        }
    }

    /// Calls with a JSON body and reads a JSON answer.
    pub fn call<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Result<A, Refused>, CliError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| CliError::said(error.to_string()))?,
            None => Vec::new(),
        };
        let (status, answer) = self.runtime.block_on(self.send(method, path, body))?;
        if !status.is_success() {
            let problem = serde_json::from_slice(&answer)
                .unwrap_or_else(|_| Problem::new(status, "unknown", format!("the server answered {status}")));
            return Ok(Err(Refused(problem)));
        }
        let answer = if answer.is_empty() { b"null".as_slice() } else { &answer };
        serde_json::from_slice(answer).map(Ok).map_err(|_| {
            CliError::said("the server answers in a form that this version does not know; use the server's own version of desist")
        })
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), CliError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "desist")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|error| CliError::said(error.to_string()))?;
        match &self.way {
            Way::Own(router, _) => {
                let Ok(response) = router.clone().oneshot(request).await;
                let status = response.status();
                let body = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| lost(&error))?;
                Ok((status, body.to_vec()))
            }
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(CliError::io(path.display()))?;
                exchange(stream, request).await
            }
        }
    }
}

/// Sends one request on a fresh connection and reads the whole answer.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Body>,
) -> Result<(StatusCode, Vec<u8>), CliError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    let status = response.status();
    let body =
        http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| lost(error.as_ref()))?;
    driver.abort();
    Ok((status, body.to_bytes().to_vec()))
}

fn lost(error: &dyn std::error::Error) -> CliError {
    CliError::said(format!("the server went away during the call ({error}); look with `desist status` whether it took effect"))
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Way::Own(_, engine) = &self.way {
            engine.close();
        }
    }
}
