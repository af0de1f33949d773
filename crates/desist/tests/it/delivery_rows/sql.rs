//! A table of PostgreSQL.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::*;
use crate::support::until;

/// A server of PostgreSQL of the test's own, with TLS; it ends when dropped.
pub(super) struct Postgres {
    directory: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// As the user that PostgreSQL wants to be: it refuses to be root.
fn as_server(program: impl Into<PathBuf>) -> Command {
    let program = program.into();
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout == b"0\n"
}

fn ran(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Postgres {
    pub(super) fn start() -> Self {
        let found = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing; run scripts/test");
        let bin = found.map(|entry| entry.expect("an entry").path().join("bin")).max().expect("a version");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut postgres = Self { directory, bin, port: free_port(), child: None };
        let (root, data) = (postgres.directory.path().to_owned(), postgres.data());
        if is_root() {
            ran(Command::new("chown").arg("postgres").arg(&root));
        }
        let password = root.join("password");
        std::fs::write(&password, "s3cret\n").expect("a file");
        ran(Command::new("chmod").args(["644"]).arg(&password));
        let mut initdb = as_server(postgres.bin.join("initdb"));
        initdb.args(["--no-sync", "-E", "UTF8", "-U", "admin", "-A", "scram-sha-256", "--pwfile"]).arg(&password).arg("-D").arg(&data);
        ran(initdb.current_dir("/"));
        // An authority, and a certificate of it for the name that the tests call the server by.
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("an authority");
        let issuer = rcgen::Issuer::new(params, key);
        let own = rcgen::KeyPair::generate().expect("a key");
        let signed = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters").signed_by(&own, &issuer);
        std::fs::write(root.join("ca.pem"), authority.pem()).expect("a file");
        std::fs::write(data.join("server.crt"), signed.expect("a certificate").pem()).expect("a file");
        std::fs::write(data.join("server.key"), own.serialize_pem()).expect("a file");
        if is_root() {
            ran(Command::new("chown").arg("postgres").arg(data.join("server.crt")).arg(data.join("server.key")));
        }
        ran(Command::new("chmod").arg("600").arg(data.join("server.key")));
        postgres.up();
        postgres.sql("CREATE ROLE desist LOGIN PASSWORD 's3cret'; CREATE SCHEMA privacy AUTHORIZATION desist");
        postgres
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(super) fn up(&mut self) {
        let mut command = as_server(self.bin.join("postgres"));
        command.current_dir("/").arg("-D").arg(self.data()).args(["-F", "-p", &self.port.to_string(), "-h", "127.0.0.1", "-l"]);
        command.arg("-k").arg(self.directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("PostgreSQL starts"));
        until("PostgreSQL answers", || self.psql("SELECT 1").output().is_ok_and(|output| output.status.success()));
    }

    /// Ends it at once, as a crash does to whoever is connected.
    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    fn psql(&self, query: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.env("PGPASSWORD", "s3cret").args(["-h", "127.0.0.1", "-U", "admin", "-d", "postgres", "-p", &self.port.to_string()]);
        command.args(["-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1", "-c", query]);
        command
    }

    /// What a query says as the server's own administrator.
    pub(super) fn sql(&self, query: &str) -> Vec<String> {
        ran(&mut self.psql(query)).lines().map(str::to_owned).collect()
    }

    pub(super) fn ca(&self) -> String {
        self.directory.path().join("ca.pem").to_string_lossy().into_owned()
    }

    pub(super) fn url(&self, user: &str, password: &str, host: &str, rest: &str) -> Value {
        json!({ "secret": format!("postgres://{user}:{password}@{host}:{}/postgres{rest}", self.port) })
    }

    fn table(&self, table: &str) -> Rows {
        let settings = json!({ "url": self.url("desist", "s3cret", "localhost", ""), "ca": self.ca(), "table": table });
        Rows::open(instance("sql-table", &settings), options(true)).expect("it opens")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}

/// The query of the connector's own page, in PostgreSQL.
pub(super) const ANTI_JOIN: &str = "SELECT c.email FROM contacts c \
    LEFT JOIN privacy.choices s ON s.kind = 'email' AND s.status = 'opt_out' \
    AND s.sha256_hex = encode(sha256(convert_to(lower(trim(c.email)), 'UTF8')), 'hex') \
    WHERE s.sha256_hex IS NULL ORDER BY 1";

#[test]
fn every_choice_is_in_the_table_once_and_a_plain_join_leaves_it_out() {
    let mut postgres = Postgres::start();
    postgres.sql(
        "CREATE TABLE contacts (email text); INSERT INTO contacts VALUES ('Rosa@Example.org'), ('kim@example.org'), ('lee@example.org ')",
    );
    let table = postgres.table("privacy.choices");
    let lee = message(3, 12, SALE.union(PurposeSet::SHARING), NOTHING, &[digest("lee@example.org")]);
    let nobody = message(4, 13, SALE, NOTHING, &[]);
    let silent = message(5, 14, NOTHING, NOTHING, &[email("sam@example.org")]);
    let all = [opt_out(1, 10, "rosa@example.org"), opt_in(2, 11, "kim@example.org"), lee.clone(), nobody.clone(), silent];
    let mut expected = reached(Level::Verified, 1..=3);
    expected.extend([(4, Report::Unreachable), (5, Report::Nothing)]);
    let ended = send(&table, &all);
    assert!(ended.left);
    assert_eq!(reports(&ended), expected, "{:?}", table.problem());
    assert!(!table.transport().reaches(&nobody) && table.transport().reaches(&lee));
    let rows = "SELECT sha256_hex, array_to_string(purposes, '+'), status, version, extract(epoch FROM updated_at)::bigint \
                FROM privacy.choices WHERE kind = 'email' ORDER BY version";
    let first = [
        format!("{} sale opt_out 10 {AT}", hex("rosa@example.org")),
        format!("{} sale opt_in 11 {AT}", hex("kim@example.org")),
        format!("{} sale+sharing opt_out 12 {AT}", hex("lee@example.org")),
    ];
    assert_eq!(postgres.sql(rows), first);
    assert_eq!(postgres.sql(ANTI_JOIN), ["kim@example.org"]);
    assert_eq!(reports(&check(&table, &all)), expected);

    // The server goes away and comes back, and so do we: the same again changes nothing.
    postgres.down();
    assert_failed(&send(&table, &all), Failure::Connect, table.problem(), "no connection");
    postgres.up();
    assert_eq!(reports(&send(&table, &all)), expected);
    assert_eq!(table.problem(), None);
    let table = postgres.table("privacy.choices");
    assert_eq!(reports(&send(&table, &all)), expected);
    assert_eq!(postgres.sql(rows), first);

    // What is older comes too late, alone or in one batch with the newer; it is there as something newer.
    let late = [opt_in(1, 9, "rosa@example.org"), opt_out(2, 20, "kim@example.org"), opt_in(6, 19, "kim@example.org")];
    assert_eq!(reports(&send(&table, &late)), reached(Level::Verified, [1, 2, 6]));
    assert_eq!(postgres.sql("SELECT status, version FROM privacy.choices ORDER BY version"), ["opt_out 10", "opt_out 12", "opt_out 20"]);
    assert_eq!(postgres.sql(ANTI_JOIN), [""; 0]);

    // Somebody else's hand in the table is found.
    postgres.sql("UPDATE privacy.choices SET status = 'opt_in' WHERE version = 10; DELETE FROM privacy.choices WHERE version = 12");
    let found = reports(&check(&table, &[opt_out(1, 10, "rosa@example.org"), opt_out(2, 20, "kim@example.org"), lee]));
    assert_eq!(found, [(1, Report::Drift), (2, Report::Reached(Level::Verified)), (3, Report::Drift)]);

    // The same in a file that another data base reads.
    postgres.sql("CREATE TABLE copied AS SELECT kind, sha256_hex, status FROM privacy.choices");
    let csv = ran(&mut postgres.psql("COPY copied TO STDOUT (FORMAT csv, HEADER)"));
    let path = postgres.directory.path().join("choices.csv");
    std::fs::write(&path, csv).expect("a file");
    let query = format!(
        "SELECT c.email FROM (VALUES ('Rosa@Example.org'), ('kim@example.org'), ('lee@example.org')) c(email) \
         LEFT JOIN read_csv('{}') s ON s.kind = 'email' AND s.status = 'opt_out' AND s.sha256_hex = sha256(lower(trim(c.email))) \
         WHERE s.sha256_hex IS NULL ORDER BY 1",
        path.display()
    );
    assert_eq!(duckdb(&query), ["Rosa@Example.org", "lee@example.org"]);
}

#[test]
fn a_server_that_fails_is_judged_by_what_it_says() {
    let mut postgres = Postgres::start();
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    let open = |url: Value, table: &str| {
        let settings = json!({ "url": url, "ca": postgres.ca(), "table": table });
        Rows::open(instance("sql-table", &settings), options(true)).expect("it opens")
    };
    let wrong_password = open(postgres.url("desist", "other", "localhost", ""), "privacy.choices");
    assert_failed(&send(&wrong_password, &rosa), Failure::Credentials, wrong_password.problem(), "28P01");
    assert!(!wrong_password.problem().expect("a problem").contains("other"), "no secret is said");
    // The certificate is of another name.
    let other_name = open(postgres.url("desist", "s3cret", "127.0.0.1", ""), "privacy.choices");
    assert_failed(&send(&other_name, &rosa), Failure::Connect, other_name.problem(), "certificate");
    let plain = open(postgres.url("desist", "s3cret", "127.0.0.1", "?sslmode=disable"), "privacy.plain");
    assert_eq!(reports(&send(&plain, &rosa)), reached(Level::Verified, [1]));
    let probe = |rows: &Rows| start(&*rows.transport(), Errand::Probe, WITHIN);
    assert_eq!(probe(&plain), Ended::all(Outcome::Ok(Level::Accepted)), "it works, and so it counts as started");

    // A table that may not be made, or that is another one: nobody's dead letter, and the operator sees what is wanted.
    let not_permitted = postgres.table("public.choices");
    assert_failed(
        &send(&not_permitted, &rosa),
        Failure::Credentials,
        not_permitted.problem(),
        "CREATE TABLE IF NOT EXISTS \"public\".\"choices\"",
    );
    postgres.sql(
        "CREATE TABLE public.choices (kind text, sha256_hex text, purposes text, status text, version bigint, updated_at timestamptz)",
    );
    postgres.sql("GRANT ALL ON public.choices TO desist");
    assert_failed(&send(&not_permitted, &rosa), Failure::Server, not_permitted.problem(), "column purposes");
    postgres.sql("ALTER TABLE public.choices ALTER purposes TYPE text[] USING NULL");
    assert_failed(&send(&not_permitted, &rosa), Failure::Server, not_permitted.problem(), "no primary key");
    postgres.sql("ALTER TABLE public.choices ADD PRIMARY KEY (sha256_hex, kind)");
    assert_eq!(reports(&send(&not_permitted, &rosa)), reached(Level::Verified, [1]));

    let table = postgres.table("privacy.choices");
    assert_eq!(reports(&send(&table, &rosa)), reached(Level::Verified, [1]));
    postgres.sql("DROP TABLE privacy.choices");
    assert_failed(&send(&table, &rosa), Failure::Server, table.problem(), "42P01");
    assert_eq!(reports(&check(&table, &rosa)), [(1, Report::Drift)], "it is made anew, and found to be empty");
    assert_eq!(reports(&send(&table, &rosa)), reached(Level::Verified, [1]));

    // A rule of somebody's own refuses a row: some of the batch failed, and nothing of it is there.
    postgres.sql("ALTER TABLE privacy.choices ADD CHECK (version < 1000)");
    let ended = send(&table, &[opt_out(2, 11, "kim@example.org"), opt_out(3, 1000, "lee@example.org")]);
    assert_eq!((ended.left, ended.outcome), (true, Outcome::SomeFailed { is_retryable: true, code: 23514 }));
    assert!(!table.problem().expect("a problem").contains("example"), "no value is said");
    assert_eq!(postgres.sql("SELECT count(*) FROM privacy.choices"), ["1"]);

    // Somebody holds the table: the errand ends in time.
    let mut holder = postgres.psql("BEGIN; LOCK privacy.choices; SELECT pg_sleep(60)").stdout(Stdio::null()).spawn().expect("psql runs");
    until("the table is held", || postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted") != ["0"]);
    let ended = start(&*table.transport(), Errand::Send(rosa.to_vec()), Duration::from_secs(3));
    assert_failed(&ended, Failure::Server, table.problem(), "timeout");
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'");
    let _ = holder.wait();
    assert_eq!(reports(&send(&table, &rosa)), reached(Level::Verified, [1]));

    // The connection ends at the commit: it may have happened.
    postgres.sql(
        "CREATE FUNCTION privacy.die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
         AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER die AFTER INSERT ON privacy.choices DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION privacy.die()",
    );
    let kim = [opt_out(2, 11, "kim@example.org")];
    let ended = send(&table, &kim);
    assert_eq!((ended.left, ended.outcome), (true, Outcome::Failed { failure: Failure::Ambiguous, retry_after_ms: None }));
    postgres.sql("DROP TRIGGER die ON privacy.choices");
    assert_eq!(reports(&send(&table, &kim)), reached(Level::Verified, [2]));

    postgres.sql("ALTER ROLE desist CONNECTION LIMIT 0");
    let late = postgres.table("privacy.choices");
    assert_failed(&send(&late, &rosa), Failure::Throttled, late.problem(), "53300");
    postgres.down();
    assert_failed(&probe(&late), Failure::Connect, late.problem(), "no connection");
}

/// Connections of this machine to one of its ports.
fn connections(port: u16) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    let remote = format!(":{port:04X}");
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields.get(2).is_some_and(|address| address.ends_with(&remote)) && fields.get(3) == Some(&"01")).count()
}

#[test]
fn a_connection_that_says_nothing_is_closed_and_another_made() {
    let postgres = Postgres::start();
    let table = postgres.table("privacy.choices");
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    assert_eq!(reports(&send(&table, &rosa)), reached(Level::Verified, [1]), "{:?}", table.problem());
    assert_eq!(connections(postgres.port), 1);
    let backends = postgres.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'desist'");
    let [backend] = &backends[..] else { panic!("{backends:?}") };
    ran(Command::new("kill").args(["-STOP", backend]));
    let ended = send(&table, &rosa);
    let left = connections(postgres.port);
    ran(Command::new("kill").args(["-CONT", backend]));
    assert_eq!(reports(&ended), reached(Level::Verified, [1]), "{:?}", table.problem());
    assert_eq!(left, 1, "the one that says nothing is closed");
    drop(table);
    until("the server has no connection left", || connections(postgres.port) == 0);
}

#[test]
fn a_data_base_of_a_private_network_is_only_for_who_may() {
    let url = |rest: &str| json!({ "url": { "secret": format!("postgres://desist:s3cret@{rest}") } });
    let open = |rest: &str, allow_private| Rows::open(instance("sql-table", &url(rest)), options(allow_private));
    for plain in ["db.example.com/crm?sslmode=disable", "%2Frun%2Fpostgresql/crm"] {
        let error = open(plain, false).err().expect("it is refused");
        assert!(error.contains("allow_private") && !error.contains("s3cret"), "{error}");
        assert!(open(plain, true).is_ok());
    }
    for several in ["a.example.com,b.example.com/crm", "db.example.com/crm?hostaddr=127.0.0.1", "db.example.com"] {
        assert!(open(several, true).is_err(), "{several}");
    }
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("it can");
    let port = socket.local_addr().expect("an address").port();
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        let rows = open(&format!("{host}:{port}/crm"), false).expect("it opens");
        assert_failed(&send(&rows, &[opt_out(1, 1, "rosa@example.org")]), Failure::Connect, rows.problem(), "private");
        assert!(socket.accept().is_err(), "{host}: nobody called");
    }
    let rows = open("169.254.169.254/crm", true).expect("it opens");
    assert_failed(&send(&rows, &[opt_out(1, 1, "rosa@example.org")]), Failure::Connect, rows.problem(), "private");
    let rows = open(&format!("localhost:{port}/crm"), true).expect("it opens");
    start(&*rows.transport(), Errand::Probe, Duration::from_secs(1));
    assert!(socket.accept().is_ok(), "who may, does");
}
