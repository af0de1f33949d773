//! How calls to destinations prove who makes them: tokens, signatures, and what happens without.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use desist::delivery::{EngineTokens, HttpTransport, Options, TokenStore};
use desist_connector::{Approvals, Given, Instance, Manifest, Secret};
use desist_core::lane::{Failure, Level, Outcome};
use desist_engine::delivery::transport::{Ended, Errand, Transport as _};
use desist_engine::engine::{Engine, Policy};
use desist_engine::env::{Outbound, System};
use desist_engine::search::Searched;
use desist_store::sqlite::SqliteStore;
use ed25519_dalek::{Signature, SigningKey, Verifier as _};
use serde_json::{Value, json};

use crate::delivery_http::{
    Got, PATIENCE, Peer, Reply, WEBHOOK_SECRET, json_reply, led, network, options, out, reply, run, shipped, token_reply,
};
use crate::support::CLIENTS;

/// A destination with this `[auth]`, on a host that is a setting.
fn instance(auth: &str, host: &str, secrets: &[(&str, &str)], http_loopback: bool) -> Arc<Instance> {
    let mut text = format!(
        "[connector]\nid = \"crm\"\nversion = 1\ntitle = \"CRM\"\nhosts = [\"{{{{settings.host}}}}\"]\n\n\
         [settings.host]\ntype = \"host\"\nrequired = true\n\n[auth]\n{auth}\n\n[ids.email]\n\n[[op]]\non = \"opt_out\"\n\
         purposes = [\"sale\"]\nwrites = \"doNotSell\"\neffect = \"flag\"\nceiling = \"applied\"\nmethod = \"POST\"\n\
         path = \"/contacts/{{{{id.email}}}}\"\nunit = \"id\"\nbody = {{ doNotSell = true }}\n\n[op.result]\ndialect = \"status\"\n"
    );
    for (name, _) in secrets {
        text.extend(["\n[settings.", name, "]\ntype = \"secret\"\nrequired = true\n"]);
    }
    let manifest = Manifest::parse(&text, "crm.toml").unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut given = BTreeMap::from([("host".to_owned(), Given::Value(json!(host)))]);
    given.extend(secrets.iter().map(|(name, value)| ((*name).to_owned(), Given::Secret(Secret::new(*value)))));
    let approvals = Approvals { http_loopback, ..Approvals::default() };
    Arc::new(Instance::new(&manifest, &given, approvals).unwrap_or_else(|problems| panic!("{problems:?}")))
}

const CLIENT: &str = "kind = \"oauth2_client\"\ntoken_url = \"https://{{settings.host}}/token\"\nclient_id = \"me\"\n\
                      client_secret = \"{{settings.client_secret}}\"\nscope = \"a b\"";
const REFRESH: &str = "kind = \"oauth2_refresh\"\ntoken_url = \"https://{{settings.host}}/token\"\nclient_id = \"me\"\n\
                       client_secret = \"{{settings.client_secret}}\"\nrefresh_token = \"{{settings.refresh_token}}\"";

fn told(transport: &HttpTransport) -> Ended {
    run(transport, Errand::Send(vec![out(1)]), PATIENCE)
}

const OK: Outcome = Outcome::Ok(Level::Applied);

fn is_failed(ended: &Ended, how: Failure) -> bool {
    matches!(ended.outcome, Outcome::Failed { failure, .. } if failure == how)
}

fn said(header: Option<&String>) -> &str {
    header.map_or("", String::as_str)
}

/// A destination that gives tokens by number, and accepts those from `good` on.
struct Vendor {
    peer: Peer,
    good: Arc<AtomicUsize>,
}

