//! A table of PostgreSQL: each batch is one statement in one transaction, and is read back after the commit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use desist_connector::{Instance, Row};
use desist_core::lane::{Failure, Level, Outcome, Report, Target};
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Fault, Left, Options, Problem, Rendered, aside, reaches, render, run};
use crate::limits::OUTGOING_CONNECT_TIMEOUT;
use crate::outgoing::{DialError, dial};

/// What a table must have: names and types, as PostgreSQL writes them.
const COLUMNS: [(&str, &str); 6] = [
    ("kind", "text"),
    ("sha256_hex", "text"),
    ("purposes", "text[]"),
    ("status", "text"),
    ("version", "bigint"),
    ("updated_at", "timestamp with time zone"),
];

/// The way to one table.
pub struct Sql {
    inner: Arc<Inner>,
}

struct Inner {
    instance: Instance,
    options: Options,
    config: Config,
    host: Host,
    port: u16,
    tls: Option<MakeRustlsConnect>,
    table: Table,
    // Taken out for an errand, and put back if nothing went wrong: what was given up half way is closed.
    kept: Mutex<Option<Connected>>,
    problem: Problem,
}

/// A connection. Nothing of it goes on when it is dropped, not even the wait for a server that says nothing.
struct Connected {
    client: Client,
    task: AbortHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A table's name.
struct Table {
    /// As it stands in a statement.
    quoted: String,
    /// How it is made.
    ddl: String,
}

impl Table {
    fn new(name: &str) -> Self {
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        let quoted = name.split('.').map(quote).collect::<Vec<_>>().join(".");
        let columns = COLUMNS.iter().fold(String::new(), |mut columns, (name, kind)| {
            let _ = write!(columns, "{name} {kind} NOT NULL, ");
            columns
        });
        let ddl = format!("CREATE TABLE IF NOT EXISTS {quoted} ({columns}PRIMARY KEY (kind, sha256_hex))");
        Self { quoted, ddl }
    }

    fn upsert(&self) -> String {
        let table = &self.quoted;
        format!(
            "INSERT INTO {table} AS present (kind, sha256_hex, purposes, status, version, updated_at) \
             SELECT kind, sha256_hex, string_to_array(purposes, ' '), status, version, to_timestamp(updated_at) \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
             AS new (kind, sha256_hex, purposes, status, version, updated_at) \
             ON CONFLICT (kind, sha256_hex) DO UPDATE \
             SET purposes = excluded.purposes, status = excluded.status, version = excluded.version, updated_at = excluded.updated_at \
             WHERE present.version IS NULL OR excluded.version >= present.version"
        )
    }

    fn select(&self) -> String {
        let table = &self.quoted;
        format!(
            "SELECT present.kind, present.sha256_hex, array_to_string(present.purposes, ' '), present.status, present.version \
             FROM unnest($1::text[], $2::text[]) AS asked (kind, sha256_hex) \
             JOIN {table} AS present ON present.kind = asked.kind AND present.sha256_hex = asked.sha256_hex"
        )
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    purposes: String,
    status: String,
    version: i64,
    updated_at: i64,
}

type Key = (String, String);
type Entries = BTreeMap<Key, Entry>;
type Owners = BTreeMap<Target, Vec<Key>>;

impl Sql {
    /// By the connector's settings. The error is for the operator, and names no secret.
    pub fn new(instance: Instance, options: Options) -> Result<Self, String> {
        let url = instance.secret("url").ok_or("the setting url is missing")?.expose();
        let table = Table::new(instance.text("table").ok_or("the setting table is missing")?);
        // libpq's two stricter words say what holds here in any case.
        let url = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        // Its error could repeat the password.
        let mut config = Config::from_str(&url).map_err(|_| "the setting url is not postgres://user:password@host:port/database")?;
        let ([host], true) = (config.get_hosts(), config.get_hostaddrs().is_empty()) else {
            return Err("the setting url must name one host".to_owned());
        };
        let (host, port) = (host.clone(), config.get_ports().first().copied().unwrap_or(5432));
        if config.get_user().is_none() || config.get_dbname().is_none() {
            return Err("the setting url must name a user and a database".to_owned());
        }
        let is_local = matches!(host, Host::Unix(_));
        let is_plain = is_local || (url.contains("sslmode=") && config.get_ssl_mode() == SslMode::Disable);
        if is_plain && !options.allow_private {
            return Err("a connection without TLS, or through a socket of this machine, needs allow_private".to_owned());
        }
        // What else the word may be, what is sent is not to be read on the way.
        config.ssl_mode(if is_plain { SslMode::Disable } else { SslMode::Require });
        config.application_name("desist");
        let tls = if is_plain { None } else { Some(MakeRustlsConnect::new(tls(instance.text("ca"))?)) };
        let (kept, problem) = (Mutex::new(None), Problem::default());
        Ok(Self { inner: Arc::new(Inner { instance, options, config, host, port, tls, table, kept, problem }) })
    }
}

impl Transport for Sql {
    fn problem(&self) -> Option<String> {
        self.inner.problem.get()
    }

