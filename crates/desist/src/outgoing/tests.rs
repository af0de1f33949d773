use std::net::TcpListener as Bound;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

/// Every row of the two IANA registries of special-purpose addresses (first and last address of each), what clouds
/// keep for themselves, and the neighbours on both sides.
const REACHES: &[(Reach, &[&str])] = &[
    (
        Reach::Public,
        &[
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "168.63.129.15",
            "168.63.129.17",
            // These rows of the registries are globally reachable: AS112 and AMT.
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
            "2000::",
            "2001:200::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2003::1",
            "2606:4700:4700::1111",
            "2620:4f:8000::1",
            "3ffe::1",
            "3fff:1000::",
            "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
    ),
    (
        Reach::Private,
        &[
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.199",
            "100.127.255.255",
            "127.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.88.99.0",
            "192.88.99.255",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.0",
            "198.51.100.255",
            "203.0.113.0",
            "203.0.113.255",
            "::1",
            "2001::",
            "2001:1::1",
            "2001:2::",
            "2001:10::",
            "2001:20::",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "3fff::",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fc00::",
            "fd00:ec1::254",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
    ),
    (
        Reach::Never,
        &[
            "0.0.0.0",
            "0.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.255.255",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "255.255.255.255",
            // Where clouds keep secrets: Alibaba, Azure, Oracle; and by IPv6 Amazon, Google, Oracle, Scaleway.
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::",
            "::2",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b:1::",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "64:ff9b:2::1",
            "64:ff9b::1:0:0",
            "100::",
            "100::ffff:ffff:ffff:ffff",
            "100:0:0:1::",
            "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "4000::",
            "5f00::",
            "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe00::",
            "fe80::",
            "fe80::a9fe:a9fe",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fec0::1",
            "ff00::",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ],
    ),
];

/// An IPv6 address with an IPv4 address in its place of the text.
fn around(v4: Ipv4Addr) -> [IpAddr; 4] {
    let [a, b, c, d] = v4.octets();
    let six_to_four = format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}");
    [format!("::ffff:{v4}"), format!("64:ff9b::{v4}"), format!("{six_to_four}::"), format!("{six_to_four}:5:6:7:8:9")]
        .map(|text| text.parse().unwrap())
}

#[test]
fn an_address_is_as_far_as_its_registry_says() {
    for (expected, addresses) in REACHES {
        for text in *addresses {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(reach(ip), *expected, "{text}");
            assert_eq!((may_reach(ip, false), may_reach(ip, true)), (*expected == Reach::Public, *expected != Reach::Never), "{text}");
            if let IpAddr::V4(v4) = ip {
                for ip in around(v4) {
                    assert_eq!(reach(ip), *expected, "{ip} with {text}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn an_address_inside_another_is_what_is_reached(v4: u32, near in 0..REACHES.len(), row: prop::sample::Index, bits in 0..8_u32) {
        let near = REACHES[near].1.iter().filter_map(|text| text.parse().ok()).collect::<Vec<Ipv4Addr>>();
        // Anywhere, and at the borders of the ranges.
        for v4 in [Ipv4Addr::from(v4), Ipv4Addr::from(u32::from(*row.get(&near)) ^ (v4 & ((1 << bits) - 1)))] {
            for ip in around(v4) {
                prop_assert_eq!(reach(ip), reach(v4.into()), "{} with {}", ip, v4);
            }
        }
    }
}

/// What nobody may find in an error.
const MARKER: &str = "rosa.vega";
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for whatever is not meant to reach it.
const TIMEOUT: Duration = Duration::from_secs(10);

fn get(url: &str, allow_private: bool) -> Outgoing {
    Outgoing {
        method: "GET",
        url: url.to_owned(),
        headers: vec![("x-person".into(), format!("{MARKER}@example.org"))],
        body: Vec::new(),
        timeout: TIMEOUT,
        answer_bytes_max: 1000,
        allow_private,
    }
}

/// What becomes of a request. That `done` is called, and once, is checked each time.
async fn outcome(network: &Network, request: Outgoing) -> Result<Answer, SendError> {
    let (tell, told) = oneshot::channel();
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let done = move |answer| {
        *counted.lock().unwrap() += 1;
        tell.send(answer).unwrap();
    };
    network.send(request, Box::new(done));
    let answer = tokio::time::timeout(PATIENCE, told).await.expect("in time").expect("`done` is called");
    assert_eq!(*calls.lock().unwrap(), 1);
    if let Err(error) = &answer {
        let text = format!("{error} {error:?}");
        assert!(!text.contains(MARKER) && !text.contains("://") && !text.contains("example.org"), "{text}");
    }
    answer
}

fn network() -> Network {
    Network::new(Handle::current()).unwrap()
}

/// A peer, and the URL that leads to it: a query with somebody's name.
async fn peer() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/add?who={MARKER}@example.org", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads a request up to the end of its head, and of a body that ends in a tilde.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") && !seen.ends_with(b"~") {
        let more = stream.read_buf(&mut seen).await.unwrap();
        assert!(more > 0, "the client went away");
    }
    String::from_utf8(seen).unwrap()
}

/// One exchange with a peer that reads the request and then says this, as it is.
async fn answered(says: &[u8], request: impl FnOnce(&str) -> Outgoing) -> (Result<Answer, SendError>, String) {
    let (listener, url) = peer().await;
    let says = says.to_vec();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let seen = read_request(&mut stream).await;
        let _ = stream.write_all(&says).await;
        let _ = stream.shutdown().await;
        // Until the client closes, so that nothing is reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        seen
    });
    let network = network();
    let answer = outcome(&network, request(&url)).await;
    drop(network);
    (answer, tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap())
}

fn private(url: &str) -> Outgoing {
    get(url, true)
}

/// Ways to write this machine, with and without TLS; a peer that listens on all of them would see the connection.
#[tokio::test]
async fn no_way_to_write_this_machine_leads_to_it() {
    let (v4, v6) = (Bound::bind("127.0.0.1:0").unwrap(), Bound::bind("[::1]:0").unwrap());
    let (four, six) = (v4.local_addr().unwrap().port(), v6.local_addr().unwrap().port());
    v4.set_nonblocking(true).unwrap();
    v6.set_nonblocking(true).unwrap();
    let connected = || v4.accept().is_ok() || v6.accept().is_ok();
    let network = network();
    let hosts = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.000.000.001",
        "%31%32%37.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
    ];
    let urls = hosts.iter().map(|host| format!("https://{host}:{four}/?who={MARKER}@example.org"));
    let urls = urls.chain([format!("https://[::1]:{six}/"), format!("https://[0:0:0:0:0:0:0:1]:{six}/")]);
    for url in urls {
        let answer = outcome(&network, get(&url, false)).await;
        assert_eq!(answer.unwrap_err(), SendError::Forbidden(FORBIDDEN), "{url}");
        assert!(!connected(), "{url}");
    }
    // Not an address of anything else either: without a name server these may be unknown.
    for host in ["localhost.", "ip6-localhost", "a.localhost", "0", "0.0.0.0", "[::]", "[::127.0.0.1]"] {
        let error = outcome(&network, get(&format!("https://{host}:{four}/"), false)).await.unwrap_err();
        assert!(matches!(error, SendError::Forbidden(FORBIDDEN) | SendError::NotSent(_)), "{host}: {error}");
        assert!(!connected(), "{host}");
    }
    // Plain HTTP and the user's name are not even looked at.
    for (url, allow_private) in [
        (format!("http://127.0.0.1:{four}/"), false),
        (format!("http://[::1]:{six}/"), false),
        (format!("http://localhost:{four}/"), false),
        ("http://example.com/".to_owned(), false),
        (format!("http://{MARKER}@127.0.0.1:{four}/"), true),
        (format!("http://:{MARKER}@127.0.0.1:{four}/"), true),
        (format!("https://example.com@127.0.0.1:{four}/"), false),
        (format!("ftp://127.0.0.1:{four}/"), true),
        ("file:///etc/passwd".to_owned(), true),
        (format!("127.0.0.1:{four}"), true),
        (format!("//127.0.0.1:{four}"), true),
        (String::new(), true),
    ] {
        let answer = outcome(&network, get(&url, allow_private)).await;
        assert!(matches!(answer, Err(SendError::Forbidden(why)) if why != FORBIDDEN), "{url}: {answer:?}");
        assert!(!connected(), "{url}");
    }
    // The twin: where it is allowed, the same hosts are reached.
    for url in [format!("http://127.1:{four}/"), format!("http://localhost:{four}/"), format!("http://[::1]:{six}/")] {
        network.send(private(&url), Box::new(drop));
        let patience = Instant::now() + PATIENCE;
        while !connected() {
            assert!(Instant::now() < patience, "{url}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_is_nobodys_stays_closed_where_private_is_open() {
    let network = network();
    for host in [
        "169.254.169.254",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0.0.0.0",
        "[::]",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let answer = outcome(&network, private(&format!("{scheme}://{host}/latest/meta-data/"))).await;
            assert_eq!(answer.unwrap_err(), SendError::Forbidden(FORBIDDEN), "{host}");
        }
    }
}

/// The resolver hands on what may be reached, and the connection is made to what it hands on: there is no second
/// look-up that could answer something else. What this leaves unproved is that the library connects to nothing but that,
/// for which `no_way_to_write_this_machine_leads_to_it` has `localhost`; a name that moves needs a name server.
#[tokio::test]
async fn a_name_leads_only_where_its_caller_may_go() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let all = ["127.0.0.1:0", "8.8.8.8:0", "169.254.169.254:0", "[fd12::1]:0", "[2606:4700::1]:0"].map(at);
    let left = |allow_private| permitted(all, allow_private).unwrap().collect::<Vec<_>>();
    assert_eq!(left(false), [all[1], all[4]]);
    assert_eq!(left(true), [all[0], all[1], all[3], all[4]]);
    assert!(permitted([all[0], all[3]], false).is_err() && permitted([all[2]], true).is_err() && permitted([], true).is_err());
    let resolved = |allow_private| Guard { allow_private }.resolve("localhost".parse().unwrap());
    assert!(resolved(false).await.err().unwrap().is::<NotAllowed>());
    assert!(resolved(true).await.unwrap().all(|address| address.ip().is_loopback()));
}

#[tokio::test]
async fn an_exchange_is_what_was_asked_and_answered() {
    let says = b"HTTP/1.1 409 Conflict\r\nContent-Type: text/x.tlog.size\r\nX-Odd: \xff\r\nContent-Length: 3\r\n\r\n17\n";
    let post = |url: &str| Outgoing { method: "POST", body: b"a body~".to_vec(), ..private(url) };
    let (answer, seen) = answered(says, post).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (409, &b"17\n"[..]));
    assert_eq!((answer.header("content-type"), answer.header("x-odd")), (Some("text/x.tlog.size"), Some("\u{fffd}")));
    let seen = seen.to_ascii_lowercase();
    assert!(seen.starts_with("post /add?who=rosa.vega@example.org http/1.1\r\n") && seen.ends_with("\r\n\r\na body~"), "{seen}");
    assert!(seen.contains("\r\nuser-agent: desist/") && seen.contains("\r\nx-person: rosa.vega@example.org\r\n"), "{seen}");
    assert!(!seen.contains("accept-encoding"), "{seen}");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = Bound::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    for status in [301, 302, 303, 307, 308] {
        for to in [format!("http://{}/", elsewhere.local_addr().unwrap()), "http://169.254.169.254/".to_owned(), "/again".to_owned()] {
            let says = format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            let answer = answered(says.as_bytes(), private).await.0.unwrap();
            assert_eq!((answer.status, answer.header("location")), (status, Some(to.as_str())));
            assert!(elsewhere.accept().is_err(), "{status} to {to}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_off() {
    let body = |n: usize| [format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n").into_bytes(), vec![b'a'; n]].concat();
    assert_eq!(answered(&body(1000), private).await.0.unwrap().body.len(), 1000);
    let too_long = SendError::Unreadable("it is longer than 1000 bytes".to_owned());
    assert_eq!(answered(&body(1001), private).await.0.unwrap_err(), too_long);
    let chunked = [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], b"64\r\n", &[b'a'; 100], b"\r\n"].concat();
    let many = [chunked, [&b"64\r\n"[..], &[b'a'; 100], b"\r\n"].concat().repeat(10), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(answered(&many, private).await.0.unwrap_err(), too_long);
    // Compressed or not is the caller's to see: what is counted is what came.
    let zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00";
    assert_eq!(answered(zipped, private).await.0.unwrap().body, b"\x1f\x8b\x08\x00");
    // One that never ends does not keep its connection.
    let (listener, url) = peer().await;
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'a'; 100]).await.is_ok() {}
    });
    let network = network();
    assert_eq!(outcome(&network, private(&url)).await.unwrap_err(), too_long);
    tokio::time::timeout(PATIENCE, endless).await.expect("the peer is cut off").unwrap();
}

