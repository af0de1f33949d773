//! `desist demo`: a make-believe shop, one consumer, the real server.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::post;
use clap::Args;
use desist_core::identifier::{Identifier, Kind};
use desist_engine::secrets;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::check::examine;
use super::connect::{exchange, runtime};
use super::serve::{self, ServeArgs, Server};
use super::{CliError, Finding, StoreArgs, say, verify};

/// `desist demo`
#[derive(Debug, Args)]
#[command(
    after_help = "Everything happens in a new temporary directory and on free ports of this machine; nothing is sent elsewhere.\nThe directory is removed at the end."
)]
pub struct DemoArgs {
    /// End after the story instead of leaving the server up.
    #[arg(long)]
    exit: bool,
}

/// The directory of the demo, removed at the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Story {
    runtime: tokio::runtime::Runtime,
    server: Server,
    api_key: String,
    token: String,
}

pub fn run(args: &DemoArgs) -> Result<Finding, CliError> {
    let path = std::env::temp_dir().join(format!("desist-demo-{}", std::process::id()));
    // Made here and not shared: a directory that somebody else prepared is an error.
    std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(CliError::io(path.display()))?;
    let directory = Directory(path.clone());
    let story = play(&path)?;
    if !args.exit {
        // Before anybody reads how to stop it.
        let stopping = story.runtime.block_on(async {
            let interrupt = signal(SignalKind::interrupt()).map_err(CliError::io("SIGINT"))?;
            Ok::<_, CliError>((interrupt, signal(SignalKind::terminate()).map_err(CliError::io("SIGTERM"))?))
        });
        let (mut interrupt, mut terminate) = stopping?;
        let program = std::env::current_exe().map_or_else(|_| "desist".to_owned(), |path| path.display().to_string());
        say(&format!("\nThe server stays up: {} (private), {} (public)", story.server.private_url, story.server.public_url));
        say(&format!("  try   {program} decide email:rosa.vega@example.org --data {}", path.display()));
        say(&format!("  keys  {}", path.join("first-admin.json").display()));
        say("Stop it with Ctrl-C; its directory is removed then.");
        story.runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        });
    }
    serve::stop(&story.runtime, story.server);
    drop(directory);
    Ok(Finding::Yes)
}