impl Vendor {
    fn start(slowly: bool) -> Self {
        let (given, good) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(1)));
        let from = Arc::clone(&good);
        let peer = Peer::start(move |got| {
            if got.target == "/token" {
                if slowly {
                    std::thread::park_timeout(Duration::from_millis(300));
                }
                return token_reply(&format!("t{}", given.fetch_add(1, Ordering::SeqCst) + 1));
            }
            let number = said(got.headers.get("authorization")).strip_prefix("Bearer t").and_then(|number| number.parse::<usize>().ok());
            let is_good = number.is_some_and(|number| number >= from.load(Ordering::SeqCst));
            json_reply(if is_good { 200 } else { 401 }, &json!({}))
        });
        Self { peer, good }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.peer.port)
    }
}

#[test]
fn a_token_is_fetched_once_for_all_and_anew_when_it_is_refused() {
    let vendor = Vendor::start(true);
    let instance = instance(CLIENT, &vendor.host(), &[("client_secret", "s+/=3cret")], true);
    let outbound: Arc<dyn Outbound> = Arc::new(network());
    let transport = Arc::new(HttpTransport::new(options(&instance, &outbound)));
    let (tell, ended) = mpsc::channel();
    for number in 0..8 {
        let tell = tell.clone();
        transport.start(Errand::Send(vec![out(number)]), PATIENCE, Box::new(move |ended| tell.send(ended.outcome).unwrap()));
    }
    for _ in 0..8 {
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(OK));
    }
    assert_eq!((vendor.peer.count("/token"), vendor.peer.count("/contacts/")), (1, 8));
    let asked = vendor.peer.got().into_iter().find(|got| got.target == "/token").unwrap();
    assert_eq!(asked.body, "grant_type=client%5Fcredentials&client_id=me&client_secret=s%2B%2F%3D3cret&scope=a%20b");
    // It was revoked: one more token, and the same call again.
    vendor.good.store(2, Ordering::SeqCst);
    assert_eq!(told(&transport).outcome, OK);
    assert_eq!((vendor.peer.count("/token"), vendor.peer.count("/contacts/")), (2, 10));
    // No token is good: one more, and no third try.
    vendor.good.store(100, Ordering::SeqCst);
    let refused = told(&transport);
    assert!(is_failed(&refused, Failure::Credentials) && refused.left, "{refused:?}");
    assert_eq!((vendor.peer.count("/token"), vendor.peer.count("/contacts/")), (3, 12));
    // What was refused is not used again.
    assert!(is_failed(&told(&transport), Failure::Credentials));
    assert_eq!((vendor.peer.count("/token"), vendor.peer.count("/contacts/")), (4, 13));
}

#[test]
fn tokens_come_from_no_address_that_may_not_be_called() {
    let vendor = Vendor::start(false);
    let outbound: Arc<dyn Outbound> = Arc::new(network());
    // The same over plain HTTP and over TLS, and to a name that leads to this machine.
    let hosts = [vendor.host(), format!("localhost:{}", vendor.peer.port)];
    for (host, http_loopback) in hosts.iter().flat_map(|host| [(host, true), (host, false)]) {
        for (auth, secrets) in [(CLIENT, &[("client_secret", "s")][..]), (REFRESH, &[("client_secret", "s"), ("refresh_token", "r")])] {
            let instance = instance(auth, host, secrets, http_loopback);
            let twin = HttpTransport::new(Options { allow_private: false, ..options(&instance, &outbound) });
            let ended = told(&twin);
            assert!(is_failed(&ended, Failure::Connect) && !ended.left, "{ended:?}");
        }
    }
    assert_eq!(vendor.peer.connections(), 0);
    let instance = instance(CLIENT, &vendor.host(), &[("client_secret", "s")], true);
    assert_eq!(told(&HttpTransport::new(options(&instance, &outbound))).outcome, OK);
}

