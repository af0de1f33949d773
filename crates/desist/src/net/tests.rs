use std::{str::FromStr, time::Duration};

use axum::{Extension, extract::Path as PathParam, routing};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{StatusCode, body::Bytes, client::conn};
use proptest::prelude::*;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;

/// Answers `/` with the client, `/slow/{ms}` after that time.
fn router() -> Router {
    let client = |Extension(client): Extension<Client>| async move {
        format!("{} {} {}", client.addr, client.https, client.host.unwrap_or_default())
    };
    let slow = |PathParam(ms): PathParam<u64>| async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        "done"
    };
    Router::new()
        .route("/", routing::get(client).post(|body: Bytes| async move { body.len().to_string() }))
        .route("/slow/{ms}", routing::get(slow))
}

struct Running {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<usize>,
}

async fn start(change: impl FnOnce(Listener) -> Listener) -> Running {
    let listener = change(Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap());
    let (stop, stopped) = watch::channel(false);
    Running { addr: listener.local_addr(), stop, served: tokio::spawn(listener.serve(router(), stopped)) }
}

fn with_bounds(bounds: Bounds) -> impl FnOnce(Listener) -> Listener {
    move |listener| Listener { bounds, ..listener }
}

fn trusting(nets: &[&str]) -> Trusted {
    Trusted::new(ArcSwap::from_pointee(nets.iter().map(|net| net.parse().unwrap()).collect()))
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::get(path).header(HOST, "shop.example:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).unwrap()
}

async fn send<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec()).unwrap()))
}

async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    send(TcpStream::connect(addr).await.unwrap(), request(path, headers)).await.unwrap()
}

/// Bytes in, bytes out until the server closes.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

struct Certificate {
    dir: TempDir,
    files: TlsFiles,
}

impl Certificate {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: dir.path().join("a.crt"), key: dir.path().join("a.key") };
        Self { dir, files }
    }
    /// Writes a new certificate and returns what a client must trust to accept it.
    fn issue(&self) -> TlsConnector {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&self.files.cert, cert.pem()).unwrap();
        fs::write(&self.files.key, signing_key.serialize_pem()).unwrap();
        self.trust(cert.der().clone(), &[])
    }
    #[allow(clippy::unused_self, reason = "reads as what the client of this certificate does")]
    fn trust(&self, cert: CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(cert).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn tls_connect(addr: SocketAddr, connector: &TlsConnector) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from("localhost").unwrap(), TcpStream::connect(addr).await?).await
}

#[tokio::test]
async fn the_client_of_a_request() {
    let plain = start(|listener| listener).await;
    let forged = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example")];
    let own = (StatusCode::OK, "127.0.0.1 false shop.example:8080".to_owned());
    assert_eq!(get(plain.addr, "/", &[]).await, own);
    assert_eq!(get(plain.addr, "/", &forged).await, own, "the peer is no trusted proxy");

    let trusted = trusting(&["127.0.0.0/8", "10.0.0.0/8"]);
    let proxied = start(|listener| listener.with_trusted_proxies(Arc::clone(&trusted))).await;
    assert_eq!(get(proxied.addr, "/", &[]).await, own);
    assert_eq!(get(proxied.addr, "/", &forged).await.1, "203.0.113.9 true evil.example");
    let chain = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "shop.example, inner.example"),
    ];
    assert_eq!(get(proxied.addr, "/", &chain).await.1, "203.0.113.9 true shop.example");
    let garbage = [("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b"), ("x-forwarded-for", "unknown")];
    assert_eq!(get(proxied.addr, "/", &garbage).await, own);
    trusted.store(Arc::default());
    assert_eq!(get(proxied.addr, "/", &forged).await, own, "a reload takes effect");
}

#[tokio::test]
async fn http2_without_tls_and_a_unix_socket() {
    let server = start(|listener| listener).await;
    let io = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request_h2 = Request::get("http://shop.example/").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request_h2).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "127.0.0.1 false shop.example");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let (stop, stopped) = watch::channel(false);
    let unix = tokio::spawn(serve_unix(UnixListener::bind(&path).unwrap(), router(), stopped));
    let answer = send(UnixStream::connect(&path).await.unwrap(), request("/", &[("x-forwarded-for", "6.6.6.6")])).await;
    assert_eq!(answer.unwrap().1, "127.0.0.1 false shop.example:8080");
    stop.send(true).unwrap();
    assert_eq!(unix.await.unwrap(), 0);
}

