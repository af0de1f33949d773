//! The way to other machines: the one HTTP client for witnesses and whatever else desist calls.
//!
//! Invariant: no request leaves for an address that its caller may not reach. The check is made on the addresses
//! that are connected to, so that a name cannot point elsewhere between check and use, and no redirect is followed.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use desist_engine::env::{Answer, Done, Exchange, Outbound, Outgoing, SendError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, Url};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::limits::{OUTGOING_CONNECT_TIMEOUT, OUTGOING_IDLE_PER_HOST_MAX};

/// How far an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Anybody's.
    Public,
    /// This machine's or a private network's: only where the configuration says so.
    Private,
    /// Where clouds keep their secrets, or nobody's: not even then.
    Never,
}

/// The ranges are those of the IANA special-purpose registries (RFC 6890) with the metadata addresses of the clouds.
fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        // Link-local with the metadata addresses 169.254.169.254 and 169.254.170.2; multicast and the rest.
        [169, 254, ..]
        | [224..=255 | 0, ..]
        // Metadata addresses within other ranges: Alibaba, Azure, Oracle.
        | [100, 100, 100, 200]
        | [168, 63, 129, 16]
        | [192, 0, 0, 192] => Reach::Never,
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        // Reserved, for documents, for benchmarks.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // Mapped, translated (NAT64, 6to4): the IPv4 address inside is the one that is reached.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Metadata addresses within a private range: Amazon, Google, Oracle, Scaleway.
        [0xfd00, 0xec2, ..]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Reach::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff, ..] | [0x2001, 0x0..=0x1ff | 0xdb8, ..] | [0x3fff, 0x0..=0xfff, ..] => Reach::Private,
        // Global unicast. Link-local, site-local, multicast, unspecified and unassigned are left, and the translation of
        // one network's own (64:ff9b:1::/48): where the IPv4 address is in it, that network alone knows.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never,
    }
}

fn may_reach(ip: IpAddr, allow_private: bool) -> bool {
    match reach(ip) {
        Reach::Public => true,
        Reach::Private => allow_private,
        Reach::Never => false,
    }
}

const FORBIDDEN: &str = "the address is private, and this use of it does not allow that";

/// A name that only leads where the caller may not go.
#[derive(Debug, thiserror::Error)]
#[error("{FORBIDDEN}")]
struct NotAllowed;

/// Resolves names, and leaves only addresses that may be reached.
struct Guard {
    allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move { Ok(permitted(tokio::net::lookup_host((name.as_str(), 0)).await?, allow_private)?) })
    }
}

/// Of the addresses of a name those that may be reached.
fn permitted(found: impl IntoIterator<Item = SocketAddr>, allow_private: bool) -> Result<Addrs, NotAllowed> {
    let allowed: Vec<_> = found.into_iter().filter(|address| may_reach(address.ip(), allow_private)).collect();
    if allowed.is_empty() { Err(NotAllowed) } else { Ok(Box::new(allowed.into_iter())) }
}

/// Why there is no connection to a host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It leads only where the caller may not go.
    #[error("{FORBIDDEN}")]
    Forbidden,
    /// There is no such name, or nobody answers there.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Connects to a host by the rule of every request: to an address that was checked, never to the name again. For protocols
/// other than HTTP; the caller says how long it may take.
pub(crate) async fn dial(host: &str, port: u16, allow_private: bool) -> Result<TcpStream, DialError> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let mut last = None;
    let allowed: Vec<_> = permitted(found, allow_private).map_err(|NotAllowed| DialError::Forbidden)?.collect();
    // One that does not answer must not take the time of the next one.
    let each = OUTGOING_CONNECT_TIMEOUT / u32::try_from(allowed.len()).unwrap_or(u32::MAX).max(1);
    for address in allowed {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Each message waits for its answer, so waiting for more to send only takes time.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound)).into())
}

/// A client of HTTP of the caller's own, under the same rule.
pub(crate) fn client(allow_private: bool) -> Result<Client, reqwest::Error> {
    // Somebody may have chosen already; it is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    builder(allow_private).build()
}

/// The real network.
pub struct Network {
    clients: Arc<Clients>,
    runtime: Handle,
}

/// One client for each way to ask, so that no connection is shared between them.
struct Clients {
    plain: Client,
    // Made when they are needed: that takes the machine's certificates, and a machine without any has work to do all the same.
    private: OnceLock<Client>,
    public: OnceLock<Client>,
}

