//! A whole server beside receivers of others, all of which are ended and started again while people opt out.

use super::bucket::{Server as Bucket, names};
use super::sftp::{SERVER, Ssh};
use super::sql::{ANTI_JOIN, Postgres};
use super::*;
use crate::delivery_live::{level, opt_out as opted_out, request, write_secret};
use crate::support::{Seeded, Server, scale, until};

/// The rows of a table of `desist.toml`, without secrets.
fn plain(settings: &Value) -> String {
    let of = |(name, value): (&String, &Value)| (!value.is_object()).then(|| format!("{name} = {value}\n"));
    settings.as_object().expect("a table").iter().filter_map(of).collect()
}

fn table(id: &str, connector: &str, settings: &Value, secret: &str) -> String {
    format!(
        "[[destinations]]\nid = \"{id}\"\nconnector = \"{connector}\"\nclass = \"service_provider\"\nallow_private = true\nlinger = \"1s\"\n\
         [destinations.settings]\n{}{secret} = {{ file = \"{id}\" }}\n",
        plain(settings)
    )
}

/// What a receiver of the bucket's files keeps: of each digest the row with the highest version.
fn kept(directory: &Path) -> BTreeMap<String, (u64, String)> {
    let mut kept = BTreeMap::<String, (u64, String)>::new();
    for name in names(directory).iter().filter(|name| name.ends_with(".ndjson._S3rver_object")) {
        for line in std::fs::read_to_string(name).expect("a file").lines() {
            let row: Value = serde_json::from_str(line).expect("JSON");
            let (version, status) = (row["version"].as_u64().expect("a number"), row["status"].as_str().expect("a word"));
            let one = kept.entry(row["sha256"].as_str().expect("a digest").to_owned()).or_default();
            if version >= one.0 {
                *one = (version, status.to_owned());
            }
        }
    }
    kept
}

#[test]
fn every_receiver_has_everybody_through_restarts_of_both_sides() {
    let (mut postgres, mut ssh) = (Postgres::start(), Ssh::start(SERVER));
    let objects = tempfile::tempdir().expect("a directory");
    let mut bucket = Some(Bucket::start(objects.path(), 0));
    let bucket_port = bucket.as_ref().expect("it runs").port;
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    let sql = json!({ "ca": postgres.ca(), "table": "privacy.choices" });
    let s3 = json!({ "endpoint": format!("http://localhost:{bucket_port}"), "bucket": "drops", "prefix": "privacy/in/", "access_key": "S3RVER" });
    let sftp = ssh.settings(&json!({}));
    let url = postgres.url("desist", "s3cret", "localhost", "");
    for (id, secret) in [("table", &url["secret"]), ("bucket", &json!("S3RVER")), ("files", &sftp["private_key"]["secret"])] {
        write_secret(here, id, secret.as_str().expect("a text"));
    }
    let tables = [
        table("table", "sql-table", &sql, "url"),
        table("bucket", "s3-drop", &s3, "secret_key"),
        table("files", "sftp-drop", &sftp, "private_key"),
    ];
    std::fs::write(here.join("desist.toml"), tables.concat()).expect("a file");

    let (mut random, mut taken) = (Seeded::new(0), Vec::new());
    for round in 0..3 * scale() {
        let mut server = Server::start_in(here, &[]);
        let restarted = random.below(10);
        for n in 0..10 {
            let address = format!("p{round}-{n}@example.org");
            taken.push((opted_out(&server, &address)["id"].clone(), address));
            if n == restarted {
                match round % 3 {
                    0 => {
                        postgres.down();
                        postgres.up();
                    }
                    1 => {
                        ssh.down();
                        ssh.up();
                    }
                    _ => {
                        drop(bucket.take());
                        bucket = Some(Bucket::start(objects.path(), bucket_port));
                    }
                }
            }
        }
        std::thread::park_timeout(Duration::from_millis(random.below(300) as u64));
        server.kill();
    }

    let server = Server::start_in(here, &[]);
    for id in ["table", "bucket", "files"] {
        assert!(server.run(&["destination", "try", id]).status.success());
    }
    for (id, _) in &taken {
        until("enforced", || request(&server, id)["status"] == "enforced");
        assert_eq!(["table", "bucket", "files"].map(|of| level(&server, id, of)), ["verified", "accepted", "accepted"]);
    }
    let mut everybody: Vec<_> = taken.iter().map(|(_, address)| hex(address)).collect();
    everybody.sort();
    let rows = "SELECT sha256_hex FROM privacy.choices WHERE kind = 'email' AND status = 'opt_out' ORDER BY 1";
    assert_eq!(postgres.sql(rows), everybody, "each once");
    for kept in [kept(objects.path()), state(&ssh.path("in"))] {
        assert!(kept.values().all(|(_, status)| status == "opt_out"));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), everybody);
    }
    postgres.sql(
        "CREATE TABLE contacts (email text); INSERT INTO contacts VALUES ('P0-0@Example.org'), ('p0-9@example.org'), ('kim@example.org')",
    );
    assert_eq!(postgres.sql(ANTI_JOIN), ["kim@example.org"]);
    assert_eq!(server.run(&["check"]).status.code(), Some(0));
}
