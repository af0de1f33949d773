//! Listeners: TCP and Unix sockets, TLS, time-outs, and who the client of a request is.
//!
//! Invariant: nothing here waits for ever on a client, and no header names the client unless the peer that sent it is
//! a trusted proxy.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    future::Future,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, header::HOST, uri::Authority},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use ipnet::IpNet;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

pub use crate::config::TlsFiles;
use crate::limits::{
    ACCEPT_RETRY, CONNECTIONS_MAX, FIRST_REQUEST_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_BYTES_MAX, HTTP2_STREAMS_MAX, IDLE_TIMEOUT, STOP_GRACE,
    TLS_FILE_BYTES_MAX,
};

/// Networks whose forwarding headers are believed; swapped at a reload.
pub type Trusted = Arc<ArcSwap<Vec<IpNet>>>;

/// Who sent a request. Every request carries one as an axum `Extension`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address; loopback for a Unix socket.
    pub addr: IpAddr,
    /// Whether the client's own connection was TLS.
    pub https: bool,
    /// The host that the client asked for, with its port if it named one.
    pub host: Option<String>,
}

impl Client {
    fn of<B>(peer: IpAddr, tls: bool, request: &Request<B>, trusted: &[IpNet]) -> Self {
        let headers = request.headers();
        let (addr, proxies) = walk(peer, headers, trusted);
        let https = match forwarded(headers, "x-forwarded-proto", proxies) {
            Some(proto) if proto.eq_ignore_ascii_case("https") => true,
            Some(proto) if proto.eq_ignore_ascii_case("http") => false,
            _ => tls,
        };
        let host = forwarded(headers, "x-forwarded-host", proxies)
            .filter(|host| host.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@')))
            .or_else(|| request.uri().authority().map(Authority::as_str))
            .or_else(|| headers.get(HOST)?.to_str().ok());
        Self { addr, https, host: host.map(str::to_owned) }
    }
}

/// The address of the client: the peer, or, if that is a trusted proxy, the right-most hop of `X-Forwarded-For` that is
/// none. An entry that is no address ends the walk, and the last trusted hop counts.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    walk(peer, headers, trusted).0
}

/// The client's address and how many trusted proxies the request came through.
fn walk(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> (IpAddr, usize) {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut addr = peer.to_canonical();
    let mut proxies = 0;
    let mut hops = entries_from_right(headers, "x-forwarded-for");
    while is_trusted(&addr) {
        proxies += 1;
        match hops.next().and_then(hop_address) {
            Some(hop) => addr = hop,
            None => break,
        }
    }
    (addr, proxies)
}

/// The entries of a list header over all its lines, last one first.
fn entries_from_right<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|b| *b == b',').map(<[u8]>::trim_ascii))
}