#[test]
fn an_endpoint_that_gives_no_token_is_why_nothing_is_sent() {
    let answer = Arc::new(Mutex::new(Reply::Hang));
    let now = Arc::clone(&answer);
    let peer = Peer::start(move |got| if got.target == "/token" { now.lock().unwrap().clone() } else { json_reply(200, &json!({})) });
    let instance = instance(CLIENT, &format!("127.0.0.1:{}", peer.port), &[("client_secret", "s")], true);
    let outbound: Arc<dyn Outbound> = Arc::new(network());
    let token = |value: &Value| json_reply(200, value);
    let long = "x".repeat(64 << 10);
    let cases = [
        (json_reply(400, &json!({ "error": "invalid_client" })), Failure::Credentials),
        (json_reply(401, &json!({})), Failure::Credentials),
        (reply(429, "text/plain", "retry-after: 7\r\n", ""), Failure::Throttled),
        (json_reply(500, &json!({})), Failure::Server),
        (reply(302, "text/plain", "location: https://elsewhere.example/\r\n", ""), Failure::Server),
        (token(&json!({ "token_type": "bearer" })), Failure::Server),
        (token(&json!({ "access_token": "" })), Failure::Server),
        (token(&json!({ "access_token": "a\r\nx-evil: 1" })), Failure::Server),
        (token(&json!({ "access_token": "x".repeat(8193) })), Failure::Server),
        (token(&json!({ "access_token": "a", "token_type": "mac" })), Failure::Server),
        (token(&json!({ "access_token": "a", "more": long })), Failure::Server),
        (reply(200, "text/html", "", "{\"access_token\":\"a\"}"), Failure::Server),
        (Reply::Raw(Vec::new()), Failure::Connect),
    ];
    for (place, (said, failure)) in cases.into_iter().enumerate() {
        *answer.lock().unwrap() = said;
        let ended = told(&HttpTransport::new(options(&instance, &outbound)));
        assert!(is_failed(&ended, failure) && !ended.left, "{place}: {ended:?}");
        let waits = matches!(ended.outcome, Outcome::Failed { retry_after_ms: Some(7_000), .. });
        assert_eq!(waits, failure == Failure::Throttled, "{place}");
    }
    assert_eq!(peer.count("/contacts/"), 0);
    // Whoever has no more time is told so.
    *answer.lock().unwrap() = Reply::Hang;
    let ended = run(&HttpTransport::new(options(&instance, &outbound)), Errand::Send(vec![out(1)]), Duration::from_millis(300));
    assert!(is_failed(&ended, Failure::Connect) && !ended.left, "{ended:?}");
    // Tokens that last no time are used once each, those without a life for a while.
    for (life, fetched) in [(json!(0), 2), (json!("3600"), 1), (Value::Null, 1)] {
        *answer.lock().unwrap() = token(&json!({ "access_token": "a", "expires_in": life }));
        let (transport, before) = (HttpTransport::new(options(&instance, &outbound)), peer.count("/token"));
        assert_eq!((told(&transport).outcome, told(&transport).outcome), (OK, OK));
        assert_eq!(peer.count("/token") - before, fetched, "{life}");
    }
}

/// A store of tokens in memory.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Secret>>);

impl TokenStore for Kept {
    fn load(&self, destination: &str) -> Result<Option<Secret>, String> {
        Ok(self.0.lock().unwrap().get(destination).cloned())
    }

    fn save(&self, destination: &str, secret: &Secret) -> Result<(), String> {
        self.0.lock().unwrap().insert(destination.to_owned(), secret.clone());
        Ok(())
    }
}

/// Cannot be read.
struct Torn;

impl TokenStore for Torn {
    fn load(&self, _: &str) -> Result<Option<Secret>, String> {
        Err("torn".to_owned())
    }

    fn save(&self, _: &str, _: &Secret) -> Result<(), String> {
        Err("torn".to_owned())
    }
}

