//! `desist serve`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Args;
use desist_core::fact::{Actor, Role};
use desist_core::identifier::{Identifier, Kind};
use desist_engine::engine::Engine;
use desist_engine::env::Outbound;
use desist_engine::queue::Lane;
use desist_engine::{keys, secrets};
use desist_store::sqlite::FILE;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::connect::{SOCKET, config, config_path, open, policy, runtime};
use super::{CliError, Finding, StoreArgs, say};
use crate::config::{BaseUrl, Config, TlsFiles};
use crate::delivery::{Deliveries, plan};
use crate::net::{Listener, Tls, Trusted, serve_unix};
use crate::outgoing::Network;
use crate::web::{self, App};

/// How often the count of stateless signals goes into the log; also at a stop and each new day.
const SIGNALS_EVERY: Duration = Duration::from_hours(24);

/// `desist serve`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  desist serve\n  desist serve --business acme --data /var/lib/desist --public 127.0.0.1:8080 --public-url https://privacy.example.com"
)]
pub struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where consumers and browsers connect [default: 127.0.0.1:8080].
    #[arg(long, env = "DESIST_PUBLIC", value_name = "ADDR")]
    public: Option<SocketAddr>,
    /// Where the business's systems connect [default: 127.0.0.1:8081].
    #[arg(long, env = "DESIST_PRIVATE", value_name = "ADDR")]
    private: Option<SocketAddr>,
    /// What links to the public listener start with.
    #[arg(long, env = "DESIST_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// What links and `href`s of the private listener start with.
    #[arg(long, env = "DESIST_PRIVATE_URL", value_name = "URL")]
    private_url: Option<String>,
    /// Proxies whose X-Forwarded-For, -Proto and -Host are believed.
    #[arg(long, env = "DESIST_TRUSTED_PROXIES", value_name = "CIDR,...", value_delimiter = ',')]
    trusted_proxies: Option<Vec<ipnet::IpNet>>,
    /// Certificate chain of the public listener (PEM).
    #[arg(long, env = "DESIST_PUBLIC_TLS_CERT", value_name = "FILE", requires = "public_tls_key")]
    public_tls_cert: Option<PathBuf>,
    /// Private key of the public listener (PEM).
    #[arg(long, env = "DESIST_PUBLIC_TLS_KEY", value_name = "FILE", requires = "public_tls_cert")]
    public_tls_key: Option<PathBuf>,
    /// Certificate chain of the private listener (PEM).
    #[arg(long, env = "DESIST_PRIVATE_TLS_CERT", value_name = "FILE", requires = "private_tls_key")]
    private_tls_cert: Option<PathBuf>,
    /// Private key of the private listener (PEM).
    #[arg(long, env = "DESIST_PRIVATE_TLS_KEY", value_name = "FILE", requires = "private_tls_cert")]
    private_tls_key: Option<PathBuf>,
    /// Allow a private listener without TLS on an address that others can reach.
    #[arg(long, env = "DESIST_INSECURE_PRIVATE")]
    insecure_private: bool,
    /// How much to log: error, warn, info, debug or trace.
    #[arg(long, env = "DESIST_LOG", default_value = "warn", value_name = "LEVEL")]
    log: tracing::Level,
}

impl ServeArgs {
    /// Arguments for a server in `data` on free ports.
    pub(super) fn on_free_ports(data: PathBuf) -> Self {
        let free = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self {
            store: StoreArgs { data, business: None, keys: None, config: None },
            public: free,
            private: free,
            public_url: None,
            private_url: None,
            trusted_proxies: None,
            public_tls_cert: None,
            public_tls_key: None,
            private_tls_cert: None,
            private_tls_key: None,
            insecure_private: false,
            log: tracing::Level::WARN,
        }
    }