fn play(directory: &Path) -> Result<Story, CliError> {
    let runtime = runtime()?;
    say("A shop, \"acme\", has a customer, Rosa Vega. Its software speaks Adobe Campaign's profile API.\n");
    say(&format!("$ desist serve --data {}", directory.display()));
    let server = serve::start(&runtime, ServeArgs::on_free_ports(directory.to_owned()))?;
    let keys: Value = server
        .first_admin
        .as_ref()
        .and_then(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
        .ok_or_else(|| CliError::said("the first admin key was not written"))?;
    let text = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
    let mut story = Story { runtime, server, api_key: text("api_key"), token: text("token") };

    say("\n1. The shop's software creates her profile.");
    let profile = json!({ "firstName": "Rosa", "lastName": "Vega", "email": "rosa.vega@example.org" });
    let created =
        story.call(&Method::POST, "/acme/campaign/profileAndServices/profile/", Some(&profile), &["PKey", "email", "ccpaOptOut"])?;
    let path = format!("/acme/campaign/profileAndServices/profile/{}", created["PKey"].as_str().unwrap_or_default());

    say("\n2. May her data be sold? Nobody said no yet.");
    story.expect("allow", "email", "rosa.vega@example.org")?;

    say("\n3. She opts out on the shop's form.");
    let opt_out = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "Rosa.Vega@example.org" }] });
    let accepted = story.call(&Method::POST, "/v1/requests", Some(&opt_out), &["receipt_code", "status", "deadline", "seq"])?;
    let receipt_code = accepted["receipt_code"].as_str().unwrap_or_default().to_owned();

    say("\n4. From the answer on every decision is deny, by her e-mail, by its hash, by her profile.");
    story.expect("deny", "email", "rosa.vega@example.org")?;
    let (identifier, _) =
        Identifier::from_value(Kind::Email, "rosa.vega@example.org").map_err(|error| CliError::said(error.to_string()))?;
    let digits = identifier.digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hash: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
    story.ask("deny", &json!({ "kind": "email", "sha256": hash }))?;
    story.call(&Method::GET, &path, None, &["PKey", "ccpaOptOut", "ccpaOptOutLastModified"])?;

    say("\n5. The nightly sync writes her whole record back with \"ccpaOptOut\": false. It does not count: only she can take it back.");
    let sync = json!({ "firstName": "Rosa", "lastName": "Vega", "email": "rosa.vega@example.org", "ccpaOptOut": false });
    story.call(&Method::PATCH, &path, Some(&sync), &["PKey"])?;
    story.expect("deny", "email", "rosa.vega@example.org")?;

    say("\n6. The server stops and starts again.");
    let Story { runtime, server, api_key, token } = story;
    serve::stop(&runtime, server);
    let server = serve::start(&runtime, ServeArgs::on_free_ports(directory.to_owned()))?;
    story = Story { runtime, server, api_key, token };
    story.expect("deny", "email", "rosa.vega@example.org")?;

    story.destinations(accepted["id"].as_str().unwrap_or_default(), directory)?;
    story.campaign(&path)?;
    story.receipt(&receipt_code, directory)?;

    say("\n12. The state is what the log says.");
    say(&format!("$ desist check --data {}", directory.display()));
    let args = StoreArgs { data: directory.to_owned(), business: None, keys: None, config: None };
    let found = examine(&args, desist_store::Scope::All)?;
    if let Some(problem) = found.first() {
        return Err(CliError::said(format!("the check found: {problem}")));
    }
    say("clean");
    Ok(story)
}

