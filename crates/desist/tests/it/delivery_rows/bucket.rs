//! Objects in a bucket.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::*;

/// A server that speaks S3 and checks signatures; it ends when dropped.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn start(directory: &Path, port: u16) -> Self {
        let mut command = Command::new("node");
        command.arg(CLIENTS.join("bucket.mjs")).arg(directory).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("port ").expect("a port").parse().expect("a number");
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(endpoint: &str, bucket: &str, secret: &str) -> Value {
    json!({ "endpoint": endpoint, "bucket": bucket, "prefix": "privacy/in/", "access_key": "S3RVER", "secret_key": { "secret": secret } })
}

fn open(endpoint: &str, bucket: &str, secret: &str, allow_private: bool) -> Result<Rows, String> {
    Rows::open(instance("s3-drop", &settings(endpoint, bucket, secret)), options(allow_private))
}

/// An object as the server keeps it, taken through a request of its own: the server checks that too.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let mut waiting = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { waiting.push(path) } else { found.push(path.to_string_lossy().into_owned()) }
        }
    }
    found.sort();
    found
}

#[test]
fn objects_arrive_in_a_bucket_that_checks_signatures() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), 0);
    let (port, endpoint) = (server.port, format!("http://localhost:{}", server.port));
    let rows = open(&endpoint, "drops", "S3RVER", true).expect("it opens");
    let rosa = [opt_out(1, 10, "rosa@example.org"), opt_in(2, 11, "kim@example.org")];
    let ended = send(&rows, &rosa);
    assert_eq!((ended.left, reports(&ended)), (true, reached(Level::Accepted, [1, 2])), "{:?}", rows.problem());
    let found = names(directory.path());
    let ends = |end: &str| found.iter().filter(|name| name.contains("/privacy/in/desist-delta-") && name.contains(end)).count();
    assert!(ends(".ndjson") > 0 && ends(".manifest.json") > 0, "{found:?}");
    let file = found.iter().find(|name| name.ends_with(".ndjson._S3rver_object")).expect("the rows");
    let lines: Vec<Value> =
        std::fs::read_to_string(file).expect("a file").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["sha256"], &lines[0]["version"]), (&json!(hex("rosa@example.org")), &json!(10)));
    assert_eq!(start(&*rows.transport(), Errand::Probe, WITHIN).outcome, Outcome::Ok(Level::Accepted));

    let wrong_key = open(&endpoint, "drops", "other", true).expect("it opens");
    assert_failed(&send(&wrong_key, &rosa), Failure::Credentials, wrong_key.problem(), "403 SignatureDoesNotMatch");
    let missing = open(&endpoint, "nothing", "S3RVER", true).expect("it opens");
    assert_failed(&send(&missing, &rosa), Failure::Server, missing.problem(), "404 NoSuchBucket");
    let before = names(directory.path()).len();
    drop(server);
    assert_failed(&send(&rows, &rosa), Failure::Connect, rows.problem(), "no answer");
    let _server = Server::start(directory.path(), port);
    assert_eq!(reports(&send(&rows, &rosa)), reached(Level::Accepted, [1, 2]));
    assert!(names(directory.path()).len() > before);
}

#[test]
fn a_bucket_of_a_private_network_is_only_for_who_may() {
    for refused in ["http://s3.example.com", "https://127.0.0.1:9000", "https://[::1]:9000", "https://169.254.169.254"] {
        assert!(open(refused, "drops", "S3RVER", false).is_err(), "{refused}");
    }
    assert!(open("https://169.254.169.254", "drops", "S3RVER", true).is_err(), "where clouds keep their secrets");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("it can");
    let rows = open(&format!("https://localhost:{}", socket.local_addr().expect("an address").port()), "drops", "S3RVER", false)
        .expect("it opens");
    assert_failed(&send(&rows, &[opt_out(1, 1, "rosa@example.org")]), Failure::Connect, rows.problem(), "private");
    assert!(socket.accept().is_err(), "nobody called");
}