    /// The file's settings under the flags.
    fn apply(&self, mut config: Config) -> Result<Config, CliError> {
        let server = &mut config.server;
        let url = |flag: &str, text: &Option<String>| match text {
            Some(text) => BaseUrl::try_from(text.clone()).map(Some).map_err(|error| CliError::said(format!("{flag}: {error}"))),
            None => Ok(None),
        };
        let tls = |cert: &Option<PathBuf>, key: &Option<PathBuf>| Some(TlsFiles { cert: cert.clone()?, key: key.clone()? });
        server.public = self.public.unwrap_or(server.public);
        server.private = self.private.unwrap_or(server.private);
        server.public_url = url("--public-url", &self.public_url)?.or(server.public_url.take());
        server.private_url = url("--private-url", &self.private_url)?.or(server.private_url.take());
        server.trusted_proxies = self.trusted_proxies.clone().unwrap_or(std::mem::take(&mut server.trusted_proxies));
        server.public_tls = tls(&self.public_tls_cert, &self.public_tls_key).or(server.public_tls.take());
        server.private_tls = tls(&self.private_tls_cert, &self.private_tls_key).or(server.private_tls.take());
        server.insecure_private |= self.insecure_private;
        if let Some(error) = config.insecure_private_error() {
            return Err(if self.private.is_some() { CliError::said(format!("--private: {}", error.problem)) } else { error.into() });
        }
        Ok(config)
    }
}

/// A server that listens, and all it needs to stop.
pub struct Server {
    app: App,
    deliveries: Arc<Deliveries>,
    stop: watch::Sender<bool>,
    listeners: Vec<tokio::task::JoinHandle<usize>>,
    socket: PathBuf,
    /// Where the public listener answers.
    pub public_url: String,
    /// Where the private listener answers.
    pub private_url: String,
    /// The file with the first admin key, if this start made it.
    pub first_admin: Option<PathBuf>,
}

impl Server {
    /// Reads the configuration again, whole or not at all.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.app.reload()
    }
}

/// Runs the server until it is told to stop.
pub fn run(args: ServeArgs) -> Result<Finding, CliError> {
    tracing_subscriber::fmt().with_max_level(args.log).with_writer(std::io::stderr).with_target(false).init();
    let runtime = runtime()?;
    let server = start(&runtime, args)?;
    // Before anything is said: who reads the addresses may ask us to stop at once.
    let (mut terminate, mut interrupt, mut hang_up) = {
        let _inside = runtime.enter();
        let on = |kind, name: &str| signal(kind).map_err(CliError::io(name.to_owned()));
        (on(SignalKind::terminate(), "SIGTERM")?, on(SignalKind::interrupt(), "SIGINT")?, on(SignalKind::hangup(), "SIGHUP")?)
    };
    say(&format!("desist serves {}", server.app.engine.business()));
    say(&format!("  public   {}", server.public_url));
    say(&format!("  private  {}", server.private_url));
    if let Some(path) = &server.first_admin {
        say(&format!("  the first admin key is in {}", path.display()));
        if std::io::stdout().is_terminal()
            && let Ok(text) = std::fs::read_to_string(path)
        {
            say(&format!("  {}", text.trim_end()));
        }
    }
    runtime.block_on(async {
        let mut signals = tokio::time::interval_at(tokio::time::Instant::now() + SIGNALS_EVERY, SIGNALS_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    let app = server.app.clone();
                    match tokio::task::spawn_blocking(move || app.reload()).await {
                        Ok(Ok(())) => tracing::info!("the configuration was read again"),
                        Ok(Err(error)) => tracing::error!(%error, "the configuration stays as it was"),
                        Err(_) => tracing::error!("the configuration stays as it was"),
                    }
                }
                _ = signals.tick() => {
                    let engine = server.app.engine.clone();
                    if !matches!(tokio::task::spawn_blocking(move || engine.record_signals()).await, Ok(Ok(()))) {
                        tracing::warn!("the day's count of signals waits for the next try");
                    }
                }
            }
        }
    });
    stop(&runtime, server);
    Ok(Finding::Yes)
}