#[test]
fn a_rotated_refresh_token_is_kept_before_it_is_used() {
    // Each refresh token works once.
    let next = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&next);
    let peer = Peer::start(move |got| {
        if got.target != "/token" {
            return json_reply(200, &json!({}));
        }
        let now = number.load(Ordering::SeqCst);
        if !got.body.contains(&format!("refresh_token=r{now}&")) {
            return json_reply(400, &json!({ "error": "invalid_grant" }));
        }
        number.store(now + 1, Ordering::SeqCst);
        let body = json!({ "access_token": "a", "expires_in": 0, "refresh_token": format!("r{}", now + 1) });
        json_reply(200, &body)
    });
    let host = format!("127.0.0.1:{}", peer.port);
    let given = |token: &str| instance(REFRESH, &host, &[("client_secret", "s"), ("refresh_token", token)], true);
    let outbound: Arc<dyn Outbound> = Arc::new(network());
    let tokens: Arc<Kept> = Arc::default();
    let transport = |instance: &Arc<Instance>, tokens: &Arc<dyn TokenStore>| {
        HttpTransport::new(Options { tokens: Arc::clone(tokens), ..options(instance, &outbound) })
    };
    let kept: Arc<dyn TokenStore> = Arc::clone(&tokens) as _;
    let first = transport(&given("r0"), &kept);
    assert_eq!((told(&first).outcome, told(&first).outcome), (OK, OK));
    // After a restart.
    assert_eq!(told(&transport(&given("r0"), &kept)).outcome, OK);
    assert_eq!(next.load(Ordering::SeqCst), 3);
    let saved = tokens.load("crm").unwrap().unwrap();
    assert_eq!(saved.expose().split_once('.').map(|(_, token)| token), Some("r3"), "behind the digest of the given one");
    // An operator gave another one: what was kept is of no use any more.
    next.store(50, Ordering::SeqCst);
    assert!(is_failed(&told(&transport(&given("r0"), &kept)), Failure::Credentials));
    assert_eq!(told(&transport(&given("r50"), &kept)).outcome, OK);
    // Whoever cannot read what was kept does not try an old one: the other side may take that for theft.
    let (torn, before): (Arc<dyn TokenStore>, _) = (Arc::new(Torn), peer.count("/token"));
    let ended = told(&transport(&given("r51"), &torn));
    assert!(is_failed(&ended, Failure::Connect) && !ended.left, "{ended:?}");
    assert_eq!(peer.count("/token"), before);
}

#[test]
fn the_engine_keeps_tokens_sealed_and_through_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let data = directory.path().to_owned();
        let policy = Policy {
            api_opt_in_own: true,
            time_zone: jiff::tz::TimeZone::UTC,
            purposes: Vec::new(),
            searched: Searched::default(),
            witnesses: Vec::new(),
            alerts: None,
            kinds_told: std::collections::BTreeSet::new(),
        };
        let (engine, _) = Engine::open(desist_engine::engine::Options {
            business: None,
            keys: directory.path().join("keys"),
            snapshot: None,
            policy,
            env: Arc::new(System),
            outbound: None,
            open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as _)),
        })
        .unwrap();
        Arc::new(engine)
    };
    let marker = "r3fr3sh-t0k3n-0f-n0w";
    let engine = open();
    let tokens = EngineTokens(Arc::clone(&engine));
    assert_eq!(tokens.load("crm"), Ok(None));
    tokens.save("crm", &Secret::new("older")).unwrap();
    tokens.save("crm", &Secret::new(marker)).unwrap();
    let sealed = engine.read(|read| read.meta("oauth/crm")).unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains(marker));
    // One of another destination does not open it.
    let moved = sealed.clone();
    engine.submit_blocking(desist_engine::queue::Lane::Interactive, move |ctx| ctx.write.put_meta("oauth/other", &moved).map(Ok)).unwrap();
    assert!(tokens.load("other").is_err());
    engine.close();
    drop((tokens, engine));
    let engine = open();
    assert_eq!(EngineTokens(Arc::clone(&engine)).load("crm"), Ok(Some(Secret::new(marker))));
    engine.close();
}