    fn start(&self, errand: Errand, within: Duration, done: Done) {
        let inner = Arc::clone(&self.inner);
        let until = Instant::now() + within;
        run(&self.inner.options.runtime, within, done, |left| async move { inner.errand(errand, until, &left).await });
    }

    fn reaches(&self, message: &Message) -> bool {
        reaches(&self.inner.instance, &self.inner.options.purposes, message)
    }
}

/// Who answers must prove to be the host that was meant, by an authority of this machine or by the one that is given.
fn tls(ca: Option<&str>) -> Result<ClientConfig, String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(path) = ca else {
        return ClientConfig::with_platform_verifier().map_err(|error| format!("no certificates of authorities on this machine: {error}"));
    };
    let mut roots = rustls::RootCertStore::empty();
    let wrong = |error: &dyn std::fmt::Display| format!("the setting ca: {path}: {error}");
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"has no certificate"));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl Inner {
    async fn errand(self: &Arc<Self>, errand: Errand, until: Instant, left: &Left) -> Ended {
        let ended = match errand {
            Errand::Send(messages) => self.send(messages, until, left).await,
            Errand::Check(messages) => self.check(messages, until).await,
            Errand::Probe => self.probe(until).await,
            Errand::Poll(_) => Ok(Ended { left: false, ..Ended::all(Outcome::NotSent) }),
        };
        let id = self.instance.manifest().id();
        match ended {
            Ok(ended) => {
                // What asked nobody does not show that it works.
                if ended.left {
                    self.problem.set(id, None);
                }
                ended
            }
            Err(fault) => {
                self.problem.set(id, Some(fault.problem.clone()));
                fault.ended(left)
            }
        }
    }

    /// The rows of these messages, by their keys.
    async fn rendered(self: &Arc<Self>, messages: Vec<Arc<Message>>) -> Result<(Rendered, Entries, Owners), Fault> {
        let inner = Arc::clone(self);
        aside(move || {
            let mut rendered = render(&inner.instance, &inner.options.purposes, &messages)?;
            let (entries, owners) = entries(&std::mem::take(&mut rendered.rows))?;
            Ok((rendered, entries, owners))
        })
        .await
    }

    async fn send(self: &Arc<Self>, messages: Vec<Arc<Message>>, until: Instant, left: &Left) -> Result<Ended, Fault> {
        let (Rendered { mut reports, ceilings, .. }, entries, owners) = self.rendered(messages).await?;
        if entries.is_empty() {
            return Ok(Ended { left: false, reports, ..Ended::all(Outcome::Ok(Level::Accepted)) });
        }
        let (mut kept, mut found) = (self.kept.lock().await, BTreeMap::new());
        let mut connected = self.connected(kept.take(), until).await?;
        self.write(&mut connected.client, &entries, left).await?;
        // It is there, whatever becomes of the connection now.
        if let Ok(read) = self.read(&connected.client, entries.keys()).await {
            found = read;
            *kept = Some(connected);
        }
        for (target, keys) in owners {
            let is_seen = keys.iter().all(|key| found.get(key).is_some_and(|there| is_as_told(there, &entries[key])));
            let ceiling = ceilings.get(&target).copied().unwrap_or(Level::Accepted);
            let level = if is_seen { ceiling } else { Level::Accepted };
            let is_ahead = keys.iter().any(|key| found.get(key).is_some_and(|there| allows_what_is_denied(there, &entries[key])));
            if is_ahead && !reports.iter().any(|(reported, _)| *reported == target) {
                let problem = "the table has rows with higher versions than this log, which allow what is denied now; is the log restored from a backup, or does \
                               somebody else write there?";
                self.problem.set(self.instance.manifest().id(), Some(problem.to_owned()));
                reports.push((target, Report::Failed { is_retryable: true, code: 0 }));
            }
            if !reports.iter().any(|(reported, _)| *reported == target) {
                reports.push((target, Report::Reached(level)));
            }
        }
        Ok(Ended { reports, ..Ended::all(Outcome::Ok(Level::Accepted)) })
    }

    async fn check(self: &Arc<Self>, messages: Vec<Arc<Message>>, until: Instant) -> Result<Ended, Fault> {
        let (Rendered { mut reports, ceilings, .. }, entries, owners) = self.rendered(messages).await?;
        let mut kept = self.kept.lock().await;
        let connected = self.connected(kept.take(), until).await?;
        let found = self.read(&connected.client, entries.keys()).await.map_err(|error| fault(&error))?;
        *kept = Some(connected);
        for (target, keys) in owners {
            let is_seen = keys.iter().all(|key| found.get(key).is_some_and(|there| is_as_told(there, &entries[key])));
            let level = ceilings.get(&target).copied().unwrap_or(Level::Accepted);
            if !reports.iter().any(|(reported, _)| *reported == target) {
                reports.push((target, if is_seen { Report::Reached(level) } else { Report::Drift }));
            }
        }
        Ok(Ended { reports, ..Ended::all(Outcome::Ok(Level::Accepted)) })
    }

    async fn probe(&self, until: Instant) -> Result<Ended, Fault> {
        let mut kept = self.kept.lock().await;
        let connected = self.connected(kept.take(), until).await?;
        connected.client.simple_query("SELECT 1").await.map_err(|error| fault(&error))?;
        *kept = Some(connected);
        Ok(Ended::all(Outcome::Ok(Level::Accepted)))
    }

    async fn write(&self, client: &mut Client, entries: &Entries, left: &Left) -> Result<(), Fault> {
        let (mut kinds, mut digests, mut purposes, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut versions, mut times) = (Vec::new(), Vec::new());
        for ((kind, digest), entry) in entries {
            kinds.push(kind.as_str());
            digests.push(digest.as_str());
            purposes.push(entry.purposes.as_str());
            status.push(entry.status.as_str());
            versions.push(entry.version);
            times.push(entry.updated_at);
        }
        let transaction = client.transaction().await.map_err(|error| fault(&error))?;
        transaction
            .execute(&self.table.upsert(), &[&kinds, &digests, &purposes, &status, &versions, &times])
            .await
            .map_err(|error| fault(&error))?;
        // Up to here nothing can have taken effect.
        left.now();
        match transaction.commit().await {
            Ok(()) => Ok(()),
            // The server said that it did not.
            Err(error) if error.code().is_some_and(|code| !is_lost(code)) => Err(fault(&error)),
            Err(_) => Err(Fault::new(Failure::Ambiguous, "the connection was lost at the commit")),
        }
    }

    /// In a snapshot of its own: each statement outside a transaction has one.
    async fn read(&self, client: &Client, keys: impl Iterator<Item = &Key>) -> Result<Entries, Error> {
        let (kinds, digests): (Vec<&str>, Vec<&str>) = keys.map(|(kind, digest)| (kind.as_str(), digest.as_str())).unzip();
        let rows = client.query(&self.table.select(), &[&kinds, &digests]).await?;
        // A table of the operator's own can have gaps: what is not there is not as it was told.
        let text = |row: &tokio_postgres::Row, at: usize| row.try_get::<_, Option<String>>(at).map(Option::unwrap_or_default);
        let entry = |row: &tokio_postgres::Row| {
            let version = row.try_get::<_, Option<i64>>(4)?.unwrap_or(-1);
            let entry = Entry { purposes: text(row, 2)?, status: text(row, 3)?, version, updated_at: 0 };
            Ok(((text(row, 0)?, text(row, 1)?), entry))
        };
        rows.iter().map(entry).collect()
    }

    /// The connection that was kept, or a new one, for as long as the errand has time.
    async fn connected(&self, kept: Option<Connected>, until: Instant) -> Result<Connected, Fault> {
        // The server's own word for it is to come in time.
        let left_ms = (until.saturating_duration_since(Instant::now()).as_millis() * 9 / 10).clamp(1, 3_600_000);
        let timeouts = format!("SET statement_timeout = {left_ms}; SET lock_timeout = {left_ms}");
        if let Some(kept) = kept {
            // Nobody may be there any more who could say that the connection is none.
            let alive = tokio::time::timeout(OUTGOING_CONNECT_TIMEOUT, kept.client.batch_execute(&timeouts)).await;
            if matches!(alive, Ok(Ok(()))) {
                return Ok(kept);
            }
        }
        let connected = match tokio::time::timeout(OUTGOING_CONNECT_TIMEOUT, self.connect()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Fault::new(Failure::Connect, "the server does not answer")),
        };
        connected.client.batch_execute(&timeouts).await.map_err(|error| fault(&error))?;
        self.prepare(&connected.client).await?;
        Ok(connected)
    }

    async fn connect(&self) -> Result<Connected, Fault> {
        let io = |error: std::io::Error| Fault::new(Failure::Connect, format!("no connection: {error}"));
        match &self.host {
            Host::Unix(directory) => {
                let socket = directory.join(format!(".s.PGSQL.{}", self.port));
                self.speak(UnixStream::connect(socket).await.map_err(io)?, NoTls).await
            }
            Host::Tcp(name) => {
                let stream = dial(name, self.port, self.options.allow_private).await.map_err(|error| match error {
                    DialError::Forbidden => Fault::new(Failure::Connect, error.to_string()),
                    DialError::Io(error) => io(error),
                })?;
                match self.tls.clone() {
                    None => self.speak(stream, NoTls).await,
                    Some(mut tls) => {
                        let tls = MakeTlsConnect::<tokio::net::TcpStream>::make_tls_connect(&mut tls, name)
                            .map_err(|error| Fault::new(Failure::Connect, format!("no TLS: {error}")))?;
                        self.speak(stream, tls).await
                    }
                }
            }
        }
    }

    async fn speak<S, T>(&self, stream: S, tls: T) -> Result<Connected, Fault>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = self.config.connect_raw(stream, tls).await.map_err(|error| fault(&error))?;
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connected { client, task })
    }

    /// Makes the table if it is not there, and looks whether it is as it must be.
    async fn prepare(&self, client: &Client) -> Result<(), Fault> {
        let wrong = |what: &str| {
            let problem = format!("{what}; it must be as this makes it: {}", self.table.ddl);
            Fault::new(Failure::Server, problem)
        };
        let find = "SELECT to_regclass($1)::oid";
        let row = client.query_one(find, &[&self.table.quoted]).await.map_err(|error| fault(&error))?;
        let mut table: Option<u32> = row.get(0);
        if table.is_none() {
            if let Err(error) = client.batch_execute(&self.table.ddl).await {
                let Fault { outcome, problem } = fault(&error);
                let problem = format!("the table {} is missing and could not be made ({problem})", self.table.quoted);
                return Err(Fault { outcome, problem: wrong(&problem).problem });
            }
            tracing::info!(table = self.table.quoted, "the table was made");
            table = client.query_one(find, &[&self.table.quoted]).await.map_err(|error| fault(&error))?.get(0);
        }
        let table = table.ok_or_else(|| wrong("the table is missing"))?;
        let columns = "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
                       WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped";
        let there = client.query(columns, &[&table]).await.map_err(|error| fault(&error))?;
        let there: BTreeMap<String, String> = there.iter().map(|row| (row.get(0), row.get(1))).collect();
        if let Some((name, _)) = COLUMNS.iter().find(|(name, kind)| there.get(*name).is_none_or(|found| found != kind)) {
            return Err(wrong(&format!("the column {name} of the table {} is missing or of another type", self.table.quoted)));
        }
        let unique = "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = $1::oid AND indisunique AND indpred IS NULL AND indnkeyatts = 2 \
                      AND (SELECT array_agg(attname::text ORDER BY attname::text) FROM pg_attribute \
                      WHERE attrelid = indrelid AND attnum = ANY (indkey[0:1])) = ARRAY['kind', 'sha256_hex'])";
        if !client.query_one(unique, &[&table]).await.map_err(|error| fault(&error))?.get::<_, bool>(0) {
            return Err(wrong(&format!("the table {} has no primary key (kind, sha256_hex)", self.table.quoted)));
        }
        Ok(())
    }
}