/// Opens the store and starts to listen.
pub fn start(runtime: &tokio::runtime::Runtime, args: ServeArgs) -> Result<Server, CliError> {
    let data = args.store.data.clone();
    make_directory("--data", &data)?;
    // A store that exists has its secrets somewhere: a wrong --keys must not become a directory.
    if !data.join(FILE).exists() {
        make_directory("--keys", &args.store.keys.clone().unwrap_or_else(|| data.join("keys")))?;
    }
    let config = args.apply(config(&args.store)?)?;
    let network =
        Network::new(runtime.handle().clone()).map_err(|error| CliError::said(format!("no client for other machines: {error}")))?;
    let network: Arc<dyn Outbound> = Arc::new(network);
    let (engine, first) = open(&args.store, &config, Some(Arc::clone(&network)))?;
    let deliveries = Arc::new(Deliveries::new(runtime.handle().clone(), network));
    // A start that was cut off before it had made the first key makes it now.
    let without_key = first || engine.read(|read| Ok(read.keys()?.is_empty()))?;
    let first_admin = if without_key { Some(first_start(&engine, &args.store)?) } else { None };
    // The first phone number costs a tenth of a second; nobody should wait for it.
    std::thread::spawn(|| Identifier::from_value(Kind::Phone, "+1 212 555 2368").is_ok());
    let trusted: Trusted = Arc::new(ArcSwap::from_pointee(config.server.trusted_proxies.clone()));
    let open_tls = |files: &Option<TlsFiles>| files.clone().map(Tls::open).transpose().map_err(|error| CliError::said(error.to_string()));
    let (public_tls, private_tls) = (open_tls(&config.server.public_tls)?, open_tls(&config.server.private_tls)?);
    let (public_address, private_address) = (config.server.public, config.server.private);
    let socket = data.join(SOCKET);
    let (stop, stopping) = watch::channel(false);
    // What hrefs start with when the configuration does not say.
    let own_url = Arc::new(OnceLock::new());

    let reload = {
        let (trusted, public_tls, private_tls, own) = (Arc::clone(&trusted), public_tls.clone(), private_tls.clone(), Arc::clone(&own_url));
        let deliveries = Arc::clone(&deliveries);
        Arc::new(move |app: &App| reload(app, &args, &trusted, public_tls.as_deref(), private_tls.as_deref(), own.get(), &deliveries))
    };
    deliveries.configure(&engine, plan(&config)).map_err(|error| CliError::said(format!("destinations: {error}")))?;
    let app = App::new(engine, config, true, reload);
    let serving = app.clone();
    let (listeners, public_url, private_url) = runtime.block_on(async {
        let bind = |flag: &'static str, address| async move {
            let fix = "give another address, or stop what uses this one";
            Listener::bind(address).await.map_err(|error| CliError::said(format!("{flag}: {error}; {fix}")))
        };
        let public = bind("--public", public_address).await?.with_tls(public_tls.clone()).with_trusted_proxies(Arc::clone(&trusted));
        let private = bind("--private", private_address).await?.with_tls(private_tls.clone()).with_trusted_proxies(trusted);
        let url = |address: SocketAddr, tls: bool| format!("{}://{address}", if tls { "https" } else { "http" });
        let config = serving.config.load();
        let public_url =
            config.server.public_url.as_ref().map_or_else(|| url(public.local_addr(), public_tls.is_some()), ToString::to_string);
        let own = own_url.get_or_init(|| url(private.local_addr(), private_tls.is_some()));
        let private_url = config.server.private_url.as_ref().map_or_else(|| own.clone(), ToString::to_string);
        serving.private_base.store(Arc::new(private_url.clone()));
        // The lock on the directory is ours, so a socket that is there belongs to a server that died.
        let _ = std::fs::remove_file(&socket);
        let control = UnixListener::bind(&socket).map_err(CliError::io(socket.display()))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).map_err(CliError::io(socket.display()))?;
        let listeners = vec![
            tokio::spawn(public.serve(web::public(&serving), stopping.clone())),
            tokio::spawn(private.serve(web::private(&serving), stopping.clone())),
            tokio::spawn(serve_unix(control, web::control(&serving), stopping)),
        ];
        Ok::<_, CliError>((listeners, public_url, private_url))
    })?;
    Ok(Server { app, deliveries, stop, listeners, socket, public_url, private_url, first_admin })
}