#[tokio::test]
async fn a_slow_peer_is_left_when_the_time_is_up() {
    let time_is_up = SendError::NoAnswer("the time was up".to_owned());
    for says in ["", "HTTP/1.1 200 OK\r\nX-Slow: ", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"] {
        let (listener, url) = peer().await;
        let slow = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(says.as_bytes()).await.unwrap();
            // A byte now and then, for as long as somebody listens.
            while !says.is_empty() && stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let (network, since) = (network(), Instant::now());
        let request = Outgoing { timeout: Duration::from_millis(300), ..private(&url) };
        assert_eq!(outcome(&network, request).await.unwrap_err(), time_is_up, "{says:?}");
        let took = since.elapsed();
        assert!((300..3000).contains(&took.as_millis()), "{says:?}: {took:?}");
        tokio::time::timeout(PATIENCE, slow).await.expect("the peer is cut off").unwrap();
    }
}

#[tokio::test]
async fn what_surely_did_not_arrive_is_told_from_what_may_have() {
    let network = network();
    let refused = Bound::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = outcome(&network, private(&format!("http://{refused}/?{MARKER}"))).await.unwrap_err();
    assert!(matches!(&error, SendError::NotSent(why) if why.contains("refused")), "{error:?}");
    let error = outcome(&network, private(&format!("http://{MARKER}.invalid/"))).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent(_)), "{error:?}");
    let unsayable = Outgoing { headers: vec![("x-person".into(), format!("{MARKER}\n"))], ..private("http://127.0.0.1:1/") };
    let error = outcome(&network, unsayable).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent(_)), "{error:?}");

    // It was received: a reset, and an end, before and within the answer.
    for says in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        for reset in [true, false] {
            let (listener, url) = peer().await;
            let peer = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_request(&mut stream).await;
                stream.write_all(says.as_bytes()).await.unwrap();
                if reset {
                    stream.set_zero_linger().unwrap();
                }
            });
            let error = outcome(&network, private(&url)).await.unwrap_err();
            assert!(matches!(error, SendError::NoAnswer(_)), "{says:?} {reset}: {error:?}");
            peer.await.unwrap();
        }
    }
    // Here the answer began, so it arrived.
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let error = answered(cut, private).await.0.unwrap_err();
    assert!(matches!(error, SendError::Unreadable(_)), "{error:?}");
    let nonsense: [&[u8]; 4] =
        [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00"];
    for says in nonsense {
        let error = answered(says, private).await.0.unwrap_err();
        assert!(matches!(error, SendError::Unreadable(_)), "{says:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_ended_meanwhile_arrives_once() {
    let (listener, url) = peer().await;
    let served = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            seen.push(read_request(&mut stream).await);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
        seen.len()
    });
    let network = network();
    let post = || Outgoing { method: "POST", body: b"once~".to_vec(), ..private(&url) };
    assert_eq!(outcome(&network, post()).await.unwrap().status, 200);
    // Either the client saw the end and connects again, or it cannot know whether the request arrived and says so.
    match outcome(&network, post()).await {
        Ok(answer) => assert_eq!((answer.status, served.await.unwrap()), (200, 2)),
        Err(error) => assert!(matches!(error, SendError::NoAnswer(_)), "{error:?}"),
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_spoken_to() {
    for name in ["127.0.0.1", "other.example"] {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key.into())
            .unwrap();
        let (listener, url) = peer().await;
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_ok()
        });
        let error = outcome(&network(), private(&url.replace("http:", "https:"))).await.unwrap_err();
        // The second reason is that of a machine without any certificates.
        let clear = |why: &str| why.contains("certificate") && (why.contains("UnknownIssuer") || why.contains("No CA certificates"));
        assert!(matches!(&error, SendError::NotSent(why) if clear(why)), "{error:?}");
        if !error.to_string().contains("No CA") {
            assert!(!served.await.unwrap(), "no request could be read");
        }
    }
    // What speaks no TLS at all.
    let (listener, url) = peer().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = outcome(&network(), private(&url.replace("http:", "https:"))).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent(_)), "{error:?}");
}

/// A caller that waits for its answer would wait for ever.
#[test]
fn a_runtime_that_ends_tells_whoever_waits() {
    let (tell, told) = std::sync::mpsc::channel();
    let silent = Bound::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/?{MARKER}", silent.local_addr().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let network = Network::new(runtime.handle().clone()).unwrap();
    let ask = || {
        let tell = tell.clone();
        network.send(private(&url), Box::new(move |answer| tell.send(answer).unwrap()));
    };
    ask();
    let _asked = silent.accept().unwrap();
    runtime.shutdown_background();
    let ended = |told: Result<_, _>| matches!(told, Ok(Err(SendError::NoAnswer(_))));
    assert!(ended(told.recv_timeout(PATIENCE)), "it was on its way");
    ask();
    assert!(ended(told.recv_timeout(PATIENCE)), "it came too late");
    drop(tell);
    assert!(told.recv_timeout(PATIENCE).is_err(), "nobody is told twice");
}