/// What is there says what was told, or something newer that denies as much.
fn is_as_told(there: &Entry, told: &Entry) -> bool {
    if there.version != told.version {
        return there.version > told.version && !allows_what_is_denied(there, told);
    }
    there.status == told.status && there.purposes == told.purposes
}

/// Whether what is there has a higher version and allows what is denied now. The log never says that of itself, so the table is ahead of
/// it: the log was restored, or somebody else writes there.
fn allows_what_is_denied(there: &Entry, told: &Entry) -> bool {
    let denied = |purpose: &str| there.status == told.status && there.purposes.split(' ').any(|one| one == purpose);
    there.version > told.version && told.status == "opt_out" && !told.purposes.split(' ').all(denied)
}

/// The rows by their key, and the keys of each target. One statement cannot write a row twice.
fn entries(rows: &[Row]) -> Result<(Entries, Owners), Fault> {
    let (mut entries, mut owners) = (Entries::new(), Owners::new());
    for row in rows {
        let text = |name: &str| row.value[name].as_str().map(str::to_owned);
        let purposes = row.value["purposes"].as_array().map(|all| all.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(" "));
        let (version, updated_at) = (row.value["version"].as_i64(), row.value["updated_at"].as_i64());
        let (Some(kind), Some(digest), Some(purposes), Some(status), Some(version), Some(updated_at)) =
            (text("kind"), text("sha256_hex"), purposes, text("status"), version, updated_at)
        else {
            let columns = COLUMNS.map(|(name, _)| name).join(", ");
            return Err(Fault::new(Failure::Server, format!("the connector's item must have the columns {columns}")));
        };
        let (key, entry) = ((kind, digest), Entry { purposes, status, version, updated_at });
        let keys = owners.entry(Target(row.token)).or_default();
        if !keys.contains(&key) {
            keys.push(key.clone());
        }
        // The newer one holds; of two of the same age the one that denies.
        let rank = |entry: &Entry| (entry.version, entry.status == "opt_out");
        match entries.get(&key) {
            Some(kept) if rank(kept) >= rank(&entry) => {}
            _ => drop(entries.insert(key, entry)),
        }
    }
    Ok((entries, owners))
}