/// Makes a directory of ours, and its name durable before the store relies on the files in it.
fn make_directory(flag: &str, path: &Path) -> Result<(), CliError> {
    let failed = || {
        |error: std::io::Error| CliError::said(format!("{flag}: {}: {error}; give a directory that this user can write", path.display()))
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed())?;
    let full = path.canonicalize().map_err(failed())?;
    // What is above may not be ours to open; then somebody else made the directory.
    if let Some(Ok(above)) = full.parent().map(std::fs::File::open) {
        above.sync_all().map_err(failed())?;
    }
    Ok(())
}

/// Finishes what is in flight, then closes the store.
pub fn stop(runtime: &tokio::runtime::Runtime, server: Server) {
    server.stop.send_replace(true);
    runtime.block_on(async {
        for listener in server.listeners {
            match listener.await {
                Ok(0) => {}
                Ok(cut) => tracing::warn!("{cut} connections did not end in time and were cut"),
                Err(_) => tracing::error!("a listener ended with a panic"),
            }
        }
    });
    server.deliveries.stop();
    server.app.engine.close();
    let _ = std::fs::remove_file(server.socket);
}

/// The files of a new store: a commented configuration, and the first admin key for its owner only.
fn first_start(engine: &Engine, args: &StoreArgs) -> Result<PathBuf, CliError> {
    if config_path(args).is_none() {
        let path = args.data.join("desist.toml");
        std::fs::write(&path, crate::config::starter_file(engine.business())).map_err(CliError::io(path.display()))?;
    }
    let seed = engine.new_credential_seed();
    let (api_key, token) = engine.shared().secrets.credentials(&seed);
    let text = Zeroizing::new(format!("{}\n", serde_json::json!({ "api_key": api_key, "token": token })));
    let path = args.data.join("first-admin.json");
    // A file without its key can only be left of a start that was cut off.
    let _ = std::fs::remove_file(&path);
    // The file first: a key that nobody has would be worse than a file without a key.
    secrets::write_secret(&path, text.as_bytes()).map_err(CliError::io(path.display()))?;
    engine
        .submit_blocking(Lane::Interactive, move |ctx| keys::create(ctx, "first admin", Role::Admin, &api_key, &token, Actor::Local))
        .map_err(|failure| CliError::said(failure.to_string()))?;
    Ok(path)
}

/// Everything is read and checked before anything is taken over.
fn reload(
    app: &App,
    args: &ServeArgs,
    trusted: &Trusted,
    public_tls: Option<&Tls>,
    private_tls: Option<&Tls>,
    own_url: Option<&String>,
    deliveries: &Deliveries,
) -> Result<(), String> {
    let new = args.apply(config(&args.store).map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    let old = app.config.load_full();
    for (name, was, is) in
        [("server.public", old.server.public, new.server.public), ("server.private", old.server.private, new.server.private)]
    {
        if was != is {
            return Err(format!("{name} changed from {was} to {is}; restart the server for that"));
        }
    }
    if old.server.public_tls.is_some() != new.server.public_tls.is_some()
        || old.server.private_tls.is_some() != new.server.private_tls.is_some()
    {
        return Err("TLS was switched on or off; restart the server for that".to_owned());
    }
    let load = |files: &Option<TlsFiles>| files.as_ref().map(TlsFiles::load).transpose().map_err(|error| error.to_string());
    let (public, private) = (load(&new.server.public_tls)?, load(&new.server.private_tls)?);
    let planned = plan(&new);
    app.engine.declare(&policy(&new)).map_err(|error| error.to_string())?;
    deliveries.configure(&app.engine, planned).map_err(|error| format!("destinations: {error}"))?;
    for (tls, config) in [(public_tls, public), (private_tls, private)] {
        if let (Some(tls), Some(config)) = (tls, config) {
            tls.replace(config);
        }
    }
    if let Some(url) = new.server.private_url.as_ref().map(ToString::to_string).or_else(|| own_url.cloned()) {
        app.private_base.store(Arc::new(url));
    }
    trusted.store(Arc::new(new.server.trusted_proxies.clone()));
    app.configure(new);
    Ok(())
}