/// A system of the shop that takes signed messages, and refuses the first `refusals` of them.
async fn system(refusals: usize) -> std::io::Result<SocketAddr> {
    let left = Arc::new(AtomicUsize::new(refusals));
    let take = move || {
        let refuses = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        std::future::ready(if refuses { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT })
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(std::future::IntoFuture::into_future(axum::serve(listener, Router::new().route("/in", post(take)))));
    Ok(address)
}

impl Story {
    /// Two systems of the shop must obey; one is down at first.
    fn destinations(&self, request: &str, directory: &Path) -> Result<(), CliError> {
        say("\n7. Two systems of the shop must obey, too: they are declared in desist.toml. The second one is down at first.");
        let (mailing, ads) = self.runtime.block_on(async {
            Ok::<_, CliError>((system(0).await.map_err(CliError::io("a port"))?, system(2).await.map_err(CliError::io("a port"))?))
        })?;
        let (secret, config) = (directory.join("webhook.secret"), directory.join("desist.toml"));
        secrets::write_secret(&secret, b"whsec_ZGVtb2RlbW9kZW1vZGVtb2RlbW9kZW1v").map_err(CliError::io(secret.display()))?;
        let table = |id: &str, class: &str, address: SocketAddr| {
            format!(
                "\n[[destinations]]\nid = \"{id}\"\nconnector = \"webhook\"\nclass = \"{class}\"\nallow_private = true\n\
                 [destinations.settings]\nhost = \"{address}\"\npath = \"/in\"\nsecret = {{ file = \"webhook.secret\" }}\n"
            )
        };
        let tables = table("mailing", "internal", mailing) + &table("ads", "third_party", ads);
        let before = std::fs::read_to_string(&config).map_err(CliError::io(config.display()))?;
        std::fs::write(&config, before + &tables).map_err(CliError::io(config.display()))?;
        say(tables.trim_end());
        say(&format!("$ desist reload --data {}", directory.display()));
        self.server.reload().map_err(CliError::said)?;
        let mut shown = Vec::new();
        // Seconds: the wait after the second refusal is the longest.
        for _ in 0..600 {
            let answer = self.get(&format!("/v1/requests/{request}"))?;
            let known = self.get("/v1/destinations")?;
            let none = Vec::new();
            let list = |value: &Value, name: &str| value[name].as_array().unwrap_or(&none).clone();
            let state = |id: &Value| {
                let of = list(&known, "destinations").into_iter().find(|one| one["id"] == *id);
                of.and_then(|one| Some(one["state"].as_str()?.to_owned())).filter(|state| state != "running")
            };
            let step = |standing: &Value| {
                let text = |name: &str| standing[name].as_str().unwrap_or_default().to_owned();
                let state = state(&standing["id"]).map_or_else(String::new, |state| format!(" ({state})"));
                format!("{} {}{state}", text("id"), text("level"))
            };
            let ladder: Vec<String> = list(&answer, "destinations").iter().map(step).collect();
            let status = answer["status"].as_str().unwrap_or_default();
            let line = format!("  {:<60} the request: {status}", ladder.join(", "));
            if shown.last() != Some(&line) {
                say(&line);
                shown.push(line);
            }
            if status == "enforced" {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Err(CliError::said("both systems should have been told within thirty seconds; please report it"))
    }

    /// Asks without showing it.
    fn get(&self, path: &str) -> Result<Value, CliError> {
        self.exchange(&Method::GET, path, String::new()).map(|(_, answer)| answer)
    }

    /// Sends a request over the network, prints it and its answer (the members named in `shown`, and a mark if there are more).
    fn call(&self, method: &Method, path: &str, body: Option<&Value>, shown: &[&str]) -> Result<Value, CliError> {
        let text = body.map(Value::to_string).unwrap_or_default();
        say(&format!("> {method} {path}"));
        if !text.is_empty() {
            say(&format!("  {text}"));
        }
        let (status, answer) = self.exchange(method, path, text)?;
        let members: Vec<_> = shown.iter().filter_map(|name| Some(format!("{}: {}", json!(name), answer.get(name)?))).collect();
        let more = if answer.as_object().is_some_and(|all| all.len() > members.len()) { ", …" } else { "" };
        say(&format!("< {status} {{ {}{more} }}", members.join(", ")));
        if !status.is_success() {
            return Err(CliError::said("the story went wrong here; please report it"));
        }
        Ok(answer)
    }

    fn exchange(&self, method: &Method, path: &str, body: String) -> Result<(StatusCode, Value), CliError> {
        let host = self.server.private_url.trim_start_matches("http://").to_owned();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &host)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header("x-api-key", &self.api_key)
            .body(Body::from(body))
            .map_err(|error| CliError::said(error.to_string()))?;
        let (status, answer) = self.runtime.block_on(async {
            let stream = TcpStream::connect(&host).await.map_err(CliError::io(&host))?;
            exchange(stream, request).await
        })?;
        Ok((status, serde_json::from_slice(&answer).unwrap_or_default()))
    }

    /// What else software written for Campaign asks: lists, subscriptions, privacy requests.
    fn campaign(&self, profile: &str) -> Result<(), CliError> {
        say("\n8. The shop's software looks her up, and lists everybody whose data may not be sold.");
        self.call(&Method::GET, "/acme/campaign/profileAndServices/profile/byEmail?email=ROSA.VEGA@example.org", None, &["count"])?;
        let listed = "/acme/campaign/profileAndServicesExt/profile/byCcpaOptOut/email?ccpaOptOut_parameter=true";
        let listed = self.call(&Method::GET, listed, None, &["content", "count"])?;
        if listed["content"] != json!(["rosa.vega@example.org"]) {
            return Err(CliError::said("the list should have held one address; please report it"));
        }

        say("\n9. She subscribes to the newsletter. That is another matter: her data still may not be sold.");
        let service = json!({ "label": "News of the shop", "messageType": "email" });
        let service = self.call(&Method::POST, "/acme/campaign/profileAndServices/service/", Some(&service), &["PKey", "name", "title"])?;
        let subscription = json!({ "service": { "PKey": service["PKey"] } });
        self.call(&Method::POST, &format!("{profile}/subscriptions/"), Some(&subscription), &["serviceName", "email"])?;
        self.expect("deny", "email", "rosa.vega@example.org")?;

        say("\n10. She asks to be deleted. Her data goes, her choice stays.");
        let request = json!({ "name": "R-1", "namespaceName": "email", "reconciliationValue": "rosa.vega@example.org", "type": "delete",
            "regulation": "ccpa" });
        self.call(&Method::POST, "/acme/campaign/privacy/privacyTool", Some(&request), &["type", "status"])?;
        let left = self.call(&Method::GET, "/acme/campaign/profileAndServices/profile/_count", None, &["count"])?;
        if left["count"] != 0 {
            return Err(CliError::said("the profile should be gone; please report it"));
        }
        self.expect("deny", "email", "rosa.vega@example.org")
    }

    /// She downloads the receipt, checks it with a program that knows nothing but the log's key, and changes it.
    fn receipt(&self, code: &str, directory: &Path) -> Result<(), CliError> {
        say("\n11. She has a receipt. Anybody can check it, without asking the shop.");
        let path = format!("/receipt/{code}?format=json");
        let mut receipt = None;
        // The log is signed within a second of each commit.
        for _ in 0..50 {
            let (status, text) = self.public(&path)?;
            if status.is_success() {
                receipt = Some(text);
                break;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let receipt = receipt.ok_or_else(|| CliError::said("the receipt was not ready within five seconds; please report it"))?;
        let (_, key) = self.public("/log/key")?;
        let (file, changed, key_file) = (directory.join("receipt.json"), directory.join("changed.json"), directory.join("log.key.txt"));
        let another = receipt.replacen("opted_out", "opted_in", 1);
        for (path, text) in [(&file, &receipt), (&changed, &another), (&key_file, &key)] {
            std::fs::write(path, text).map_err(CliError::io(path.display()))?;
        }
        say(&format!("> GET {path}"));
        for (path, expected) in [(&file, Finding::Yes), (&changed, Finding::No)] {
            if expected == Finding::No {
                say("  Somebody changes a word in it:");
            }
            say(&format!("$ desist verify {} --key {}", path.display(), key_file.display()));
            if verify::run(&verify::VerifyArgs::new(path.clone(), key.trim().to_owned()))? != expected {
                return Err(CliError::said("the check should have said otherwise; please report it"));
            }
        }
        say(&format!("  A second program says the same, in the browser: give it these files at {}/verify", self.server.public_url));
        Ok(())
    }

    /// Reads a page of the public listener.
    fn public(&self, path: &str) -> Result<(StatusCode, String), CliError> {
        let host = self.server.public_url.trim_start_matches("http://").to_owned();
        let request = Request::builder().uri(path).header(header::HOST, &host).body(Body::empty());
        let request = request.map_err(|error| CliError::said(error.to_string()))?;
        let (status, body) = self.runtime.block_on(async {
            let stream = TcpStream::connect(&host).await.map_err(CliError::io(&host))?;
            exchange(stream, request).await
        })?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn expect(&self, decision: &str, kind: &str, value: &str) -> Result<(), CliError> {
        self.ask(decision, &json!({ "kind": kind, "value": value }))
    }

    fn ask(&self, decision: &str, identifier: &Value) -> Result<(), CliError> {
        let question = json!({ "purpose": "sale", "identifiers": [identifier] });
        let answer = self.call(&Method::POST, "/v1/decisions", Some(&question), &["decision", "reason", "as_of", "stale_ms"])?;
        if answer["decision"] == decision {
            Ok(())
        } else {
            Err(CliError::said(format!("the decision should have been {decision}; please report it")))
        }
    }
}