/// What the outermost of `proxies` trusted proxies said; each may have appended its own word or replaced all.
fn forwarded<'a>(headers: &'a HeaderMap, name: &'static str, proxies: usize) -> Option<&'a str> {
    let entry = entries_from_right(headers, name).take(proxies).last()?;
    std::str::from_utf8(entry).ok()
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`.
fn hop_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().as_ref().map(SocketAddr::ip);
    Some(text.parse().ok().or_else(with_port).or_else(bracketed)?.to_canonical())
}

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file was read and is not what it should be.
    #[error("{}: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong and what belongs there.
        problem: String,
    },
}

impl TlsFiles {
    /// Reads both files and checks that they belong together. TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
    pub fn load(&self) -> Result<ServerConfig, TlsError> {
        let bad = |file: &Path, problem: String| TlsError::Content { file: file.to_owned(), problem };
        let certs = CertificateDer::pem_slice_iter(&read(&self.cert)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(&self.cert, format!("not valid PEM: {e}; use a PEM certificate chain")))?;
        if certs.is_empty() {
            return Err(bad(&self.cert, "holds no certificate; use a PEM certificate chain".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|e| match e {
            pem::Error::NoItemsFound => bad(&self.key, "holds no readable private key; use an unencrypted PEM private key".to_owned()),
            e => bad(&self.key, format!("not valid PEM: {e}; use an unencrypted PEM private key")),
        })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has the suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    let cert = self.cert.display();
                    bad(&self.key, format!("is not the key of the first certificate in {cert}; use its own key"))
                }
                rustls::Error::InvalidCertificate(_) => bad(&self.cert, format!("the first certificate cannot be used: {e}")),
                e => bad(&self.key, format!("cannot be used: {e}; use an ECDSA, Ed25519 or RSA key")),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|open| open.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Read { file: file.to_owned(), source })?;
    if bytes.len() as u64 > TLS_FILE_BYTES_MAX {
        let problem = format!("is longer than {TLS_FILE_BYTES_MAX} bytes; is it the right file?");
        return Err(TlsError::Content { file: file.to_owned(), problem });
    }
    Ok(bytes)
}

/// The TLS configuration of a listener. New connections use the present one.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Loads the files.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let config = ArcSwap::from_pointee(files.load()?);
        Ok(Arc::new(Self { files, config }))
    }
    /// Reads the files again; after an error the listener goes on with what it has.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.replace(self.files.load()?);
        Ok(())
    }
    /// Uses a configuration that was loaded before, when a reload has several parts.
    pub fn replace(&self, config: ServerConfig) {
        self.config.store(Arc::new(config));
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// The limits of one listener, so that tests need not wait for the real ones.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: usize,
    handshake: Duration,
    first_request: Duration,
    idle: Duration,
    grace: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS_MAX,
    handshake: HANDSHAKE_TIMEOUT,
    first_request: FIRST_REQUEST_TIMEOUT,
    idle: IDLE_TIMEOUT,
    grace: STOP_GRACE,
};

/// A bound TCP socket that is not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    tls: Option<Arc<Tls>>,
    trusted: Trusted,
    bounds: Bounds,
}

impl Listener {
    /// Listens on an address; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { addr, source };
        let socket = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, addr, tls: None, trusted: Trusted::default(), bounds: BOUNDS })
    }
    /// With TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }
    /// Behind these proxies.
    #[must_use]
    pub fn with_trusted_proxies(self, trusted: Trusted) -> Self {
        Self { trusted, ..self }
    }
    /// The address in use.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
    /// Serves until `stop` is true or its sender is gone, then lets requests in flight finish for [`STOP_GRACE`].
    /// Returns how many connections had to be cut.
    pub async fn serve(self, router: Router, stop: watch::Receiver<bool>) -> usize {
        let server = Server::new(router, self.tls, self.trusted, self.bounds);
        serve(self.socket, server, stop).await
    }
}

/// Serves a Unix socket as [`Listener::serve`] serves TCP; its clients have a loopback address.
pub async fn serve_unix(socket: UnixListener, router: Router, stop: watch::Receiver<bool>) -> usize {
    serve(socket, Server::new(router, None, Trusted::default(), BOUNDS), stop).await
}

/// TCP and Unix sockets alike.
trait Accept: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, IpAddr)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, peer) = self.accept().await?;
        // Answers are small and written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer.ip()))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<(UnixStream, IpAddr)> {
        Ok((self.accept().await?.0, Ipv4Addr::LOCALHOST.into()))
    }
}

/// What all connections of a listener share.
struct Server {
    router: Router,
    tls: Option<Arc<Tls>>,
    trusted: Trusted,
    bounds: Bounds,
    http: Builder<TokioExecutor>,
}

/// What connections are told, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    /// Finish the requests in flight.
    Drain,
    /// End now.
    Cut,
}

async fn serve<L: Accept>(socket: L, server: Arc<Server>, mut stop: watch::Receiver<bool>) -> usize {
    let max = server.bounds.connections;
    let places = Arc::new(Semaphore::new(max));
    let (phase, _) = watch::channel(Phase::Run);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, socket.next().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            _ = &mut stopped => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, phase) = (Arc::clone(&server), phase.subscribe());
                tokio::spawn(async move {
                    server.connection(stream, peer, phase).await;
                    drop(place);
                });
            }
            // The client went away between connecting and being accepted.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(e) => {
                tracing::error!(error = %e, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(socket);
    let all = u32::try_from(max).expect("the cap is a small constant");
    phase.send_replace(Phase::Drain);
    let drained = timeout(server.bounds.grace, places.acquire_many(all)).await;
    let cut = if drained.is_ok() { 0 } else { max - places.available_permits() };
    drop(drained);
    phase.send_replace(Phase::Cut);
    let _ = places.acquire_many(all).await;
    cut
}

impl Server {
    fn new(router: Router, tls: Option<Arc<Tls>>, trusted: Trusted, bounds: Bounds) -> Arc<Self> {
        let mut http = Builder::new(TokioExecutor::new());
        // Hyper runs this timer between requests too, so it is the keep-alive; the first head has its own deadline.
        http.http1().timer(TokioTimer::new()).header_read_timeout(bounds.idle).max_buf_size(HEADER_BYTES_MAX).pipeline_flush(true);
        http.http2().timer(TokioTimer::new()).max_header_list_size(HEADER_BYTES_MAX as u32).max_concurrent_streams(HTTP2_STREAMS_MAX);
        Arc::new(Self { router, tls, trusted, bounds, http })
    }

    async fn connection<S>(&self, stream: S, peer: IpAddr, mut phase: watch::Receiver<Phase>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(tls) = &self.tls else { return self.http(stream, peer, phase).await };
        let handshake = TlsAcceptor::from(tls.config.load_full()).accept(stream);
        let accepted = tokio::select! {
            accepted = timeout(self.bounds.handshake, handshake) => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.http(stream, peer, phase).await,
            Ok(Err(e)) => tracing::debug!(error = %e, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn http<S>(&self, stream: S, peer: IpAddr, mut phase: watch::Receiver<Phase>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Arc::new(Activity::new());
        let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
        let (router, trusted, tls) = (self.router.clone(), Arc::clone(&self.trusted), self.tls.is_some());
        let requests = Arc::clone(&activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let running = Running::new(&requests);
            let client = Client::of(peer, tls, &request, &trusted.load());
            request.extensions_mut().insert(client);
            let response = router.clone().call(request.map(Body::new));
            async move {
                let response = response.await;
                drop(running);
                response
            }
        });
        let mut connection = pin!(self.http.serve_connection(io, service));
        let mut told = Phase::Run;
        let mut alarm = pin!(tokio::time::sleep(self.bounds.first_request));
        loop {
            // Without a sender the listener itself was dropped.
            let order = async { phase.wait_for(|now| *now > told).await.map_or(Phase::Cut, |now| *now) };
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(e) = ended {
                        tracing::debug!(error = %e, "connection failed");
                    }
                    return;
                }
                order = order => {
                    if order == Phase::Cut {
                        return;
                    }
                    told = order;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut alarm => match activity.deadline(&self.bounds) {
                    Some(deadline) => alarm.as_mut().reset(deadline.into()),
                    None => return,
                }
            }
        }
    }
}

/// When a connection last did something.
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// Milliseconds from `start` to the last byte moved or request ended.
    last: AtomicU64,
    in_flight: AtomicUsize,
    asked: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        let (last, in_flight, asked) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Self { start: Instant::now(), last, in_flight, asked }
    }
    fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Relaxed);
    }
    /// When to look again; nothing if the connection's time is over.
    fn deadline(&self, bounds: &Bounds) -> Option<Instant> {
        let now = Instant::now();
        let deadline = if !self.asked.load(Relaxed) {
            self.start + bounds.first_request
        } else if self.in_flight.load(Relaxed) > 0 {
            now + bounds.idle
        } else {
            self.start + Duration::from_millis(self.last.load(Relaxed)) + bounds.idle
        };
        (deadline > now).then_some(deadline)
    }
}

/// A request in flight; dropped when it is answered or given up.
struct Running(Arc<Activity>);

impl Running {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.asked.store(true, Relaxed);
        activity.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A stream that notes when bytes move, so that a client that stops reading an answer counts as idle.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_ready() {
            self.activity.touch();
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(polled)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