impl Clients {
    fn get(&self, url: &Url, allow_private: bool) -> Result<Client, reqwest::Error> {
        let kept = match (url.scheme(), allow_private) {
            ("http", _) => return Ok(self.plain.clone()),
            (_, true) => &self.private,
            (_, false) => &self.public,
        };
        match kept.get() {
            Some(client) => Ok(client.clone()),
            None => builder(allow_private).build().map(|client| kept.get_or_init(|| client).clone()),
        }
    }
}

fn builder(allow_private: bool) -> ClientBuilder {
    Client::builder()
        .dns_resolver(Arc::new(Guard { allow_private }))
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(OUTGOING_CONNECT_TIMEOUT)
        .pool_max_idle_per_host(OUTGOING_IDLE_PER_HOST_MAX)
        .user_agent(concat!("desist/", env!("CARGO_PKG_VERSION")))
}

impl Network {
    /// Clients that work on this runtime.
    pub fn new(runtime: Handle) -> Result<Self, reqwest::Error> {
        // Somebody may have chosen already; it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // It trusts no certificate, so it needs none. Only who may use private addresses may use plain HTTP.
        let plain = builder(true).tls_certs_only([]).build()?;
        Ok(Self { clients: Arc::new(Clients { plain, private: OnceLock::new(), public: OnceLock::new() }), runtime })
    }
}

impl Outbound for Network {
    fn send(&self, request: Outgoing, done: Done) {
        let (clients, tell) = (Arc::clone(&self.clients), Tell(Some(done)));
        self.runtime.spawn(async move { tell.now(exchange(&clients, request).await) });
    }

    fn exchange(&self, request: Outgoing) -> Exchange {
        let clients = Arc::clone(&self.clients);
        Box::pin(async move { exchange(&clients, request).await })
    }
}

/// Calls `done` once, also if the runtime ends before the exchange does.
struct Tell(Option<Done>);

impl Tell {
    fn now(mut self, answer: Result<Answer, SendError>) {
        self.0.take().expect("it is called once")(answer);
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(SendError::NoAnswer("the exchange was given up".to_owned())));
        }
    }
}

async fn exchange(clients: &Clients, request: Outgoing) -> Result<Answer, SendError> {
    let url = Url::parse(&request.url).map_err(|_| SendError::Forbidden("not a URL"))?;
    allowed(&url, request.allow_private).map_err(SendError::Forbidden)?;
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| SendError::Forbidden("not a method"))?;
    let client = clients.get(&url, request.allow_private).map_err(failed)?;
    let mut outgoing = client.request(method, url).timeout(request.timeout).body(request.body);
    for (name, value) in &request.headers {
        outgoing = outgoing.header(name, value);
    }
    let mut answer = outgoing.send().await.map_err(failed)?;
    let status = answer.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > request.answer_bytes_max {
            return Err(SendError::Unreadable(format!("it is longer than {} bytes", request.answer_bytes_max)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body })
}

/// Whether the URL itself may be asked. An address in it never meets the resolver.
pub(crate) fn allowed(url: &Url, allow_private: bool) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err("the URL is not https"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL has a user name");
    }
    let host = url.host_str().unwrap_or_default();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse::<IpAddr>();
    if literal.is_ok_and(|ip| !may_reach(ip, allow_private)) { Err(FORBIDDEN) } else { Ok(()) }
}

/// The error without its URL, which can name somebody.
fn failed(error: reqwest::Error) -> SendError {
    let error = error.without_url();
    let (mut cause, mut last): (Option<&dyn Error>, &dyn Error) = (Some(&error), &error);
    while let Some(inner) = cause {
        if inner.is::<NotAllowed>() {
            return SendError::Forbidden(FORBIDDEN);
        }
        (last, cause) = (inner, inner.source());
    }
    let why = if error.is_timeout() { "the time was up".to_owned() } else { last.to_string() };
    let not_http = last.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
    if error.is_builder() || error.is_connect() {
        SendError::NotSent(why)
    } else if not_http || (!error.is_timeout() && (error.is_body() || error.is_decode())) {
        SendError::Unreadable(why)
    } else {
        SendError::NoAnswer(why)
    }
}

#[cfg(test)]
mod tests;