#[test]
fn a_service_account_signs_what_google_can_check() {
    let peer =
        Peer::start(|got| if got.target == "/token" { token_reply("g1") } else { json_reply(200, &json!({ "requestId": "req-1" })) });
    let (instance, outbound) = (shipped("google-data-manager"), led(&peer));
    let ended = told(&HttpTransport::new(options(&instance, &outbound)));
    assert_eq!(ended.outcome, Outcome::Job("+0:req-1".to_owned()));
    let got = peer.got();
    assert_eq!(got[1].headers["authorization"], "Bearer g1");
    let assertion = got[0].body.strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant%2Dtype%3Ajwt%2Dbearer&assertion=").unwrap();
    let assertion = percent_encoding::percent_decode_str(assertion).decode_utf8().unwrap();
    let parts: Vec<_> = assertion.split('.').collect();
    let part = |place: usize| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(parts[place]).unwrap()).unwrap();
    assert_eq!(part(0), json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }));
    let claims = part(1);
    let (issued, over) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let expected = json!({
        "iss": "robot@acme.example", "aud": "https://oauth2.googleapis.com/token", "iat": issued, "exp": issued + 3600,
        "scope": "https://www.googleapis.com/auth/datamanager",
    });
    assert_eq!((claims, over - issued), (expected, 3600));
    // OpenSSL believes it.
    let message = format!("{}.{}", parts[0], parts[1]);
    let key: Value = serde_json::from_str(crate::delivery_http::account()).unwrap();
    let script = "const c=require('crypto');const [k,m,s]=JSON.parse(require('fs').readFileSync(0));\
                  process.exit(c.verify('RSA-SHA256',Buffer.from(m),c.createPublicKey(k),Buffer.from(s,'base64url'))?0:1)";
    let believes = |message: &str| {
        let mut child = Command::new("node").args(["-e", script]).stdin(Stdio::piped()).spawn().expect("node is missing; run scripts/test");
        child.stdin.take().unwrap().write_all(json!([key["private_key"], message, parts[2]]).to_string().as_bytes()).unwrap();
        child.wait().unwrap().success()
    };
    assert!(believes(&message) && !believes(&message.replace('.', "-")));
}

/// What the library of Standard Webhooks believes, given the secret.
fn believed(got: &Got, secret: &str) -> bool {
    let mut child = Command::new("node")
        .arg(CLIENTS.join("webhook.mjs"))
        .arg(secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("node is missing; run scripts/test");
    child.stdin.take().unwrap().write_all(json!({ "headers": got.headers, "body": got.body }).to_string().as_bytes()).unwrap();
    child.wait().unwrap().success()
}

const WEBHOOK: &str = "kind = \"standard_webhooks\"\nsecret = \"{{settings.secret}}\"";

#[test]
fn webhooks_are_signed_and_have_the_same_id_when_they_are_sent_again() {
    let peer = Peer::start(|_| json_reply(500, &json!({})));
    let outbound = led(&peer);
    let transport = HttpTransport::new(options(&shipped("webhook"), &outbound));
    assert!(is_failed(&told(&transport), Failure::Server) && is_failed(&told(&transport), Failure::Server));
    let later = out(1);
    let later = Arc::new(desist_engine::delivery::transport::Message { version: 8, ..(*later).clone() });
    for errand in [Errand::Send(vec![later]), Errand::Send(vec![out(2)])] {
        run(&transport, errand, PATIENCE);
    }
    let elsewhere = HttpTransport::new(Options { destination: "other".to_owned(), ..options(&shipped("webhook"), &outbound) });
    told(&elsewhere);
    let got = peer.got();
    let ids: Vec<_> = got.iter().map(|got| got.headers["webhook-id"].as_str()).collect();
    assert!(ids.iter().all(|id| id.starts_with("msg_") && id.len() == 26), "{ids:?}");
    assert_eq!(ids[0], ids[1], "sent again");
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), 4, "another version, another person, another destination: {ids:?}");
    assert!(believed(&got[0], WEBHOOK_SECRET));
    assert!(!believed(&Got { body: got[0].body.replace("opt_out", "opt_in"), ..got[0].clone() }, WEBHOOK_SECRET));
    // With a key of ed25519.
    let key = SigningKey::from_bytes(&[5; 32]);
    let secret = format!("whsk_{}", STANDARD.encode(key.to_keypair_bytes()));
    let signed = instance(WEBHOOK, "hooks.example.com", &[("secret", &secret)], false);
    told(&HttpTransport::new(options(&signed, &outbound)));
    let got = peer.got().pop().unwrap();
    let signature = STANDARD.decode(got.headers["webhook-signature"].strip_prefix("v1a,").unwrap()).unwrap();
    let message = format!("{}.{}.{}", got.headers["webhook-id"], got.headers["webhook-timestamp"], got.body);
    let signature = Signature::from_slice(&signature).unwrap();
    assert!(key.verifying_key().verify(message.as_bytes(), &signature).is_ok());
    assert!(key.verifying_key().verify(message.replace("true", "false").as_bytes(), &signature).is_err());
}