#[tokio::test]
async fn a_new_certificate_is_served_after_a_reload() {
    let certificate = Certificate::new();
    let first = certificate.issue();
    let tls = Tls::open(certificate.files.clone()).unwrap();
    let server = start(|listener| listener.with_tls(Some(Arc::clone(&tls)))).await;
    let ask = async |connector: &TlsConnector| {
        send(tls_connect(server.addr, connector).await?, request("/", &[])).await.map_err(io::Error::other)
    };
    assert_eq!(ask(&first).await.unwrap().1, "127.0.0.1 true shop.example:8080");

    let second = certificate.issue();
    assert!(ask(&second).await.is_err(), "not before the reload");
    tls.reload().unwrap();
    assert!(ask(&second).await.is_ok() && ask(&first).await.is_err());

    fs::write(&certificate.files.cert, "").unwrap();
    assert!(tls.reload().unwrap_err().to_string().ends_with("holds no certificate; use a PEM certificate chain"));
    assert!(ask(&second).await.is_ok(), "a failed reload changes nothing");

    let plain = raw(server.addr, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!plain.contains("HTTP"), "{plain:?}");
}

#[tokio::test]
async fn http2_is_chosen_under_tls() {
    let certificate = Certificate::new();
    certificate.issue();
    let pem = fs::read(&certificate.files.cert).unwrap();
    let connector = certificate.trust(CertificateDer::from_pem_slice(&pem).unwrap(), &[b"h2", b"http/1.1"]);
    let tls = Tls::open(certificate.files.clone()).unwrap();
    let server = start(|listener| listener.with_tls(Some(tls))).await;
    let stream = tls_connect(server.addr, &connector).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://shop.example/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
}