/// Whether the server ended the connection with it, so that a commit may have happened.
fn is_lost(code: &SqlState) -> bool {
    code.code().starts_with("08") || code.code().starts_with("57P")
}

/// What an error means. Of the server's words only those about itself are kept: others can repeat a value.
fn fault(error: &Error) -> Fault {
    let Some(db) = error.as_db_error() else {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        return Fault::new(Failure::Connect, format!("no connection: {cause}"));
    };
    let code = db.code().code();
    let says = |failure| Fault::new(failure, format!("{code}: {}", db.message()));
    match code {
        // The disk is full: that is nobody's haste.
        "53100" => says(Failure::Server),
        "42501" => says(Failure::Credentials),
        _ if is_lost(db.code()) => says(Failure::Connect),
        _ if code.starts_with("28") => says(Failure::Credentials),
        _ if code.starts_with("53") => says(Failure::Throttled),
        // A value that the table does not take, by a rule that somebody added.
        _ if code.starts_with("22") || code.starts_with("23") => {
            let number = code.parse().unwrap_or(0);
            Fault { outcome: Outcome::SomeFailed { is_retryable: true, code: number }, problem: format!("{code}: the table refuses a row") }
        }
        // No such table among them: whose choice was sent has no part in it.
        _ if ["3D", "3F", "40", "42", "55", "57"].iter().any(|class| code.starts_with(class)) => says(Failure::Server),
        _ => Fault::new(Failure::Server, format!("{code}: an error of the server")),
    }
}