#[test]
fn each_way_has_its_header_and_a_wrong_credential_sends_nothing() {
    let peer = Peer::start(|_| json_reply(200, &json!({})));
    let outbound = led(&peer);
    let marker = "m4rk3r";
    let bearer = "kind = \"bearer\"\ntoken = \"{{settings.secret}}\"";
    let header = "kind = \"header\"\nname = \"X-Key\"\nvalue = \"{{settings.secret}}\"";
    let basic = "kind = \"basic\"\nusername = \"me\"\npassword = \"{{settings.secret}}\"";
    let aws =
        "kind = \"aws_sigv4\"\naccess_key = \"AKID\"\nsecret_key = \"{{settings.secret}}\"\nregion = \"us-west-1\"\nservice = \"lambda\"";
    let google =
        "kind = \"google_sa\"\ntoken_url = \"https://{{settings.host}}/token\"\ncredentials = \"{{settings.secret}}\"\nscope = \"a\"";
    let send = |auth: &str, secret: &str| {
        let instance = instance(auth, "api.example.com", &[("secret", secret)], false);
        told(&HttpTransport::new(options(&instance, &outbound)))
    };
    for (auth, name, expected) in [
        (bearer, "authorization", format!("Bearer {marker}")),
        (header, "x-key", marker.to_owned()),
        (basic, "authorization", format!("Basic {}", STANDARD.encode(format!("me:{marker}")))),
        (aws, "authorization", "AWS4-HMAC-SHA256 Credential=AKID/".to_owned()),
    ] {
        assert_eq!(send(auth, marker).outcome, OK);
        let got = peer.got().pop().unwrap();
        assert!(got.headers[name].starts_with(&expected), "{got:?}");
    }
    let none = instance("kind = \"none\"", "api.example.com", &[], false);
    assert_eq!(told(&HttpTransport::new(options(&none, &outbound))).outcome, OK);
    assert!(!peer.got().pop().unwrap().headers.contains_key("authorization"));
    let before = peer.connections();
    let no_key =
        json!({ "client_email": "a", "private_key": format!("-----BEGIN PRIVATE KEY-----\n{marker}\n-----END PRIVATE KEY-----\n") });
    for (auth, secret) in [
        (bearer, "m4rk3r\u{e9}"),
        (header, " m4rk3r "),
        (WEBHOOK, marker),
        (WEBHOOK, "whsec_c2VjcmV0"),
        (google, marker),
        (google, &no_key.to_string()),
    ] {
        let ended = send(auth, secret);
        assert!(is_failed(&ended, Failure::Credentials) && !ended.left && ended.answer.is_none(), "{auth}: {ended:?}");
    }
    assert_eq!(peer.connections(), before);
}