#[test]
fn tls_errors_name_the_file() {
    let certificate = Certificate::new();
    let TlsFiles { cert, key } = certificate.files.clone();
    let error = || certificate.files.load().unwrap_err().to_string().replace(&certificate.dir.path().display().to_string(), "");
    assert_eq!(error(), "/a.crt: cannot be read: No such file or directory (os error 2); check the path and its permissions");
    certificate.issue();
    certificate.files.load().unwrap();
    let good_key = fs::read(&key).unwrap();
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(error().starts_with("/a.key: is not the key of the first certificate in "));
    fs::write(&key, fs::read(&cert).unwrap()).unwrap();
    assert_eq!(error(), "/a.key: holds no readable private key; use an unencrypted PEM private key");
    fs::write(&key, &good_key).unwrap();
    fs::write(&cert, "#".repeat(TLS_FILE_BYTES_MAX as usize + 1)).unwrap();
    assert_eq!(error(), "/a.crt: is longer than 1048576 bytes; is it the right file?");
    fs::write(&cert, &good_key).unwrap();
    assert_eq!(error(), "/a.crt: holds no certificate; use a PEM certificate chain");
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(error().starts_with("/a.crt: not valid PEM: "), "{}", error());
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(error().starts_with("/a.crt: the first certificate cannot be used: "), "{}", error());
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish() {
    let server = start(|listener| listener).await;
    let addr = server.addr;
    let idle = TcpStream::connect(addr).await.unwrap();
    let slow = tokio::spawn(async move { get(addr, "/slow/300", &[]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(true).unwrap();
    assert_eq!(slow.await.unwrap(), (StatusCode::OK, "done".to_owned()));
    assert_eq!(server.served.await.unwrap(), 0, "the idle connection does not hold it up");
    assert!(TcpStream::connect(addr).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_stop_cuts_what_outlasts_the_grace() {
    let server = start(with_bounds(Bounds { grace: Duration::from_millis(100), ..BOUNDS })).await;
    let addr = server.addr;
    let slow = tokio::spawn(async move { send(TcpStream::connect(addr).await.unwrap(), request("/slow/60000", &[])).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(server.stop);
    assert_eq!(server.served.await.unwrap(), 1);
    assert!(slow.await.unwrap().is_err());
}

#[tokio::test]
async fn connections_above_the_cap_wait() {
    let server = start(with_bounds(Bounds { connections: 1, ..BOUNDS })).await;
    let addr = server.addr;
    let first = TcpStream::connect(addr).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = tokio::spawn(async move { get(addr, "/", &[]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn slow_and_idle_clients_are_closed() {
    let short = Duration::from_millis(100);
    let server = start(with_bounds(Bounds { first_request: short, idle: short, ..BOUNDS })).await;
    for begun in ["", "PRI * HT", "GET / HTTP/1.1\r\nHost: a", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = timeout(Duration::from_secs(5), raw(server.addr, begun.as_bytes())).await;
        assert!(!answer.expect(begun).contains("200 OK"));
    }
    let kept = timeout(Duration::from_secs(5), raw(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    assert!(kept.contains("200 OK"), "an idle kept connection is closed too: {kept}");
    let slow = get(server.addr, "/slow/400", &[]).await;
    assert_eq!(slow.0, StatusCode::OK, "a request in flight is not idle");

    let certificate = Certificate::new();
    certificate.issue();
    let tls = Tls::open(certificate.files.clone()).unwrap();
    let bounds = Bounds { handshake: short, ..BOUNDS };
    let server = start(|listener| Listener { bounds, ..listener.with_tls(Some(tls)) }).await;
    assert_eq!(timeout(Duration::from_secs(5), raw(server.addr, b"\x16\x03\x01")).await.unwrap(), "");
}

#[tokio::test]
async fn heads_are_bounded_and_bodies_pass() {
    let server = start(|listener| listener).await;
    let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(n));
    assert!(raw(server.addr, head(HEADER_BYTES_MAX - 1000).as_bytes()).await.starts_with("HTTP/1.1 200"));
    let refused = raw(server.addr, head(2 * HEADER_BYTES_MAX).as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");

    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(TcpStream::connect(server.addr).await.unwrap())).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(vec![b'x'; 1_000_000]));
    let response = sender.send_request(Request::post("/").header(HOST, "a").body(body).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "1000000");
}

#[tokio::test]
async fn http2_requests_above_the_cap_wait() {
    let server = start(|listener| listener).await;
    let io = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    // The first answer proves that the server's settings have arrived.
    let ask = |sender: &mut conn::http2::SendRequest<Empty<Bytes>>| {
        sender.send_request(Request::get("http://a/slow/200").body(Empty::new()).unwrap())
    };
    ask(&mut sender).await.unwrap();
    let started = Instant::now();
    let asked: Vec<_> = (0..=HTTP2_STREAMS_MAX).map(|_| tokio::spawn(ask(&mut sender))).collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let error = Listener::bind(listener.local_addr()).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {}: Address already in use (os error 98)", listener.local_addr()));
}

fn forwarded_for(lines: &[&str]) -> HeaderMap {
    lines.iter().map(|line| ("x-forwarded-for".parse().unwrap(), line.parse().unwrap())).collect()
}

#[test]
fn client_addresses() {
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).to_vec();
    for (peer, lines, expected) in [
        ("203.0.113.1", &[][..], "203.0.113.1"),
        ("203.0.113.1", &["1.1.1.1"], "203.0.113.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", &["1.1.1.1, 10.0.0.2 ,10.0.0.3"], "1.1.1.1"),
        ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", &["1.1.1.1, garbage, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["1.1.1.1,"], "10.0.0.1"),
        ("10.0.0.1", &["1.1.1.1\u{e9}"], "10.0.0.1"),
        ("10.0.0.1", &["1.1.1.1:55"], "1.1.1.1"),
        ("10.0.0.1", &["[2001:db8::1]:55"], "2001:db8::1"),
        ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", &["1.1.1.1, fd00::2"], "1.1.1.1"),
        ("::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", &["[1.1.1.1]"], "10.0.0.1"),
        ("10.0.0.1", &["1.1.1.1:99999"], "10.0.0.1"),
    ] {
        let found = client_address(peer.parse().unwrap(), &forwarded_for(lines), &trusted);
        assert_eq!(found, IpAddr::from_str(expected).unwrap(), "{peer} {lines:?}");
    }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

proptest! {
    #[test]
    fn an_untrusted_peer_is_the_client(peer in any_ip(), lines in proptest::collection::vec("[ -~]{0,40}", 0..4)) {
        let trusted: IpNet = "10.0.0.0/8".parse().unwrap();
        prop_assume!(!trusted.contains(&peer.to_canonical()));
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let mut headers = forwarded_for(&lines);
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        headers.insert("x-forwarded-host", "evil.example".parse().unwrap());
        let mut request = Request::get("/").body(()).unwrap();
        *request.headers_mut() = headers;
        let client = Client::of(peer, false, &request, &[trusted]);
        prop_assert_eq!(client, Client { addr: peer.to_canonical(), https: false, host: None });
    }

    #[test]
    fn what_a_client_prepends_never_matters(client in any_ip(), forged in "[ -~]{0,60}", hops in 0_u8..4) {
        let trusted: IpNet = "10.0.0.0/8".parse().unwrap();
        prop_assume!(!trusted.contains(&client.to_canonical()));
        let proxies: Vec<_> = (0..hops).map(|hop| format!(", 10.0.0.{hop}")).collect();
        let line = format!("{forged}, {client}{}", proxies.concat());
        let found = client_address("10.9.9.9".parse().unwrap(), &forwarded_for(&[&line]), &[trusted]);
        prop_assert_eq!(found, client.to_canonical());
    }
}
